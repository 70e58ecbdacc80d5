"""BERT's transformer block: norms after the sums, and padding that no word sees."""

import flax.linen as nn
from jaxtyping import Array, Float, Int, Key

from vfe.nn.blocks import Attention, Mlp, drop_path, norm


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
