"""Which frames of a video make a clip: pure functions of the frame count and a generator.

Indices count frames in presentation order from the first frame of the clip's (start, end).
A video with fewer frames than asked gives what it has, in order, then its last frame again.

At a given rate (`Sampling.fps`) frames are taken by the time at which they are shown: the frame at
a moment is the last one that began by then, as a player shows it, so that a variable frame rate
needs no care. A video slower than the rate shows frames more than once.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

from vfe.errors import UserError

_MICROSECOND = 1e-6  # a frame that begins so little after a moment is the one shown at it

Times = Callable[[], Float64[np.ndarray, "count"]]  # seconds from the first frame to each


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


def first(
  count: int, frames: int, rng: np.random.Generator | None, *, stride: int = 1, align: int = 1
) -> Sample:
  """Every stride-th frame from the first one on. Takes nothing from chance."""
  del rng, align
  return _clipped(stride * np.arange(frames, dtype=np.int64), count)


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


class _Clock:
  """When the frames of a video are shown, and what a window of `frames` at `fps` finds there."""

  def __init__(self, times: Float64[np.ndarray, "count"], frames: int, fps: float):
    self._times = times
    self._moments = np.arange(frames) / fps
    self._interval = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / fps
    self.room = max(0.0, float(times[-1] - self._moments[-1]))  # the last start that fits, seconds

  def shown(self, moments: Float64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The index of the frame that is shown at each moment from 0 on."""
    return np.searchsorted(self._times, moments + _MICROSECOND, side="right") - 1

  def window(self, begin: float, align: int) -> Sample:
    """From the frame shown at `begin`, but no later than the last start that fits."""
    index = int(self.shown(np.array([min(begin, self.room)]))[0]) // align * align
    moments = self._times[index] + self._moments
    past = moments > self._times[-1] + self._interval - _MICROSECOND
    past[0] = False
    indices = np.where(past, len(self._times) - 1, self.shown(moments))
    return Sample(indices.astype(np.int64), index, int(past.sum()))

  def strided(self, rng: np.random.Generator | None, align: int) -> Sample:
    """From a random moment, all as likely; without a generator the centred window."""
    begin = self.room / 2 if rng is None else rng.random() * (self.room + self._interval)
    return self.window(begin, align)


SAMPLERS: dict[str, Callable[..., Sample]] = {
  "strided": strided,
  "first": first,
  "uniform": uniform,
  "segment": segment,
}


_BY_TIME = ("strided", "first")  # the kinds that know a rate


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a recipe takes frames: `config.data.sampling`.

  Attributes:
    kind: a name in `SAMPLERS`.
    stride: frames from one to the next ("strided", "first").
    align: the start is a multiple of it ("strided"; stored targets need their window, 16).
    fps: frames a second of the video's own time ("strided", "first"), in place of a stride; 0: by
      the stride.
  """

  kind: str = "strided"
  stride: int = 1
  align: int = 1
  fps: float = 0.0

  def __post_init__(self):
    if self.kind not in SAMPLERS:
      names = ", ".join(SAMPLERS)
      raise UserError(f"data.sampling.kind={self.kind!r} is not known; use one of {names}.")
    for field in ("stride", "align"):
      if getattr(self, field) < 1:
        value = getattr(self, field)
        raise UserError(f"data.sampling.{field}={value} is below 1; use 1 or more.")
    if not 0 <= self.fps < math.inf:
      raise UserError(
        f"data.sampling.fps={self.fps} is no rate; use frames a second, or 0 to go by the stride."
      )
    if self.fps and self.stride > 1:
      raise UserError(
        f"data.sampling.fps={self.fps:g} and stride={self.stride} both say how far apart frames "
        f"are; set fps=0 or stride=1."
      )

  @property
  def timed(self) -> bool:
    """Whether frames are taken by the time at which they are shown."""
    return bool(self.fps) and self.kind in _BY_TIME

  def sample(
    self, count: int, frames: int, rng: np.random.Generator | None, times: Times | None = None
  ) -> Sample:
    """The frames of one clip of a video with `count` >= 1 frames; centred without `rng`.

    times: asked only where the frames are taken by time.
    """
    if not self.timed:
      return SAMPLERS[self.kind](count, frames, rng, stride=self.stride, align=self.align)
    clock = _Clock(times(), frames, self.fps)
    return clock.window(0.0, 1) if self.kind == "first" else clock.strided(rng, self.align)

  def views(
    self, count: int, frames: int, clips: int, times: Times | None = None
  ) -> list[Sample]:
    """`clips` clips spread evenly over a video with `count` >= 1 frames, without chance.

    One is the centred clip. Strided windows start from 0 to the last start that fits, those of
    "first" all at 0; the other kinds take, in each of `frames` equal segments, the place that is
    (view + 1/2) / clips of it.
    """
    windows = self.kind in _BY_TIME
    if clips == 1 or self.kind == "first" or (not windows and count <= frames):
      return [self.sample(count, frames, None, times)] * clips
    if self.timed:
      clock = _Clock(times(), frames, self.fps)
      return [clock.window(begin, self.align) for begin in np.linspace(0, clock.room, clips)]
    if windows:
      last = max(0, count - ((frames - 1) * self.stride + 1)) // self.align
      steps = np.rint(np.linspace(0, last, clips)).astype(np.int64)
      window = self.stride * np.arange(frames, dtype=np.int64)
      return [_clipped(step * self.align + window, count) for step in steps]
    places = (np.arange(clips)[:, None] + 0.5) / clips + np.arange(frames)
    indices = np.floor(places * count / frames).astype(np.int64)
    return [Sample(row, int(row[0]), 0) for row in indices]
