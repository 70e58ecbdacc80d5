"""Pre-LN transformer blocks, and stacks of them that are scanned over depth."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vfe.errors import UserError
from vfe.nn.adapters import Adapter, LowRank
from vfe.nn.attention import attend
from vfe.nn.random import key

_checkpoint = functools.partial(jax.checkpoint, prevent_cse=False)  # a scan needs no such barrier

# What is kept of a layer for the backward pass, by name; the rest is computed again.
REMAT = {
  "none": lambda layer: layer,  # everything is kept
  "dots": functools.partial(  # products with parameters, but none of attention's
    _checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  ),
  "full": _checkpoint,  # only the layer's input
}

ACTIVATIONS = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # CLIP's
}


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a network is run. Nothing here changes its parameters, so nothing of it is exported.

  dtype is the type of activations and products (parameters are float32), remat a name in
  `REMAT`, attention one of `vfe.nn.attention`. drop_path is the rate of the last layer, growing
  linearly from 0 at the first. first_trained: 0, all is trained; n > 0, the embedding and the
  first n blocks are not, and nothing is kept of them for the backward pass; at the depth, the
  final norm is not trained either.
  """

  dtype: str = "float32"
  remat: str = "none"
  attention: str = "auto"
  drop_path: float = 0.0
  first_trained: int = 0


@dataclasses.dataclass(frozen=True)
class Segment:
  """A run of equal layers [start, stop) of a stack, run as one scan."""

  start: int
  stop: int
  remat: str
  trained: bool


class Between(NamedTuple):
  """What is done to the tokens before every `every`-th block of a stack, the first one included:
  run(tokens, own), `own` its part of `layers`, a tree of [ceil(L / every), ...] leaves."""

  every: int
  layers: Any
  run: Callable


class Attention(nn.Module):
  """Multi-head attention with biases on queries and values but not on keys, as VideoMAE's.

  A bias on the keys adds the same to all logits of a query, which changes no softmax. `lora` is the
  rank of what is added to each of the four products, 0 for none.
  """

  heads: int
  dtype: str = "float32"
  implementation: str = "auto"
  lora: int = 0
  meet: Callable = attend

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    context: Float[Array, "B M E"] | None = None,
    segments: Int[Array, "B N"] | None = None,
  ) -> Float[Array, "B N D"]:
    """Tokens ask, `context` (or the tokens themselves) answers; `segments` are `attend`'s.

    `meet` says which tokens meet, where that is neither all nor those of a segment: called as
    `attend` is, on queries, keys and values.
    """
    context = tokens if context is None else context
    width = tokens.shape[-1]

    def product(name, x, use_bias=True):
      y = dense(width, self.dtype, name, use_bias)(x)
      return y + LowRank(self.lora, width, self.dtype, name=f"{name}_lora")(x) if self.lora else y

    heads = lambda x: x.reshape(*x.shape[:2], self.heads, width // self.heads)
    q, k = heads(product("query", tokens)), heads(product("key", context, False))
    v = heads(product("value", context))
    mixed = self.meet(q, k, v, segments=segments, implementation=self.implementation)
    return product("out", mixed.reshape(tokens.shape))


class Mlp(nn.Module):
  """Two layers with an activation of `ACTIVATIONS` between them."""

  hidden: int
  dtype: str = "float32"
  activation: str = "gelu"
  lora: int = 0

  @nn.compact
  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    def product(name, width, x):
      y = dense(width, self.dtype, name)(x)
      return y + LowRank(self.lora, width, self.dtype, name=f"{name}_lora")(x) if self.lora else y

    hidden = ACTIVATIONS[self.activation](product("up", self.hidden, tokens))
    return product("down", tokens.shape[-1], hidden)


class Block(nn.Module):
  """x + attention(norm x), then x + mlp(norm x).

  With `adapter` (the width of its middle) the MLP's branch goes through an adapter. layer_scale: 0,
  or what each channel of both branches is multiplied by at first (CaiT, arXiv 2103.17239; BEiT).
  """

  heads: int
  mlp: int
  norm_eps: float = 1e-6
  dtype: str = "float32"
  attention: str = "auto"
  activation: str = "gelu"
  adapter: int = 0
  lora: int = 0
  layer_scale: float = 0.0

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    drop: Float[Array, ""] | None = None,
    keys: Key[Array, "B"] | None = None,
    where: Any = None,
    own: Any = None,
  ) -> Float[Array, "B N D"] | tuple[Float[Array, "B N D"], Any]:
    """Each of the branches is dropped, a row at a time, with probability `drop`.

    `where` is what `mix` needs to know of the tokens, `own` what only this layer does; here all
    tokens meet. A block that has its `own` gives the tokens and what `mix` has found by the way.
    """
    tokens, found = self.mix(tokens, drop, keys, where, own)
    hidden = norm(self.norm_eps, self.dtype, "mlp_norm")(tokens)
    hidden = Mlp(self.mlp, self.dtype, self.activation, self.lora, name="mlp")(hidden)
    if self.adapter:
      hidden = Adapter(self.adapter, self.dtype, name="adapter")(hidden)
    tokens = tokens + drop_path(self.scaled("mlp", hidden), drop, keys, "mlp")
    return tokens if own is None else (tokens, found)

  @nn.nowrap
  def mix(self, tokens, drop, keys, where, own):
    """The part of a block in which tokens meet: (tokens, what is found by the way)."""
    del where, own
    return tokens + drop_path(self.attended("attention", tokens), drop, keys, "attention"), None

  @nn.nowrap
  def attended(self, name: str, tokens: Float[Array, "B N D"], meet: Callable = attend):
    """attention(norm x), its parameters under `<name>_norm` and `name`."""
    normed = norm(self.norm_eps, self.dtype, f"{name}_norm")(tokens)
    mixed = Attention(self.heads, self.dtype, self.attention, self.lora, meet, name=name)(normed)
    return self.scaled(name, mixed)

  @nn.nowrap
  def scaled(self, name: str, branch: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
    """A branch times `<name>_scale`, where the block has layer scale."""
    if not self.layer_scale:
      return branch
    first = nn.initializers.constant(self.layer_scale)
    return branch * self.param(f"{name}_scale", first, branch.shape[-1:]).astype(branch.dtype)


@dataclasses.dataclass(frozen=True)
class Stack:
  """`depth` equal blocks, with their parameters stacked: one [L, ...] leaf a weight.

  That layout is the only one, in memory and on disk. The segments, which the program is made of
  and which differ between runs, cut it as they need it. A Linen module declares a stack by
  `self.param(name, stack.init)` and runs it by `stack.apply`.
  """

  block: nn.Module
  width: int
  depth: int
  execution: Execution = Execution()

  def init(self, rng: Key[Array, ""]) -> Any:
    """The parameters, float32, drawn from one key a layer."""
    dummy = jnp.zeros((1, 1, self.width), jnp.float32)
    draw = lambda rng: self.block.init(rng, dummy)["params"]
    return jax.vmap(draw)(jax.random.split(rng, self.depth))

  def apply(
    self,
    params: Any,
    tokens: Float[Array, "B N D"],
    keys: Key[Array, "B"] | None = None,
    where: Any = None,
  ) -> Float[Array, "B N D"]:
    """Runs all layers. `keys`, one a row, turn drop path on; without, nothing is random.

    `where` is given to every block: what it has to know of the tokens besides themselves.
    """
    return self._run(params, tokens, keys, where, ())[0]

  def apply_with(
    self,
    layers: Any,
    params: Any,
    tokens: Float[Array, "B N D"],
    where: Any = None,
    between: Between | None = None,
  ) -> tuple[Float[Array, "B N D"], Any]:
    """`apply`, of blocks that are each given their own of `layers`, a tree of [L, ...] leaves.

    Such a block gives its tokens and something more; that of all layers comes back, too, stacked.
    `between` is done to the tokens on their way.
    """
    if between is None:
      return self._run(params, tokens, None, where, (layers,))
    return self._in_groups((params, layers), tokens, where, between)

  def apply_part(
    self,
    params: Any,
    tokens: Float[Array, "B N D"],
    start: int,
    stop: int,
    layers: Any = None,
    keys: Key[Array, "B"] | None = None,
    where: Any = None,
  ) -> tuple[Float[Array, "B N D"], Any]:
    """Runs the layers [start, stop) of all `params`: of networks whose tokens change on the way.

    `layers`, if given, is a tree of [stop - start, ...] leaves, and comes back as in `apply_with`.
    """
    return self._run(params, tokens, keys, where, () if layers is None else (layers,), start, stop)

  def _in_groups(self, stacked, tokens, where, between):
    """Scans groups of `every` blocks; those that are left over are a last, shorter group."""
    every, whole = between.every, self.depth // between.every
    run = _remat(self.execution.remat)(between.run)

    def group(tokens, of):
      own, (params, layers) = of
      stack = dataclasses.replace(self, depth=len(jax.tree.leaves(of[1])[0]))
      return stack.apply_with(layers, params, run(tokens, own), where)

    split = lambda leaf: leaf[: whole * every].reshape(whole, every, *leaf.shape[1:])
    last = lambda leaf: leaf[whole * every :]
    first = jax.tree.map(lambda leaf: leaf[:whole], between.layers)
    tokens, found = jax.lax.scan(group, tokens, (first, jax.tree.map(split, stacked)))
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    if whole * every == self.depth:
      return tokens, found
    own = jax.tree.map(lambda leaf: leaf[whole], between.layers)
    tokens, rest = group(tokens, (own, jax.tree.map(last, stacked)))
    return tokens, jax.tree.map(lambda *parts: jnp.concatenate(parts), found, rest)

  def _run(self, params, tokens, keys, where, layers, start=0, stop=None):
    if self.execution.drop_path == 0.0:
      keys = None
    index = jnp.arange(self.depth)
    rates = jnp.linspace(0.0, self.execution.drop_path, self.depth)
    more = []
    for segment in self.segments(start, stop):
      own = _cut(layers, segment.start - start, segment.stop - start)
      of = (*_cut((params, index, rates), segment.start, segment.stop), own)
      if not segment.trained:
        of, tokens = jax.lax.stop_gradient((of, tokens))
      tokens, found = self._scan(segment, of, tokens, keys, where)
      more.append(found)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *more) if more else None
    return tokens, joined

  def segments(self, start: int = 0, stop: int | None = None) -> list[Segment]:
    """The runs of equal layers from `start` to `stop`, cut at the first trained one."""
    stop = self.depth if stop is None else stop
    cut = min(max(self.execution.first_trained, start), stop)
    runs = (Segment(start, cut, "none", False), Segment(cut, stop, self.execution.remat, True))
    return [run for run in runs if run.start < run.stop]

  def _scan(self, segment, layers, tokens, keys, where):
    def layer(tokens, per_layer):
      params, index, rate, own = per_layer
      drawn = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, index)
      found = self.block.apply({"params": params}, tokens, rate, drawn, where, *own)
      return found if own else (found, None)

    return jax.lax.scan(_remat(segment.remat)(layer), tokens, layers)


def make_stack(
  width: int,
  depth: int,
  heads: int,
  mlp: int,
  norm_eps: float,
  execution: Execution,
  kind: type[Block] = Block,
  **changes: Any,
) -> Stack:
  """A stack of blocks of a kind; `changes` are of other fields than these."""
  run = execution
  block = kind(heads, mlp, norm_eps, run.dtype, run.attention, **changes, parent=None)
  return Stack(block, width, depth, execution)


def drop_path(
  branch: Float[Array, "B N D"],
  rate: Float[Array, ""] | None,
  keys: Key[Array, "B"] | None,
  name: str,
) -> Float[Array, "B N D"]:
  """Zeroes the branch of some rows and makes up for it in the others; no keys, no drop."""
  if keys is None:
    return branch
  draw = lambda rng: jax.random.bernoulli(key(rng, name), 1.0 - rate)
  kept = jax.vmap(draw)(keys)[:, None, None]
  return jnp.where(kept, branch / (1.0 - rate).astype(branch.dtype), 0)


def norm(eps: float, dtype: str, name: str | None = None) -> nn.LayerNorm:
  """Layer norm whose statistics are float32 and whose variance is not a difference of squares."""
  return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def dense(width: int, dtype: str, name: str, use_bias: bool = True) -> nn.Dense:
  """A linear layer as VideoMAE draws it: Xavier uniform, no bias at first."""
  init = nn.initializers.xavier_uniform()
  return nn.Dense(width, use_bias=use_bias, dtype=dtype, kernel_init=init, name=name)


def _cut(stacked: Any, start: int, stop: int) -> Any:
  return jax.tree.map(lambda leaf: leaf[start:stop], stacked)


def _remat(name: str) -> Callable:
  if name not in REMAT:
    raise UserError(f"remat={name!r} is unknown; use {', '.join(REMAT)}.")
  return REMAT[name]
