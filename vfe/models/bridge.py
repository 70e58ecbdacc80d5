"""The bridge: gated cross-attention by which a frozen language model looks at visual tokens.

Flamingo's (arXiv 2204.14198, 3.1.2): before every n-th block of the language model
y + tanh(a) attention, then y + tanh(b) mlp, both gates 0 at first, so that the language model
begins as exactly what it was.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vfe.errors import UserError
from vfe.nn.blocks import Between, dense, norm
from vfe.nn.cross import cross

Seen = tuple[Float[Array, "B M H d"], Float[Array, "B M H d"]]


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
  """What a bridge is. `dataclasses.asdict` of it is JSON-able.

  width   of the language model, and depth its layers
  inputs  width of the visual tokens
  every   a layer of the bridge stands before each so-many-th block, the first one included
  mlp     hidden units of a layer's second half; 0, there is none
  """

  width: int
  depth: int
  inputs: int
  every: int = 1
  heads: int = 8
  head_dim: int = 64
  mlp: int = 0
  norm_eps: float = 1e-5

  def __post_init__(self):
    if not 1 <= self.every <= self.depth:
      raise UserError(
        f"bridge every={self.every}: the language model has {self.depth} layers; use 1 to that."
      )
    if self.heads < 1 or self.head_dim < 1 or self.mlp < 0:
      raise UserError(
        f"bridge heads={self.heads}, head_dim={self.head_dim}, mlp={self.mlp}; use 1 or more, and "
        "of mlp 0 or more."
      )

  @property
  def layers(self) -> int:
    """How many layers the bridge has."""
    return -(-self.depth // self.every)


class BridgeLayer(nn.Module):
  """One layer. Nothing has a bias but the norms."""

  config: BridgeConfig
  dtype: str = "float32"

  def setup(self):
    config, heads = self.config, self.config.heads * self.config.head_dim
    product = lambda width, name: dense(width, self.dtype, name, use_bias=False)
    self.query, self.key, self.value = (product(heads, n) for n in ("query", "key", "value"))
    self.out = product(config.width, "out")
    self.norm = norm(config.norm_eps, self.dtype, "norm")
    self.gate = self.param("gate", nn.initializers.zeros, ())
    if config.mlp:
      self.up, self.down = product(config.mlp, "up"), product(config.width, "down")
      self.mlp_norm = norm(config.norm_eps, self.dtype, "mlp_norm")
      self.mlp_gate = self.param("mlp_gate", nn.initializers.zeros, ())

  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    visual: Float[Array, "B M V"],
    there: Bool[Array, "B M"],
  ) -> Float[Array, "B N D"]:
    """Both halves of the work in one."""
    return self.looking(tokens, self.seen(visual), there)

  def seen(self, visual: Float[Array, "B M V"]) -> Seen:
    """Keys and values of the visual tokens, which no word changes."""
    heads = lambda x: x.reshape(*x.shape[:2], self.config.heads, self.config.head_dim)
    return heads(self.key(visual)), heads(self.value(visual))

  def looking(
    self, tokens: Float[Array, "R N D"], seen: Seen, there: Bool[Array, "B M"]
  ) -> Float[Array, "R N D"]:
    """Words that have looked. R is a multiple of B: neighbouring rows look at the same video."""
    rows, config = len(there), self.config
    query = self.query(self.norm(tokens))
    # Rows of one video are one row of more words: its keys are not repeated.
    query = query.reshape(rows, -1, config.heads, config.head_dim)
    mixed = self.out(cross(query, *seen, there).reshape(*tokens.shape[:2], -1))
    tokens = tokens + jnp.tanh(self.gate).astype(tokens.dtype) * mixed
    if not config.mlp:
      return tokens
    hidden = self.down(jnp.square(nn.relu(self.up(self.mlp_norm(tokens)))))
    return tokens + jnp.tanh(self.mlp_gate).astype(tokens.dtype) * hidden


@dataclasses.dataclass(frozen=True)
class Bridge:
  """All layers, their parameters stacked: one [G, ...] leaf a weight."""

  config: BridgeConfig
  dtype: str = "float32"

  def init(self, rng: Key[Array, ""]) -> Any:
    """The parameters, float32, drawn from one key a layer."""
    config, layer = self.config, self._layer
    words, visual = jnp.zeros((1, 1, config.width)), jnp.zeros((1, 1, config.inputs))
    draw = lambda rng: layer.init(rng, words, visual, jnp.ones((1, 1), bool))["params"]
    return {"blocks": jax.vmap(draw)(jax.random.split(rng, config.layers))}

  def between(
    self, params: Any, visual: Float[Array, "B M V"], there: Bool[Array, "B M"]
  ) -> Between:
    """What a language model is to do between its blocks to look at these visual tokens.

    Their keys and values are computed here, once for all words that will be read or written.
    """
    layer = self._layer
    layers = params["blocks"]
    seen = jax.vmap(lambda of: layer.apply({"params": of}, visual, method="seen"))(layers)

    def run(tokens, own):
      of, seen = own
      return layer.apply({"params": of}, tokens, seen, there, method="looking")

    return Between(self.config.every, (layers, seen), run)

  @property
  def _layer(self) -> BridgeLayer:
    return BridgeLayer(self.config, self.dtype, parent=None)
