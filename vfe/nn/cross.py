"""Attention of some tokens to others: every query sees every key that is there."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vfe.nn.causal import NEVER, Keys, causal


def cross(
  q: Float[Array, "B N H d"],
  k: Float[Array, "B M H d"],
  v: Float[Array, "B M H d"],
  there: Bool[Array, "B M"],
) -> Float[Array, "B N H d"]:
  """softmax(q kᵀ / sqrt(d)) v over the keys where `there`, the softmax in float32.

  Where none is, the numbers are finite and mean nothing. What is held at once is as in `causal`.
  """
  at = jnp.zeros(q.shape[:2], jnp.int32)
  seen = Keys(k, v, jnp.where(there, 0, NEVER))
  return causal(q, at, [seen], scale=q.shape[-1] ** -0.5)
