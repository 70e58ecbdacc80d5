"""Masks of the k highest scores through which a gradient reaches the scores.

LVMAE does not name its differentiable top-k. Straight-through is the default: the mask is exact,
nothing but a sort is computed, and it shards. The soft mask is Sander et al.'s (arXiv 2302.01425).
Both temperatures are shares of the row's own standard deviation, so that the scale of the scores,
which is free, does not matter.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FLOOR = 1e-3  # of the spread: bounds the slope where all scores of a row are equal


def topk_mask(scores: Float[Array, "B n"], k: int) -> Float[Array, "B n"]:
  """One at exactly k places a row, the highest; of equal scores the first ones. No gradient."""
  _check(k, scores.shape[-1])
  rows = jnp.arange(len(scores))[:, None]
  _, chosen = jax.lax.top_k(jax.lax.stop_gradient(scores), k)
  return jnp.zeros_like(scores).at[rows, chosen].set(1)


def straight_through_topk_mask(
  scores: Float[Array, "B n"], k: int, temperature: float = 1.0
) -> Float[Array, "B n"]:
  """`topk_mask` forwards; backwards as if it were sigmoid((score - threshold) / width).

  The threshold lies midway between the k-th and the next score and the width is `temperature`
  standard deviations; neither has a gradient. With k = 0 or k = n there is nothing to choose and
  the gradient is zero.
  """
  mask = topk_mask(scores, k)
  if k in (0, scores.shape[-1]):
    return mask
  best, _ = jax.lax.top_k(jax.lax.stop_gradient(scores), k + 1)
  threshold = (best[:, k - 1 : k] + best[:, k:]) / 2
  soft = jax.nn.sigmoid((scores - threshold) / (temperature * _spread(scores)))
  return mask + (soft - jax.lax.stop_gradient(soft))


def soft_topk_mask(
  scores: Float[Array, "B n"], k: int, temperature: float = 0.1
) -> Float[Array, "B n"]:
  """The mask y in [0, 1] of sum k that maximises <scores, y> - width / 2 * |y|^2.

  This is Sander et al.'s relaxed top-k mask for p = 2. Their code sorts, then solves an isotonic
  regression (Dykstra or PAV); but y = clip((scores - v) / width, 0, 1) for one number v a row,
  which is bisected here: exact, no permutation matrix, no callback. As temperature falls to zero,
  y becomes the hard mask.
  """
  _check(k, scores.shape[-1])
  return _project(scores / (temperature * _spread(scores)), k)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _project(scaled: Array, k: int) -> Array:
  """The point of {0 <= y <= 1, sum y = k} nearest to each row."""
  low, high = scaled.min(-1, keepdims=True) - 1, scaled.max(-1, keepdims=True)
  total = lambda v: jnp.clip(scaled - v, 0, 1).sum(-1, keepdims=True)

  def halve(_, bracket):
    low, high = bracket
    middle = (low + high) / 2
    above = total(middle) > k
    return jnp.where(above, middle, low), jnp.where(above, high, middle)

  low, high = jax.lax.fori_loop(0, 40, halve, (low, high))
  y = jnp.clip(scaled - (low + high) / 2, 0, 1)
  inner = (y > 0) & (y < 1)  # what is still missing of k is shared by these
  missing = (k - y.sum(-1, keepdims=True)) / jnp.maximum(inner.sum(-1, keepdims=True), 1)
  return jnp.clip(jnp.where(inner, y + missing, y), 0, 1)


@_project.defjvp
def _project_jvp(k: int, primals, tangents):
  """Where y is at 0 or 1 it stays; the others move by their tangents less the mean of those."""
  y = _project(primals[0], k)
  inner = (y > 0) & (y < 1)
  moved = jnp.where(inner, tangents[0], 0)
  mean = moved.sum(-1, keepdims=True) / jnp.maximum(inner.sum(-1, keepdims=True), 1)
  return y, jnp.where(inner, moved - mean, 0)


def _spread(scores: Array) -> Array:
  return jax.lax.stop_gradient(jnp.maximum(scores.std(axis=-1, keepdims=True), _FLOOR))


def _check(k: int, n: int) -> None:
  if not 0 <= k <= n:
    raise ValueError(f"cannot keep k={k} of n={n} scores")


TOPK: dict[str, Callable[[Array, int], Array]] = {
  "straight_through": straight_through_topk_mask,
  "soft": soft_topk_mask,
}
