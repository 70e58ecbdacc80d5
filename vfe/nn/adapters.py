"""Few parameters beside many frozen ones: adapters and low-rank products. Both begin as nothing."""

import flax.linen as nn
from jaxtyping import Array, Float


class Adapter(nn.Module):
  """x + up(gelu(down x)), the identity at first (Houlsby et al. 2019, arXiv 1902.00751)."""

  middle: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    hidden = nn.Dense(
      self.middle, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="down"
    )(tokens)
    zeros = nn.initializers.zeros_init()
    up = nn.Dense(tokens.shape[-1], dtype=self.dtype, kernel_init=zeros, name="up")
    return tokens + up(nn.gelu(hidden, approximate=False))


class LowRank(nn.Module):
  """x A B, to be added to x W: LoRA with alpha = rank; B is 0 at first (arXiv 2106.09685)."""

  rank: int
  width: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N {self.width}"]:
    down = nn.initializers.he_uniform()
    low = nn.Dense(self.rank, use_bias=False, dtype=self.dtype, kernel_init=down, name="down")
    zeros = nn.initializers.zeros_init()
    up = nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=zeros, name="up")
    return up(low(tokens))
