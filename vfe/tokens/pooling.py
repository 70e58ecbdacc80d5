"""Pooling of selected tokens by where they lie."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vfe.tokens.layout import Layout


def mean_over_time(
  tokens: Float[Array, "B K D"], selection: Int[Array, "B K"], layout: Layout
) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
  """The mean of each site's selected tokens over the frames, in float32, and which sites have any.

  A site without tokens has zeros. S = h w however long the clip is: what LongViViT's resampler
  reads (arXiv 2312.07395, section 3.3), also where tokens were dropped at random.
  """
  # One row at a time, so that a mesh's partitioner sees that rows do not meet.
  add = jax.vmap(functools.partial(jax.ops.segment_sum, num_segments=layout.per_frame))
  site = selection % layout.per_frame
  count = add(jnp.ones(site.shape, jnp.float32), site)
  total = add(tokens.astype(jnp.float32), site)
  return (total / jnp.maximum(count, 1.0)[:, :, None]).astype(tokens.dtype), count > 0
