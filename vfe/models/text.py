"""The text model: BERT (arXiv 1810.04805), and one vector of a text."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vfe.config import choose
from vfe.errors import UserError
from vfe.nn.blocks import ACTIVATIONS, Execution, Stack, norm
from vfe.nn.postnorm import PostNormBlock

# medium and base are BERT's (arXiv 1908.08962).
SIZES = {
  "test": dict(width=32, depth=2, heads=2, mlp=64),
  "demo": dict(width=64, depth=2, heads=2, mlp=256),
  "medium": dict(width=512, depth=8, heads=8, mlp=2048),
  "base": dict(width=768, depth=12, heads=12, mlp=3072),
}


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """What a text model is. `dataclasses.asdict` of it is JSON-able, `from_dict` reads that.

  vocabulary is the number of words, positions the most of them in a text. types are BERT's
  sentences A and B; every text here is A.
  """

  vocabulary: int
  width: int
  depth: int
  heads: int
  mlp: int
  positions: int = 512
  types: int = 2
  norm_eps: float = 1e-12
  activation: str = "gelu"

  def __post_init__(self):
    if self.width % self.heads:
      raise UserError(f"text width={self.width} is not divisible by heads={self.heads}.")
    choose(ACTIVATIONS, self.activation, "text activation")

  @classmethod
  def of(cls, size: str, vocabulary: int, **changes: Any) -> "TextConfig":
    """The text model of a named size (`SIZES`); changes are of other fields.

    Raises:
      UserError: there is no such size.
    """
    return cls(vocabulary=vocabulary, **(choose(SIZES, size, "text size") | changes))

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> "TextConfig":
    """The inverse of `dataclasses.asdict`."""
    return cls(**fields)


class TextEncoder(nn.Module):
  """BERT without its pooler. It has no dropout."""

  config: TextConfig
  execution: Execution = Execution()

  @nn.compact
  def __call__(self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
    """Encodes the words where `mask`; no word sees padding, whose own outputs mean nothing.

    Raises:
      UserError: L is more than the positions.
    """
    config, run = self.config, self.execution
    check_length(ids.shape[1], config)
    init = nn.initializers.truncated_normal(0.02)
    table = lambda name, rows: self.param(name, init, (rows, config.width))
    words = nn.Embed(config.vocabulary, config.width, embedding_init=init, name="word")(ids)
    places = table("position", config.positions)[: ids.shape[1]]
    tokens = words + places + table("type", config.types)[0]
    tokens = norm(config.norm_eps, run.dtype, "norm")(tokens)
    block = PostNormBlock(
      config.heads, config.mlp, config.norm_eps, run.dtype, run.attention, config.activation,
      parent=None,
    )  # fmt: skip
    stack = Stack(block, config.width, config.depth, run)
    return stack.apply(self.param("blocks", stack.init), tokens, where=mask.astype(jnp.int32))


def check_length(length: int, config: TextConfig) -> None:
  """Raises UserError where texts are longer than the positions."""
  if length > config.positions:
    raise UserError(
      f"texts of {length} words, but the text model has {config.positions} positions; "
      "set data.text.length to no more."
    )


def mean_of_tokens(tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
  """The mean over the words in float32; zeros for a text without any."""
  weight = mask[:, :, None].astype(jnp.float32)
  total = jnp.sum(tokens.astype(jnp.float32) * weight, axis=1)
  return total / jnp.maximum(weight.sum(1), 1.0)
