"""Token layouts: where the tokens of a video lie."""

import dataclasses

import numpy as np
from jaxtyping import Array, Int, Int32

from vfe.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
  """A full grid of (t, h, w) tokens, each a tubelet of (frames, rows, columns) RGB pixels.

  A token's index runs over columns first, then rows, then latent frames.
  """

  grid: tuple[int, int, int]
  tubelet: tuple[int, int, int]

  @classmethod
  def of_video(cls, frames: int, size: int, tubelet: tuple[int, int, int]) -> "Layout":
    """The layout of a video of `frames` square frames of `size` pixels.

    Raises:
      UserError: the tubelet does not divide the video.
    """
    grid = map(_divide, ("frames", "size", "size"), (frames, size, size), tubelet)
    return cls(tuple(grid), tuple(tubelet))

  @property
  def size(self) -> int:
    """N, the number of tokens."""
    return self.grid[0] * self.per_frame

  @property
  def per_frame(self) -> int:
    """Tokens in one latent frame."""
    return self.grid[1] * self.grid[2]

  @property
  def channels(self) -> int:
    """P, the number of values in one tubelet."""
    return 3 * self.tubelet[0] * self.tubelet[1] * self.tubelet[2]

  @property
  def video(self) -> tuple[int, int, int]:
    """(frames, height, width) in pixels."""
    return tuple(np.multiply(self.grid, self.tubelet).tolist())

  def coordinates(self) -> Int32[np.ndarray, "N 3"]:
    """(t, y, x) of every token."""
    return np.indices(self.grid, np.int32).reshape(3, -1).T.copy()

  def places(self, selection: Int[Array, "*B K"]) -> tuple[Int[Array, "*B K"], ...]:
    """t, y and x of the selected tokens, by arithmetic: no table of N is looked up."""
    within = selection % self.per_frame
    return selection // self.per_frame, within // self.grid[2], within % self.grid[2]


def _divide(name: str, length: int, part: int) -> int:
  if part < 1 or length < part or length % part:
    near = sorted({max(length // part, 1) * part, (length // part + 1) * part} if part > 0 else ())
    raise UserError(
      f"{name}={length} is not divisible by the tubelet's {part}; "
      f"use {' or '.join(map(str, near)) or 'a positive tubelet'}."
    )
  return length // part
