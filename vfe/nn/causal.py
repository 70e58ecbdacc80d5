"""Causal attention by positions: every word sees itself and those before it, or the last few.

Plain XLA, so that a mesh's partitioner cuts it as it cuts products of matrices.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.nn.attention import CHUNK, MASKED, over_rows

NEVER = 2**30  # the position of a key that nobody sees: padding, or a slot not written yet
ALL = 2**30  # the window of a layer that sees everything before


class Keys(NamedTuple):
  """keys and values [B, M, G, d], and the position int32[B, M] of each, or `NEVER`."""

  keys: jax.Array
  values: jax.Array
  positions: jax.Array


def causal(
  q: Float[Array, "B N H d"],
  positions: Int[Array, "B N"],
  seen: Sequence[Keys],
  *,
  window: Int[Array, ""] | int = ALL,
  scale: float,
  cap: float = 0.0,
) -> Float[Array, "B N H d"]:
  """softmax(scale q kᵀ) v over the keys at the query's own position and the window - 1 before it.

  One softmax, in float32, over all of `seen`, so that a cache and what is new need not be joined.
  H is a multiple of the keys' G: neighbouring queries share a key. A cap c > 0 bends logits to
  c tanh(logit / c). A query that sees no key gets finite numbers without a meaning.

  Probabilities of `CHUNK` queries are held at once, and made again in the backward pass.
  """

  q = over_rows(q)
  seen = [Keys(over_rows(of.keys), over_rows(of.values), of.positions) for of in seen]

  def part(q, positions):
    return _attended(q, positions, seen, window, scale, cap)

  return part(q, positions) if q.shape[1] <= CHUNK else _in_parts(part, q, positions)


def _attended(q, positions, seen, window, scale, cap) -> Float[Array, "B N H d"]:
  grouped = q.reshape(*q.shape[:2], seen[0].keys.shape[2], -1, q.shape[-1])

  def logits(of: Keys):
    found = jnp.einsum(
      "bngid,bmgd->bginm", grouped, of.keys, preferred_element_type=jnp.float32
    ) * scale  # fmt: skip
    found = cap * jnp.tanh(found / cap) if cap else found
    behind = positions[:, :, None] - of.positions[:, None, :]
    return jnp.where(((behind >= 0) & (behind < window))[:, None, None], found, MASKED)

  probabilities = jax.nn.softmax(jnp.concatenate([logits(of) for of in seen], -1), axis=-1)
  ends = list(itertools.accumulate(of.keys.shape[1] for of in seen))
  parts = jnp.split(probabilities.astype(q.dtype), ends[:-1], axis=-1)
  mixed = sum(
    jnp.einsum("bginm,bmgd->bngid", part, of.values, preferred_element_type=jnp.float32)
    for part, of in zip(parts, seen, strict=True)
  )
  return mixed.reshape(q.shape).astype(q.dtype)


def _in_parts(part: Callable, q: jax.Array, positions: jax.Array) -> jax.Array:
  """part(queries, their positions) of `CHUNK` queries after another."""
  rows, n = positions.shape
  short = -n % CHUNK

  def split(x):
    x = jnp.pad(x, [(0, short if i == 1 else 0) for i in range(x.ndim)])
    return x.reshape(rows, -1, CHUNK, *x.shape[2:]).swapaxes(0, 1)

  run = jax.checkpoint(lambda of: part(*of), prevent_cse=False)
  out = jax.lax.map(run, (split(q), split(positions))).swapaxes(0, 1)
  return out.reshape(rows, n + short, *q.shape[2:])[:, :n]
