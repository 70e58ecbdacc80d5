"""Importance without a learned scorer."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from vfe.errors import UserError
from vfe.tokens.layout import Layout


def token_difference(features: Num[Array, "B N D"], layout: Layout) -> Float[Array, "B N"]:
  """Euclidean distance of each token to the one at its place in the latent frame before.

  Frame 0 has none before it and copies frame 1's distances (EVEREST, modeling_pretrain.py). The
  features may be uint8 tubelets, patch embeddings, or a scorer's.

  Raises:
    UserError: the layout has one latent frame only.
  """
  if layout.grid[0] < 2:
    raise UserError(
      f"token difference compares latent frames, the clip has {layout.grid[0]}; "
      f"use at least {2 * layout.tubelet[0]} frames."
    )
  by_frame = features.reshape(len(features), layout.grid[0], layout.per_frame, -1)
  by_frame = by_frame.astype(jnp.float32)
  distance = jnp.linalg.norm(by_frame[:, 1:] - by_frame[:, :-1], axis=-1)
  return jnp.concatenate([distance[:, :1], distance], axis=1).reshape(len(features), -1)
