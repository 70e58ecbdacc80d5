"""The block of a decoder: Llama's, and what Gemma 3 and Qwen3 add to it."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vfe.nn.attention import whole_heads
from vfe.nn.blocks import ACTIVATIONS, dense, drop_path
from vfe.nn.causal import ALL, NEVER, Keys, causal
from vfe.nn.rotary import rotate

GATES = ACTIVATIONS | {"silu": nn.silu}


class Places(NamedTuple):
  """Where words stand: their positions int32[B, N], the same as keys (`NEVER` where there is no
  word), and those int32[B, S] of the keys of words read before, or None."""

  positions: jax.Array
  keys: jax.Array
  past: jax.Array | None = None


class Layer(NamedTuple):
  """What one layer has apart from its parameters: window int32[], the frequencies float32[d/2] of
  its rotary positions, and keys and values [B, S, G, d] of words read before, or None."""

  window: Any
  frequencies: Any
  past: tuple[jax.Array, jax.Array] | None = None


class RMSNorm(nn.Module):
  """x / rms(x) times the scale, or with `plus_one` (Gemma's) 1 + scale; in float32."""

  eps: float
  plus_one: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    init = nn.initializers.zeros if self.plus_one else nn.initializers.ones
    scale = self.param("scale", init, x.shape[-1:]).astype(jnp.float32) + self.plus_one
    wide = x.astype(jnp.float32)
    mean = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + self.eps) * scale).astype(self.dtype)


class GroupedAttention(nn.Module):
  """Causal attention in which heads / groups queries share a key and a value; no biases."""

  heads: int
  groups: int
  head_dim: int
  scale: float
  norm_eps: float
  plus_one: bool
  qk_norm: bool
  cap: float
  dtype: str

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "B N D"], places: Places, layer: Layer
  ) -> tuple[Float[Array, "B N D"], tuple[Float[Array, "B N G d"], Float[Array, "B N G d"]]]:
    """What is mixed, and the keys (turned by their positions) and values of these tokens."""

    def product(name, heads):
      y = dense(heads * self.head_dim, self.dtype, name, use_bias=False)(tokens)
      return whole_heads(y.reshape(*y.shape[:2], heads, self.head_dim))

    def turned(name, heads):
      x = product(name, heads)
      if self.qk_norm:
        x = RMSNorm(self.norm_eps, self.plus_one, self.dtype, name=f"{name}_norm")(x)
      return rotate(x, places.positions, layer.frequencies)

    q, k, v = turned("query", self.heads), turned("key", self.groups), product("value", self.groups)
    seen = [Keys(k, v, places.keys)]
    if layer.past is not None:
      seen.append(Keys(*layer.past, places.past))
    mixed = causal(
      q, places.positions, seen, window=layer.window, scale=self.scale, cap=self.cap
    )
    mixed = mixed.reshape(*mixed.shape[:2], -1)
    return dense(tokens.shape[-1], self.dtype, "out", use_bias=False)(mixed), (k, v)


class GatedMlp(nn.Module):
  """down(activation(gate x) * up x), without biases; activations are `GATES`."""

  hidden: int
  activation: str
  dtype: str

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    gate, up = (dense(self.hidden, self.dtype, name, False)(tokens) for name in ("gate", "up"))
    hidden = GATES[self.activation](gate) * up
    return dense(tokens.shape[-1], self.dtype, "down", use_bias=False)(hidden)


class DecoderBlock(nn.Module):
  """x + attention(norm x), then x + mlp(norm x); runs in a `vfe.nn.blocks.Stack` with `layers`.

  `sandwich` norms what a branch gives, too, before it is added. The other fields are as in
  `vfe.models.language_model.LanguageConfig`.
  """

  heads: int
  groups: int
  head_dim: int
  mlp: int
  scale: float
  norm_eps: float = 1e-6
  activation: str = "silu"
  plus_one: bool = False
  sandwich: bool = False
  qk_norm: bool = False
  cap: float = 0.0
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    drop: Float[Array, ""] | None = None,
    keys: Key[Array, "B"] | None = None,
    where: Places | None = None,
    layer: Layer | None = None,
  ) -> tuple[Float[Array, "B N D"], tuple[Float[Array, "B N G d"], Float[Array, "B N G d"]]]:
    """The tokens, and their keys and values.

    Without `where` they stand at 0 to N - 1; without `layer` it sees all before, and turns nothing.
    Each of the two branches is dropped, a row at a time, with probability `drop`.
    """
    where = in_order(*tokens.shape[:2]) if where is None else where
    layer = Layer(ALL, jnp.zeros(self.head_dim // 2)) if layer is None else layer
    norm = lambda name: RMSNorm(self.norm_eps, self.plus_one, self.dtype, name=name)
    after = lambda name: norm(name) if self.sandwich else lambda branch: branch
    attention = GroupedAttention(
      self.heads, self.groups, self.head_dim, self.scale, self.norm_eps, self.plus_one,
      self.qk_norm, self.cap, self.dtype, name="attention",
    )  # fmt: skip
    mixed, own = attention(norm("attention_norm")(tokens), where, layer)
    tokens = tokens + drop_path(after("attention_after")(mixed), drop, keys, "attention")
    hidden = GatedMlp(self.mlp, self.activation, self.dtype, name="mlp")(norm("mlp_norm")(tokens))
    return tokens + drop_path(after("mlp_after")(hidden), drop, keys, "mlp"), own


def in_order(rows: int, count: int) -> Places:
  """`count` words in each row, one after another."""
  positions = jnp.broadcast_to(jnp.arange(count), (rows, count))
  return Places(positions, positions)


def by_mask(mask: Bool[Array, "B N"]) -> Places:
  """The words where `mask`, one after another, whichever side the padding is on."""
  positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
  return Places(positions, jnp.where(mask, positions, NEVER))
