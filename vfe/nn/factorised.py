"""Attention over space and time one after the other, layer by layer (LongViViT 3.1, ViViT model 3).

Every latent frame holds the same number of selected tokens: then frames are rows of a batch, no
mask is computed, and nothing is as long as the clip. Sites may be left with unequal numbers.
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from vfe.nn.attention import attend
from vfe.nn.blocks import Block, drop_path


@flax.struct.dataclass
class Places:
  """Where selected tokens lie in a full grid.

  selection: int32[B, K], sorted indices, latent frame by latent frame, of an equal number in each.
  frames: the latent frames that they lie in. grid: (latent frames, sites) of the whole layout.
  """

  selection: jax.Array
  frames: int = flax.struct.field(pytree_node=False)
  grid: tuple[int, int] = flax.struct.field(pytree_node=False)


def fold(tokens: Shaped[Array, "B K *D"], frames: int) -> Shaped[Array, "Bt k *D"]:
  """Frames as rows: [B * frames, K / frames, ...]."""
  return tokens.reshape(len(tokens) * frames, -1, *tokens.shape[2:])


def unfold(tokens: Shaped[Array, "Bt k *D"], frames: int) -> Shaped[Array, "B K *D"]:
  """The inverse of `fold`."""
  return tokens.reshape(len(tokens) // frames, -1, *tokens.shape[2:])


def attend_frames(
  q: Float[Array, "B K H d"],
  k: Float[Array, "B K H d"],
  v: Float[Array, "B K H d"],
  *,
  places: Places,
  segments: None = None,
  implementation: str = "auto",
) -> Float[Array, "B K H d"]:
  """Every token sees those of its own frame."""
  del segments
  folded = (fold(x, places.frames) for x in (q, k, v))
  return unfold(attend(*folded, implementation=implementation), places.frames)


def attend_sites(
  q: Float[Array, "B K H d"],
  k: Float[Array, "B K H d"],
  v: Float[Array, "B K H d"],
  *,
  places: Places,
  segments: None = None,
  implementation: str = "auto",
) -> Float[Array, "B K H d"]:
  """Every token sees those of its own site, whatever their number.

  Dropped tokens' places stay empty in the grid, and nobody sees them: a few dozen keys a site are
  cheaper than a mask over all pairs of tokens.
  """
  del segments
  frames, sites = places.grid
  everything = q.shape[1] == frames * sites
  rows = jnp.arange(len(q))[:, None]

  def by_site(x):
    if not everything:
      empty = jnp.zeros((len(x), frames * sites, *x.shape[2:]), x.dtype)
      x = empty.at[rows, places.selection].set(x)
    x = x.reshape(len(x), frames, sites, *x.shape[2:]).swapaxes(1, 2)
    return x.reshape(-1, frames, *x.shape[3:])

  there = None if everything else by_site(jnp.ones(q.shape[:2], jnp.int32))
  mixed = attend(*map(by_site, (q, k, v)), segments=there, implementation=implementation)
  mixed = mixed.reshape(len(q), sites, frames, *mixed.shape[2:]).swapaxes(1, 2)
  mixed = mixed.reshape(len(q), frames * sites, *mixed.shape[3:])
  return mixed if everything else mixed[rows, places.selection]


class FactorisedBlock(Block):
  """Attention within frames, then tanh(gate) times attention within sites, then the MLP.

  The gate is a number a layer, 0 at first, so that the block begins as one of an image encoder;
  the temporal attention then is a copy of the spatial one (`vfe.models.inflate`).
  """

  @nn.nowrap
  def mix(self, tokens, drop, keys, where, own):
    """Space, then time; the paper does not say in which order."""
    del own
    if where is None:  # parameters are drawn from a token that lies nowhere
      within_frames = within_sites = attend
    else:
      within_frames = functools.partial(attend_frames, places=where)
      within_sites = functools.partial(attend_sites, places=where)
    spatial = self.attended("attention", tokens, within_frames)
    tokens = tokens + drop_path(spatial, drop, keys, "attention")
    gate = self.param("gate", nn.initializers.zeros_init(), ())
    temporal = self.attended("temporal", tokens, within_sites)
    temporal = jnp.tanh(gate).astype(temporal.dtype) * temporal
    return tokens + drop_path(temporal, drop, keys, "temporal"), None
