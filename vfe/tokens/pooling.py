"""Pooling of selected tokens by where they lie."""

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
  rows, site = jnp.arange(len(tokens))[:, None], selection % layout.per_frame
  shape = (len(tokens), layout.per_frame)
  count = jnp.zeros(shape, jnp.float32).at[rows, site].add(1.0)
  total = jnp.zeros((*shape, tokens.shape[-1]), jnp.float32)
  total = total.at[rows, site].add(tokens.astype(jnp.float32))
  return (total / jnp.maximum(count, 1.0)[:, :, None]).astype(tokens.dtype), count > 0
