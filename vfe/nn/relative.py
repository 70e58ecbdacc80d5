"""Relative positions: a learned bias a head for every offset (dt, dy, dx) between two tokens.

A table has an entry for each of the (2t-1)(2h-1)(2w-1) offsets of a grid (t, h, w), dx running
fastest, and three for a CLS: of it to a token, of a token to it, of it to itself. With t = 1 that
is BEiT's (arXiv 2106.08254; transformers, models/beit/modeling_beit.py), with t > 1 SViTT's.

The entry of a pair is linear in the offset. So each token has one number, its code, and the entry
of a pair is the difference of two codes: no table of pairs is ever made.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vfe.errors import UserError

CLS_ENTRIES = 3
FROM_CLS, TO_CLS, WITHIN_CLS = -3, -2, -1  # where they stand, from the end
LEAST, MOST = 1.01, 1.5  # how much farther an offset may lie than the one before it, in BEiT's code


class RelativeBias(NamedTuple):
  """table: float32[R, H]. codes: int32[B, N] of the tokens there are, without a CLS, or int32[1, N]
  where all rows have the same tokens (the bias is then looked up once for all of them)."""

  table: jax.Array
  codes: jax.Array


def entries(grid: tuple[int, int, int]) -> int:
  """R, the number of a table's entries: 5106 for 4 frames of 14 x 14 tokens."""
  return math.prod(2 * side - 1 for side in grid) + CLS_ENTRIES


def codes(
  places: tuple[Int[Array, "*B"], Int[Array, "*B"], Int[Array, "*B"]], grid: tuple[int, int, int]
) -> Int[Array, "*B"]:
  """The codes of tokens at t, y and x of a grid (t, h, w); `Layout.places` has them of a selection.

  Tokens that lie outside the grid get entries of other offsets.
  """
  t, y, x = places
  return (t * (2 * grid[1] - 1) + y) * (2 * grid[2] - 1) + x


def between(
  asking: Int[Array, "*#P"], answering: Int[Array, "*#P"], count: int
) -> Int[Array, "*P"]:
  """The entries of pairs of tokens in a table of `count` entries, from their codes."""
  return asking - answering + (count - CLS_ENTRIES - 1) // 2


def inflated(table: Float[Array, "R H"], frames: int) -> Float[Array, "R2 H"]:
  """A table of pictures for `frames` latent frames: every offset in time gets the picture's entry,
  so that attention begins blind to time (SViTT)."""
  offsets, own = table[:-CLS_ENTRIES], table[-CLS_ENTRIES:]
  return jnp.concatenate([jnp.tile(offsets, (2 * frames - 1, 1)), own])


def resized(
  table: Float[Array, "R H"], frames: int, wanted: int
) -> Float[Array, "R2 H"]:
  """A table of `frames` latent frames for `wanted` of them: the nearest offset in time.

  Nearest of the offsets' centres, so that past and future stay each other's mirror image. SViTT's
  code takes the nearest one below, by which, from 4 to 8 frames, the next frame is given the bias
  of the same frame, but the previous one that of the previous one.

  Raises:
    UserError: the table is not one of `frames` latent frames.
  """
  offsets, own = table[:-CLS_ENTRIES], table[-CLS_ENTRIES:]
  if len(offsets) % (2 * frames - 1):
    raise UserError(
      f"a table of {len(table)} relative positions is not one of {frames} latent frames; give the "
      "number that it was trained with."
    )
  have, want = 2 * frames - 1, 2 * wanted - 1
  nearest = (2 * np.arange(want) + 1) * have // (2 * want)
  offsets = offsets.reshape(have, -1, table.shape[1])[nearest]
  return jnp.concatenate([offsets.reshape(-1, table.shape[1]), own])


def rescaled(
  table: Float[Array, "R H"], have: tuple[int, int, int], sides: tuple[int, int]
) -> Float[Array, "R2 H"]:
  """A table of a grid `have` for pictures of (h, w) `sides`, as BEiT's fine-tuning makes it.

  Neighbours stay neighbours: the old offsets are laid out at distances that grow geometrically, 1,
  1 + q, 1 + q + q², to where the farthest old one is the farthest new one, and a bicubic spline
  through them is read at whole distances. q is 1.01 to 1.5, so of a smaller picture the far offsets
  are cut off, and past the farthest its value is repeated. Run on the host.
  """
  t, h, w = (2 * side - 1 for side in have)
  offsets = np.asarray(table[:-CLS_ENTRIES], np.float64).reshape(t, h, w, -1)
  offsets = _spread(_spread(offsets, 1, sides[0]), 2, sides[1])
  offsets = jnp.asarray(offsets.reshape(-1, table.shape[1]), table.dtype)
  return jnp.concatenate([offsets, table[-CLS_ENTRIES:]])


def _spread(
  values: Float[np.ndarray, "t h w H"], axis: int, side: int
) -> Float[np.ndarray, "t h2 w2 H"]:
  """The 2 * side - 1 offsets of a side, from those along an axis."""
  from scipy.interpolate import CubicSpline

  have = values.shape[axis] // 2 + 1
  if have == side:
    return values
  if have == 1:
    return np.repeat(values, 2 * side - 1, axis)
  distances = np.cumsum(_ratio(have, side) ** np.arange(have - 1))
  places = np.concatenate([-distances[::-1], [0], distances])
  asked = np.clip(np.arange(1 - side, side), places[0], places[-1])
  return CubicSpline(places, values, axis)(asked)


def _ratio(have: int, want: int) -> float:
  """q: the sum of its powers 0 .. have - 2 is want - 1, the farthest offset there is."""
  from scipy.optimize import brentq

  missing = lambda q: np.sum(q ** np.arange(have - 1)) - (want - 1)
  if missing(LEAST) >= 0:
    return LEAST
  return MOST if missing(MOST) <= 0 else brentq(missing, LEAST, MOST)
