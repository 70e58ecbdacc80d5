"""Finite scalar quantisation (Mentzer et al., arXiv 2309.15505): a codebook without a codebook.

Three forms of one token of d numbers, dimension i having `levels[i]` values:
  latent  float32 in [-1, 1], what networks read and predict;
  code    uint8, the level of each dimension, 0 .. levels[i] - 1, what is stored;
  index   int32, the code as one mixed-radix number (dimension 0 fastest), what is counted.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from vfe.errors import UserError

EPSILON = 1e-3  # keeps tanh away from the outermost rounding boundary; the published value


def check_levels(levels: Sequence[int], where: str = "levels") -> tuple[int, ...]:
  """The levels as a tuple; UserError if a code does not fit uint8 or an index int32."""
  levels = tuple(int(level) for level in levels)
  if not levels or not all(2 <= level <= 256 for level in levels):
    raise UserError(f"{where}={levels}: each dimension takes 2 to 256 levels.")
  if math.prod(levels) > 2**31:
    raise UserError(f"{where}={levels} makes a codebook over 2**31; use fewer or smaller levels.")
  return levels


def bound(soft: Float[Array, "*n d"], levels: Sequence[int]) -> Float[Array, "*n d"]:
  """Squashes each dimension so that rounding gives exactly `levels[i]` integers about zero.

  Even levels are shifted by half a step; the published shift, tan rather than atanh, is kept, so
  that bound(0) is only nearly zero (below 1e-4 from 6 levels on) and rounds to zero.
  """
  half = (np.asarray(levels) - 1) * (1 - EPSILON) / 2
  offset = jnp.where(np.asarray(levels) % 2 == 1, 0.0, 0.5)
  shift = jnp.tan(offset / half)
  return jnp.tanh(soft + shift) * half - offset


def quantise(soft: Float[Array, "*n d"], levels: Sequence[int]) -> Float[Array, "*n d"]:
  """Soft tokens (any real numbers) to latents; the gradient passes the rounding unchanged.

  Computed in float32 whatever comes in: a bfloat16 sum would move the rounding boundaries.
  """
  bounded = bound(soft.astype(jnp.float32), levels)
  rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
  return rounded / _half_width(levels)


def codes_of_latents(latent: Float[Array, "*n d"], levels: Sequence[int]) -> UInt8[Array, "*n d"]:
  """The level of each dimension. Latents must be quantised."""
  half = _half_width(levels)
  return jnp.round(latent * half + half).astype(jnp.uint8)


def latents_of_codes(codes: UInt8[Array, "*n d"], levels: Sequence[int]) -> Float[Array, "*n d"]:
  """The inverse of `codes_of_latents`: float32 in [-1, 1]."""
  half = _half_width(levels)
  return (codes.astype(jnp.float32) - half) / half


def indices_of_codes(codes: UInt8[Array, "*n d"], levels: Sequence[int]) -> Int[Array, "*n"]:
  """One int32 a token, in 0 .. prod(levels) - 1."""
  return jnp.sum(codes.astype(jnp.int32) * _radix(levels), axis=-1, dtype=jnp.int32)


def codes_of_indices(indices: Int[Array, "*n"], levels: Sequence[int]) -> UInt8[Array, "*n d"]:
  """The inverse of `indices_of_codes`."""
  digits = indices[..., None] // _radix(levels) % np.asarray(levels, np.int32)
  return digits.astype(jnp.uint8)


def _half_width(levels: Sequence[int]) -> np.ndarray:
  return (np.asarray(levels) // 2).astype(np.float32)


def _radix(levels: Sequence[int]) -> np.ndarray:
  return np.cumprod([1, *levels[:-1]]).astype(np.int32)
