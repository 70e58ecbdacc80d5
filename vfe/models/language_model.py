"""The language model: one decoder that is Gemma 3, Llama or Qwen3, by its config."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vfe.config import choose
from vfe.errors import UserError
from vfe.interop import language_model as hugging_face
from vfe.nn.attention import over_rows
from vfe.nn.blocks import Between, Execution, Stack
from vfe.nn.causal import ALL, NEVER
from vfe.nn.decoder import GATES, DecoderBlock, Layer, Places, RMSNorm, by_mask
from vfe.nn.rotary import Rope

WORDS = 32  # whose logits are held at once: a vocabulary has up to 262,144 words

# Llama's shapes of models that a demo can train; real ones come from folders.
SIZES = {
  "test": dict(width=32, depth=3, heads=4, groups=2, head_dim=8, mlp=48),
  "demo": dict(width=128, depth=4, heads=4, groups=2, head_dim=32, mlp=384),
}


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
  """What a language model is. `dataclasses.asdict` of it is JSON-able, `from_dict` reads that.

  vocabulary  the number of words
  groups      of heads; those of a group share keys and values
  scale       of the products of queries and keys
  windows     one a layer: how many words it sees, itself one of them; 0, all before it
  rope        of layers without a window, and of those with one where rope_local is None
  rope_local  of layers with a window
  tied        the table of words is the head, too
  plus_one    norms multiply by 1 + their scale
  sandwich    what a branch gives is normed, too
  qk_norm     queries and keys are normed, head by head
  embed_scale by which words are multiplied
  cap         of attention's logits and logit_cap of the words': c tanh(x / c); 0, none
  """

  vocabulary: int
  width: int
  depth: int
  heads: int
  groups: int
  head_dim: int
  mlp: int
  scale: float
  windows: tuple[int, ...]
  rope: Rope
  rope_local: Rope | None = None
  norm_eps: float = 1e-6
  activation: str = "silu"
  tied: bool = True
  plus_one: bool = False
  sandwich: bool = False
  qk_norm: bool = False
  embed_scale: float = 1.0
  cap: float = 0.0
  logit_cap: float = 0.0

  def __post_init__(self):
    if self.heads % self.groups:
      raise UserError(f"language model heads={self.heads} are not divisible by {self.groups}.")
    if len(self.windows) != self.depth:
      raise UserError(f"{len(self.windows)} windows, but a language model of {self.depth} layers.")
    choose(GATES, self.activation, "language model activation")

  @classmethod
  def of(cls, size: str, vocabulary: int, **changes: Any) -> "LanguageConfig":
    """The model of a named size (`SIZES`); changes are of other fields.

    Raises:
      UserError: there is no such size.
    """
    fields = choose(SIZES, size, "language model size") | changes
    scale, windows = fields["head_dim"] ** -0.5, (0,) * fields["depth"]
    rest = {"scale": scale, "windows": windows, "rope": Rope()}
    return cls(vocabulary=vocabulary, **(rest | fields))

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> "LanguageConfig":
    """The inverse of `dataclasses.asdict`, also of what JSON makes of that."""
    ropes = {name: fields[name] and Rope(**fields[name]) for name in ("rope", "rope_local")}
    return cls(**(dict(fields) | ropes | {"windows": tuple(fields["windows"])}))

  @classmethod
  def from_hugging_face(cls, config: Mapping[str, Any]) -> "LanguageConfig":
    """Of a config.json of Gemma 3 (text), Llama or Qwen3.

    Raises:
      UserError: another model_type, or something in it that we have no model for.
    """
    return cls.from_dict(hugging_face.fields(config, "config.json"))


class Cache(NamedTuple):
  """Keys and values [L, B, S, G, d] of words read before, in slots by position.

  The first `length` int32[B] slots of a row are there. Layers with a window keep all, too.
  """

  keys: jax.Array
  values: jax.Array
  length: jax.Array

  @classmethod
  def empty(cls, config: LanguageConfig, rows: int, slots: int, dtype: str) -> "Cache":
    """For `slots` words in each row, in the type of the model's activations."""
    shape = (config.depth, rows, slots, config.groups, config.head_dim)
    return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(rows, jnp.int32))

  def take(self, rows: Int[Array, "M"]) -> "Cache":
    """The cache of these rows, in this order."""
    return Cache(self.keys[:, rows], self.values[:, rows], self.length[rows])

  def extended(self, new: tuple[jax.Array, jax.Array], count: Int[Array, "B"]) -> "Cache":
    """With new keys and values [L, B, N, G, d], of which the first `count` of a row are words.

    The others lie past the length, where the next ones are written over them.
    """
    slots = self.length[:, None] + jnp.arange(new[0].shape[2])
    rows = jnp.arange(len(slots))[:, None]
    write = lambda old, new: old.at[:, rows, slots].set(new.astype(old.dtype), mode="drop")
    return Cache(write(self.keys, new[0]), write(self.values, new[1]), self.length + count)


class LanguageModel(nn.Module):
  """A decoder: words in, what comes next out. Logits are float32."""

  config: LanguageConfig
  execution: Execution = Execution()

  def setup(self):
    config = self.config
    init = nn.initializers.normal(0.02)
    self.word = nn.Embed(config.vocabulary, config.width, embedding_init=init)
    self.blocks = self.param("blocks", self._stack().init)
    self.norm = RMSNorm(config.norm_eps, config.plus_one, self.execution.dtype)
    if not config.tied:
      self.head = self.param("head", init, (config.vocabulary, config.width))

  def __call__(
    self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"], between: Between | None = None
  ) -> Float[Array, "B L V"]:
    """Logits of the word after each. No word sees padding, whose own logits mean nothing.

    Padding stands before or behind the words: rotary positions count words only. `between` is what
    is done to the tokens between the blocks, by which they can look at something else.
    """
    return self.logits(self._run(self.embed(ids), by_mask(mask), None, between)[0])

  def log_likelihood(
    self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"], between: Between | None = None
  ) -> Float[Array, "B L"]:
    """float32, of each word after those before it; 0 of the first one, and of padding.

    The logits of `WORDS` words at once are held, and made again in the backward pass.
    """
    tokens = self._run(self.embed(ids), by_mask(mask), None, between)[0]
    # The word before the first of a row is padding, or none.
    known = mask & jnp.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    found = self._likelihood(tokens[:, :-1], ids[:, 1:])
    return jnp.where(known, jnp.pad(found, ((0, 0), (1, 0))), 0.0)

  @nn.nowrap
  def _likelihood(self, tokens: Float[Array, "B N D"], words: Int[Array, "B N"]) -> Any:
    n = words.shape[1]
    split = lambda x: jnp.moveaxis(
      jnp.pad(x, [(0, 0), (0, -n % WORDS), *[(0, 0)] * (x.ndim - 2)])
      .reshape(len(x), -1, WORDS, *x.shape[2:]), 1, 0
    )  # fmt: skip

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def some(of):
      logits, words = self.logits(of[0]), of[1]
      own = jnp.take_along_axis(logits, words[:, :, None], axis=-1)[:, :, 0]
      return own - jax.nn.logsumexp(logits, axis=-1)

    found = jax.lax.map(some, (split(tokens), split(words)))
    return jnp.moveaxis(found, 0, 1).reshape(len(words), -1)[:, :n]

  def read(
    self,
    ids: Int[Array, "B N"],
    count: Int[Array, "B"],
    cache: Cache,
    between: Between | None = None,
  ) -> tuple[Float[Array, "B V"], Cache]:
    """Reads more words, the first `count` of each row; gives the logits of the next one.

    There must be room for all that a row ever reads: what goes past the last slot is not kept.

    Raises:
      UserError: N is more than the slots of the cache.
    """
    slots, n = cache.keys.shape[2], ids.shape[1]
    if n > slots:
      raise UserError(f"{n} words do not go into a cache of {slots}; make it larger.")
    place, slot = jnp.arange(n), jnp.arange(slots)
    positions = cache.length[:, None] + place
    own = jnp.where(place < count[:, None], positions, NEVER)
    past = jnp.where(slot < cache.length[:, None], slot, NEVER)
    tokens, new = self._run(self.embed(ids), Places(positions, own, past), cache, between)
    last = jnp.maximum(count - 1, 0)[:, None, None]
    tokens = jnp.take_along_axis(tokens, last, axis=1)
    return self.logits(tokens)[:, 0], cache.extended(new, count)

  def embed(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """The words' vectors, in the type of activations."""
    dtype = self.execution.dtype
    words = jnp.take(self.word.embedding, ids, axis=0).astype(dtype)
    return over_rows(words * jnp.asarray(self.config.embed_scale, dtype))

  def logits(self, tokens: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Of the word after each, from the last block's tokens."""
    table = self.word.embedding if self.config.tied else self.head
    found = jnp.einsum(
      "bld,vd->blv", self.norm(tokens), table.astype(self.execution.dtype),
      preferred_element_type=jnp.float32,
    )  # fmt: skip
    cap = self.config.logit_cap
    return cap * jnp.tanh(found / cap) if cap else found

  def _run(self, tokens, places: Places, cache: Cache | None, between: Between | None):
    """The blocks: tokens, and the keys and values of all layers, [L, B, N, G, d] each."""
    past = None if cache is None else (cache.keys, cache.values)
    layers = Layer(*per_layer(self.config), past)
    return self._stack().apply_with(layers, self.blocks, tokens, places, between)

  @nn.nowrap
  def _stack(self) -> Stack:
    config, run = self.config, self.execution
    block = DecoderBlock(
      config.heads, config.groups, config.head_dim, config.mlp, config.scale, config.norm_eps,
      config.activation, config.plus_one, config.sandwich, config.qk_norm, config.cap, run.dtype,
      parent=None,
    )  # fmt: skip
    return Stack(block, config.width, config.depth, run)


def per_layer(config: LanguageConfig) -> tuple[Int[np.ndarray, "L"], Float[np.ndarray, "L half"]]:
  """Windows and rotary frequencies: all that tells layers apart, so that one scan runs them."""
  local = config.rope_local or config.rope
  ropes = [local if window else config.rope for window in config.windows]
  windows = np.asarray([window or ALL for window in config.windows], np.int32)
  return windows, np.stack([rope.frequencies(config.head_dim) for rope in ropes])
