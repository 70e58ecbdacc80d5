"""Crops: a box of the picture, resized to a square, the same for every frame of a clip.

A crop is decided from the picture's size alone, so frames are cut as they are decoded and the
large pictures of a clip are never in memory together. Resizing is a bilinear filter with
antialiasing (it grows with the factor), straight from the box: FFmpeg's of a video's frames
(`vfe.data.picture`), Pillow's of images. They differ by rounding, where colour is not subsampled.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

Number = int | float
Box = tuple[Number, Number, Number, Number]  # left, top, right, bottom


@runtime_checkable
class Cuttable(Protocol):
  """A picture that knows how to cut itself, as `vfe.data.picture.Picture`."""

  def cut(self, box: Box, size: int, flip: bool) -> UInt8[np.ndarray, "S S 3"]: ...


@dataclasses.dataclass(frozen=True)
class Crop:
  """One box of a picture, shown as a square.

  Attributes:
    box: left, top, right, bottom in pixels, may be fractions.
    size: side of the square that comes out.
    flip: mirrored left to right.
  """

  box: Box
  size: int
  flip: bool = False

  def __call__(
    self, picture: UInt8[np.ndarray, "H W 3"] | Cuttable
  ) -> UInt8[np.ndarray, "S S 3"]:
    if not isinstance(picture, np.ndarray):
      return picture.cut(self.box, self.size, self.flip)
    from PIL import Image  # not where only shapes are wanted

    image = Image.fromarray(picture)
    image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=self.box)
    if self.flip:  # here: NumPy takes half as long as the whole resize to copy mirrored pixels
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def resized_crop(
  rng: np.random.Generator,
  height: int,
  width: int,
  size: int,
  *,
  scale: tuple[Number, Number] = (0.5, 1.0),
  ratio: tuple[Number, Number] = (3 / 4, 4 / 3),
  flip: bool = True,
) -> Crop:
  """A random box: the distribution of torchvision's RandomResizedCrop, then a coin for the flip.

  Args:
    scale: range of the box's share of the picture's area, uniform.
    ratio: range of width / height, uniform in its logarithm.

  Ten tries to fit a box; then the largest centred one whose ratio is in range.
  """
  box = _random_box(rng, height, width, scale, ratio) or _fallback_box(height, width, ratio)
  return Crop(box, size, bool(flip and rng.random() < 0.5))


def _random_box(rng, height, width, scale, ratio):
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
      return (left, top, left + w, top + h)
  return None


def _fallback_box(height, width, ratio):
  w, h = width, height
  if width / height < ratio[0]:
    h = round(width / ratio[0])
  elif width / height > ratio[1]:
    w = round(height * ratio[1])
  top, left = (height - h) // 2, (width - w) // 2
  return (left, top, left + w, top + h)


def spatial_crops(height: int, width: int, size: int, count: int = 1) -> list[Crop]:
  """`count` squares of the short side, evenly along the long one; one is the centre.

  Three are the left (top), centre and right (bottom) crops of the usual evaluation.
  The same as resizing the short side to `size` and cutting there.
  """
  side, room = min(height, width), abs(height - width)
  shares = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
  wide = width >= height
  corners = [(room * share, 0.0) if wide else (0.0, room * share) for share in shares]
  return [Crop((x, y, x + side, y + side), size) for x, y in corners]


def center(height: int, width: int, size: int) -> Crop:
  """The largest centred square: short side to `size`, then the centre cut out."""
  return spatial_crops(height, width, size)[0]
