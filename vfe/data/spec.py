"""What a row of video is a function of, besides the source and (seed, step, row).

Needs neither PyAV nor Grain: a planner, and a benchmark on a bare machine, know a batch by it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from vfe.config import choose
from vfe.data import augment
from vfe.data.faults import MAX_PIXELS
from vfe.data.prompt import Prompt
from vfe.data.sampling import Sampling
from vfe.data.text import Text
from vfe.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augment:
  """The spatial crop in training, the same for all frames of a clip: `config.data.augment`.

  Attributes:
    kind: "resized_crop" (random), or "center" (the largest centred square; nothing random).
    scale, ratio: of a random crop: ranges of its share of the picture and of its width / height.
    flip: mirror half of the random crops.
  """

  kind: str = "resized_crop"
  scale: tuple[float, float] = (0.5, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: bool = True

  def __post_init__(self):
    choose(_CROPS, self.kind, "data.augment.kind")

  def crop(self, rng: np.random.Generator, height: int, width: int, size: int) -> augment.Crop:
    """The crop of a height x width picture to a square of `size`."""
    return _CROPS[self.kind](self, rng, height, width, size)


_CROPS = {
  "resized_crop": lambda how, rng, height, width, size: augment.resized_crop(
    rng, height, width, size, scale=how.scale, ratio=how.ratio, flip=how.flip
  ),
  "center": lambda how, rng, height, width, size: augment.center(height, width, size),
}


@dataclasses.dataclass(frozen=True)
class ClipSpec:
  """Everything that a row is a function of, besides the source and (seed, step, row).

  Attributes:
    frames, size: T and H = W of the clips that come out; 0 where no video is read (`of_text`).
    views: R, training rows that are made of one decoded clip.
    neighbours: whether in training every second clip is of the scene of the one before it.
    eval_clips, eval_crops: rows of a record at evaluation: clips in time x crops in space.
    max_pixels: a larger picture is the fault ABSURD_SIZE.
    stored: path of stored tokenizer targets whose codes and importance travel with the clip.
    text: what of the record's texts travels with the clip, and in which arrays.
  """

  frames: int
  size: int
  sampling: Sampling = dataclasses.field(default_factory=Sampling)
  augment: Augment = dataclasses.field(default_factory=Augment)
  views: int = 1
  neighbours: bool = False
  eval_clips: int = 1
  eval_crops: int = 1
  max_pixels: int = MAX_PIXELS
  stored: str | None = None
  text: Text | Prompt | None = None

  @property
  def together(self) -> int:
    """Training rows that belong together, in one step."""
    return self.views * (2 if self.neighbours else 1)

  @classmethod
  def of_text(cls, text: Text | Prompt) -> ClipSpec:
    """Of rows that are texts and have no video: none is opened."""
    return cls(frames=0, size=0, text=text)

  def __post_init__(self):
    silent = self.text is not None and self.frames == self.size == 0
    for field in ("frames", "size", "views", "eval_clips", "eval_crops")[2 * silent :]:
      if getattr(self, field) < 1:
        raise UserError(f"data.{field}={getattr(self, field)} is below 1; use 1 or more.")
    if self.sampling.kind == "first" and self.eval_clips > 1:
      raise UserError(
        f"data.eval_clips={self.eval_clips}: data.sampling.kind='first' has one clip of a video, "
        f"the first; use eval_clips=1, or 'strided'."
      )


def clip_spec(data: ConfigDict) -> ClipSpec:
  """The spec that `config.data` describes."""
  crop = data.augment.to_dict()
  ranges = {key: tuple(map(float, crop[key])) for key in ("scale", "ratio") if key in crop}
  return ClipSpec(
    frames=data.frames,
    size=data.size,
    sampling=Sampling(**data.sampling),
    augment=Augment(**{**crop, **ranges}),
    views=data.views,
    eval_clips=data.eval_clips,
    eval_crops=data.eval_crops,
    max_pixels=data.max_pixels,
  )
