"""Which frames of a video make a clip: pure functions of the frame count and a generator.

Indices count frames in presentation order from the first frame of the clip's (start, end).
A video with fewer frames than asked gives what it has, in order, then its last frame again.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from vfe.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sample:
  """The frames of one clip.

  Attributes:
    indices: int64[T], sorted, each in [0, count).
    start: the first index.
    repeated: how many of the last indices repeat the last frame because the video is short.
  """

  indices: Int64[np.ndarray, "T"]
  start: int
  repeated: int


def _clipped(indices: Int64[np.ndarray, "T"], count: int) -> Sample:
  """Indices past the end become the last frame."""
  repeated = int((indices >= count).sum())
  return Sample(np.minimum(indices, count - 1), int(indices[0]), repeated)


def strided(
  count: int, frames: int, rng: np.random.Generator | None, *, stride: int = 1, align: int = 1
) -> Sample:
  """Every stride-th frame from a random start that is a multiple of `align`.

  Without a generator the window is centred (rounded down to the multiple).
  A video shorter than the window starts at 0.
  """
  last = max(0, count - ((frames - 1) * stride + 1)) // align
  step = last // 2 if rng is None else int(rng.integers(last + 1))
  return _clipped(step * align + stride * np.arange(frames, dtype=np.int64), count)


def uniform(
  count: int, frames: int, rng: np.random.Generator | None, *, stride: int = 1, align: int = 1
) -> Sample:
  """The whole video, evenly: round(linspace(0, count - 1, frames)). Takes nothing from chance.

  A video of fewer frames than asked is shown once at its own pace. `stride` and `align` have no
  meaning here.
  """
  del rng, stride, align
  if count <= frames:
    return _clipped(np.arange(frames, dtype=np.int64), count)
  indices = np.rint(np.linspace(0, count - 1, frames)).astype(np.int64)
  return Sample(indices, int(indices[0]), 0)


def segment(
  count: int, frames: int, rng: np.random.Generator | None, *, stride: int = 1, align: int = 1
) -> Sample:
  """One frame from each of `frames` equal segments: a random one, or the middle one.

  Temporal Segment Networks (arXiv 1608.00859). Segment i holds the indices from
  floor(i * count / frames) up to, not including, floor((i + 1) * count / frames).
  """
  del stride, align
  if count <= frames:
    return _clipped(np.arange(frames, dtype=np.int64), count)
  edges = np.arange(frames + 1, dtype=np.int64) * count // frames
  low, high = edges[:-1], edges[1:]
  indices = (low + high - 1) // 2 if rng is None else rng.integers(low, high)
  return Sample(indices, int(indices[0]), 0)


SAMPLERS: dict[str, Callable[..., Sample]] = {
  "strided": strided,
  "uniform": uniform,
  "segment": segment,
}


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a recipe takes frames: `config.data.sampling`.

  Attributes:
    kind: a name in `SAMPLERS`.
    stride: frames from one to the next ("strided").
    align: the start is a multiple of it ("strided"; stored targets need their window, 16).
  """

  kind: str = "strided"
  stride: int = 1
  align: int = 1

  def __post_init__(self):
    if self.kind not in SAMPLERS:
      names = ", ".join(SAMPLERS)
      raise UserError(f"data.sampling.kind={self.kind!r} is not known; use one of {names}.")
    for field in ("stride", "align"):
      if getattr(self, field) < 1:
        value = getattr(self, field)
        raise UserError(f"data.sampling.{field}={value} is below 1; use 1 or more.")

  def sample(self, count: int, frames: int, rng: np.random.Generator | None) -> Sample:
    """The frames of one clip of a video with `count` >= 1 frames; centred without `rng`."""
    return SAMPLERS[self.kind](count, frames, rng, stride=self.stride, align=self.align)

  def views(self, count: int, frames: int, clips: int) -> list[Sample]:
    """`clips` clips spread evenly over a video with `count` >= 1 frames, without chance.

    One is the centred clip. Strided windows start from 0 to the last start that fits; the other
    kinds take, in each of `frames` equal segments, the place that is (view + 1/2) / clips of it.
    """
    if clips == 1 or (self.kind != "strided" and count <= frames):
      return [self.sample(count, frames, None)] * clips
    if self.kind == "strided":
      last = max(0, count - ((frames - 1) * self.stride + 1)) // self.align
      steps = np.rint(np.linspace(0, last, clips)).astype(np.int64)
      window = self.stride * np.arange(frames, dtype=np.int64)
      return [_clipped(step * self.align + window, count) for step in steps]
    places = (np.arange(clips)[:, None] + 0.5) / clips + np.arange(frames)
    indices = np.floor(places * count / frames).astype(np.int64)
    return [Sample(row, int(row[0]), 0) for row in indices]
