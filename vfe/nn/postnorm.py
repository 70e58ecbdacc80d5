"""BERT's transformer block: norms after the sums, and padding that no word sees."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vfe.nn.attention import attend
from vfe.nn.blocks import Attention, Mlp, drop_path, norm
from vfe.nn.sparse import probabilities_of_first


@flax.struct.dataclass
class Fusing:
  """What words are fused with.

  words: int32[B, L], 1 for words and 0 for padding, or None; video: [B, N, E], all of its tokens.
  """

  words: jax.Array | None
  video: jax.Array


class PostNormBlock(nn.Module):
  """norm(x + attention(x)), then norm(x + mlp(x)); runs in a `vfe.nn.blocks.Stack`."""

  heads: int
  mlp: int
  norm_eps: float = 1e-12
  dtype: str = "float32"
  attention: str = "auto"
  activation: str = "gelu"

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    drop: Float[Array, ""] | None = None,
    keys: Key[Array, "B"] | None = None,
    where: Int[Array, "B N"] | None = None,
  ) -> Float[Array, "B N D"]:
    """Tokens meet those of the same number in `where`, 1 for words and 0 for padding.

    Each of the two branches is dropped, a row at a time, with probability `drop`.
    """
    attention = Attention(self.heads, self.dtype, self.attention, name="attention")
    mixed = drop_path(attention(tokens, segments=where), drop, keys, "attention")
    tokens = norm(self.norm_eps, self.dtype, "attention_norm")(tokens + mixed)
    hidden = Mlp(self.mlp, self.dtype, self.activation, name="mlp")(tokens)
    hidden = drop_path(hidden, drop, keys, "mlp")
    return norm(self.norm_eps, self.dtype, "mlp_norm")(tokens + hidden)


class FusedBlock(nn.Module):
  """norm(x + attention(x)), norm(x + cross-attention(x, video)), norm(x + mlp(x)).

  ALBEF's and SViTT's layer of a multimodal encoder. Runs with a `Fusing`. As its own a layer has
  nothing; what it finds by the way is float32[B, N], what the first word gives to each token of the
  video, the mean over heads.
  """

  heads: int
  mlp: int
  video_width: int
  norm_eps: float = 1e-12
  dtype: str = "float32"
  attention: str = "auto"
  activation: str = "gelu"

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B L D"],
    drop: Float[Array, ""] | None = None,
    keys: Key[Array, "B"] | None = None,
    where: Fusing | None = None,
    own: Any = None,
  ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float[Array, "B N"]]:
    """Words meet words, as in `PostNormBlock`, and all tokens of the video."""
    if where is None:  # parameters are drawn from words that nobody shows a video
      where = Fusing(None, jnp.zeros((len(tokens), 1, self.video_width), tokens.dtype))
    found = []

    def meet(q, k, v, *, segments, implementation):
      found.append(jax.lax.stop_gradient(probabilities_of_first(q[:, :1], k)[:, :, 0].mean(1)))
      return attend(q, k, v, implementation=implementation)

    joins = lambda name, mixed: norm(self.norm_eps, self.dtype, f"{name}_norm")(
      tokens + drop_path(mixed, drop, keys, name)
    )
    attention = Attention(self.heads, self.dtype, self.attention, name="attention")
    tokens = joins("attention", attention(tokens, segments=where.words))
    cross = Attention(self.heads, self.dtype, self.attention, 0, meet, name="cross")
    tokens = joins("cross", cross(tokens, where.video))
    tokens = joins("mlp", Mlp(self.mlp, self.dtype, self.activation, name="mlp")(tokens))
    return tokens if own is None else (tokens, found[0])
