"""Block-sparse attention: each block of tokens sees the blocks that a pattern names, and the CLS.

The blocks are gathered, which runs on every platform, takes an additive bias and a pattern that
changes from step to step. Time grows with the pairs that exist. Of these, some blocks' are held at
a time, forward and backward; what is kept for the backward pass is queries, keys and values. Where
all blocks meet, nothing is gathered, and memory stays linear in the tokens.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from vfe.nn.attention import HEADS, MASKED, ROWS, is_ours
from vfe.nn.relative import FROM_CLS, TO_CLS, WITHIN_CLS, RelativeBias, between

QUERIES = 128  # whose probabilities are held at once, or those of one block where it is larger
PAIRS = 2**15  # whose biases are looked up at once: the time of a TPU's compiler grows with them
ALIGNED = 16  # where all blocks meet, queries are in parts of a multiple of this


class Seen(NamedTuple):
  """Keys and values of the blocks [B H M G d], and of the tokens that everybody sees [B H f d]."""

  k: jax.Array
  v: jax.Array
  first_k: jax.Array
  first_v: jax.Array


class Which(NamedTuple):
  """Integers: the pattern [C c J] and own codes [C b c g] of C parts of c query blocks; codes
  [b M G] of all key blocks' tokens; which of these tokens there are [M G]. No codes without a bias.
  """

  pattern: jax.Array
  own: jax.Array | None
  codes: jax.Array | None
  there: jax.Array


def attend_sparse(
  q: Float[Array, "B N H d"],
  k: Float[Array, "B N H d"],
  v: Float[Array, "B N H d"],
  pattern: Int[Array, "M J"],
  *,
  size: int,
  first: int = 1,
  bias: RelativeBias | None = None,
) -> Float[Array, "B N H d"]:
  """softmax(q kᵀ / √d + bias) v over the pairs that there are, softmax in float32.

  The `first` tokens (a CLS) see all and are seen by all. The others, in blocks of `size`, see them
  and the tokens of the blocks in their row of `pattern` (`vfe.tokens.edges`), which has no block
  twice in a row. The last block may not be full; nobody sees what it lacks. As many blocks in a row
  as there are (one of all tokens, say) is dense attention, and `size` then changes nothing.

  On an ambient mesh rows lie over data and fsdp and heads over tensor; each device has all tokens.

  Raises:
    ValueError: the pattern's rows are not the blocks of these tokens.
  """
  if len(pattern) != -(-(q.shape[1] - first) // size):
    raise ValueError(
      f"a pattern of {len(pattern)} blocks is not one of {q.shape[1] - first} tokens in blocks of "
      f"{size}"
    )
  run = functools.partial(_sparse, size=size, first=first)
  mesh = jax.sharding.get_abstract_mesh()
  if not is_ours(mesh):
    return run(q, k, v, pattern, bias)

  def axis(names: tuple[str, ...], length: int):
    names = tuple(name for name in names if name in mesh.shape)
    return None if length % math.prod(mesh.shape[name] for name in names) else names

  rows, heads = axis(ROWS, len(q)), axis((HEADS,), q.shape[2])
  tokens = PartitionSpec(rows, None, heads)
  own = bias and RelativeBias(
    PartitionSpec(None, heads), PartitionSpec(rows if len(bias.codes) == len(q) else None)
  )
  specs = (tokens, tokens, tokens, PartitionSpec(), own)
  cut = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=tokens, check_vma=False)
  return cut(q, k, v, pattern, bias)


def probabilities_of_first(
  q: Float[Array, "B F H d"],
  k: Float[Array, "B N H d"],
  table: Float[Array, "R H"] | None = None,
) -> Float[Array, "B H F N"]:
  """What the first F of N tokens (a CLS) give to each of all N, themselves first; float32.

  `table` is that of a `RelativeBias`.
  """
  logits = jnp.einsum("bfhd,bnhd->bhfn", q, k, preferred_element_type=jnp.float32)
  logits *= q.shape[-1] ** -0.5
  if table is not None:
    within = jnp.arange(k.shape[1]) < q.shape[1]
    logits += jnp.where(within, table[WITHIN_CLS][:, None], table[FROM_CLS][:, None])[:, None]
  return jax.nn.softmax(logits, axis=-1)


def _sparse(q, k, v, pattern, bias, *, size: int, first: int) -> Float[Array, "B N H d"]:
  """`attend_sparse` on one device."""
  n, blocks = q.shape[1] - first, len(pattern)
  own_size, at_once = size, 1
  if pattern.shape[1] == blocks:  # the keys are one block, and so are the queries of a part
    own_size = ALIGNED * -(-n // (ALIGNED * -(-n // QUERIES)))
    blocks, size = -(-n // own_size), n
    pattern = jnp.zeros((blocks, 1), pattern.dtype)
  else:
    at_once = -(-blocks // -(-blocks // max(1, QUERIES // size)))
  parts, met = -(-blocks // at_once), -(-n // size)
  split = lambda x, axis: jnp.moveaxis(_cut(x, axis, parts, at_once), axis, 0)
  heads = [x.swapaxes(1, 2) for x in (q, k, v)]
  queries = _cut(heads[0][:, :, first:], 2, blocks, own_size)
  keys, values = (_cut(x[:, :, first:], 2, met, size) for x in heads[1:])
  seen = Seen(keys, values, *(x[:, :, :first] for x in heads[1:]))
  table = codes = own = None
  if bias is not None:
    table, codes = bias.table, _cut(bias.codes, 1, met, size)
    own = split(_cut(bias.codes, 1, blocks, own_size), 1)
  there = (jnp.arange(met * size) < n).reshape(met, size)
  out = _meet(split(queries, 2), seen, table, Which(split(pattern, 0), own, codes, there))
  out = jnp.moveaxis(out, 0, 2).reshape(*heads[0].shape[:2], -1, q.shape[3])[:, :, :n]
  if not first:
    return out.swapaxes(1, 2)
  row = probabilities_of_first(q[:, :first], k, None if bias is None else bias.table)
  everywhere = jnp.einsum("bhfn,bnhd->bfhd", row.astype(v.dtype), v)
  return jnp.concatenate([everywhere, out.swapaxes(1, 2)], axis=1)


@jax.custom_vjp
def _meet(q, seen: Seen, table, which: Which):
  """What the tokens of query blocks [C B H c g d] get from those they see, part after part.

  table: [R H] or None.
  """

  def part(of):
    q, pattern, own = of
    biases = _biases(table, own, _answering(which, pattern))
    return _mixed(q, *_gathered(seen, pattern), *seen[2:], *biases, which.there[pattern])

  return jax.lax.map(part, (q, which.pattern, which.own))


def _forward(q, seen: Seen, table, which: Which):
  return _meet(q, seen, table, which), (q, seen, table, which)


def _backward(saved, given):
  """Each part's probabilities are made again. What its keys, values and biases get is added where
  they came from: autodiff would add arrays of all tokens, part after part, in time N²."""
  q, seen, table, which = saved

  def part(sums, of):
    q, pattern, own, given = of
    answering = _answering(which, pattern)
    run = lambda *inputs: _mixed(*inputs, which.there[pattern])
    inputs = (q, *_gathered(seen, pattern), *seen[2:], *_biases(table, own, answering))
    dq, dk, dv, *firsts, dbias, dto_first = jax.vjp(run, *inputs)[1](given)
    of_seen, of_table = sums
    k, v = (_added(x, pattern, dx) for x, dx in ((of_seen.k, dk), (of_seen.v, dv)))
    of_first = (x + dx for x, dx in zip(of_seen[2:], firsts, strict=True))
    if table is not None:
      of_table = _table_added(of_table, own, answering, dbias).at[TO_CLS].add(dto_first)
    return (Seen(k, v, *of_first), of_table), dq

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (seen, table))
  sums, dq = jax.lax.scan(part, zeros, (q, which.pattern, which.own, given))
  dseen, dtable = jax.tree.map(lambda x, of: x.astype(of.dtype), sums, (seen, table))
  return dq, dseen, dtable, None


_meet.defvjp(_forward, _backward)


def _gathered(seen: Seen, pattern):
  """Keys and values [B H c J·G d] that each of c blocks sees."""
  if seen.k.shape[2] == 1:
    return seen.k, seen.v
  return (
    x[:, :, pattern].reshape(*x.shape[:2], len(pattern), -1, x.shape[4]) for x in (seen.k, seen.v)
  )


def _added(sums, pattern, dx):
  """Sums [B H M G d] and what has been `_gathered` from there."""
  if sums.shape[2] == 1:
    return sums + dx
  return sums.at[:, :, pattern].add(dx.reshape(*sums.shape[:2], *pattern.shape, *sums.shape[3:]))


def _answering(which: Which, pattern):
  """Codes [b c J·G] of the tokens that each of c blocks sees, None without a bias."""
  if which.codes is None:
    return None
  return which.codes[:, pattern].reshape(len(which.codes), len(pattern), -1)


def _biases(table, own, answering):
  """Biases [b H c g J·G] of queries to the keys they see, and [H] to the first tokens."""
  if table is None:
    return None, None

  def look_up(codes):
    # Heads are found last. A TPU would leave them there, and pad a few to 128.
    found = jnp.moveaxis(table[_entries(table, *codes)], 2, 0)
    return with_layout_constraint(found, Layout((0, 1, 2)))

  found = jax.lax.map(look_up, _tiles(own, answering))
  found = found.reshape(*own.shape[:2], -1, *found.shape[1:])  # b c tiles H queries keys
  found = jnp.moveaxis(found, 3, 1)
  return found.reshape(*found.shape[:3], -1, found.shape[5]), table[TO_CLS]


def _table_added(sums, own, answering, dbias):
  """The table's sums [R H] and the gradient of `_biases`."""
  tiles = _tiles(own, answering)
  per_block = len(tiles[0]) // (own.shape[0] * own.shape[1])
  dbias = dbias.reshape(*dbias.shape[:3], per_block, -1, dbias.shape[4])
  dbias = jnp.moveaxis(dbias, 1, 3).reshape(len(tiles[0]), dbias.shape[1], *dbias.shape[4:])

  def add(sums, of):
    codes, of_bias = of
    return sums.at[_entries(sums, *codes)].add(jnp.moveaxis(of_bias, 0, 2)), None

  return jax.lax.scan(add, sums, (tiles, dbias))[0]


def _tiles(own, answering):
  """Codes [b c g] and [b c J·G] as [tiles, queries] and [tiles, J·G], of at most `PAIRS` pairs."""
  asking = own.shape[2]
  most = max(1, PAIRS // answering.shape[2])
  queries = max(size for size in range(1, asking + 1) if asking % size == 0 and size <= most)
  answering = jnp.repeat(answering.reshape(-1, answering.shape[2]), asking // queries, axis=0)
  return own.reshape(-1, queries), answering


def _entries(table, own, answering):
  """The table's entries [queries, keys] of a tile."""
  return between(own[:, None], answering, len(table))


def _mixed(q, k, v, first_k, first_v, bias, to_first, there):
  """Attention of q [B H c g d] to k and v [B H c J·G d] that are `there` [c J G], and the first."""
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scale = q.shape[-1] ** -0.5
  ahead = product("bhcgd,bhfd->bhcgf", q, first_k) * scale
  logits = product("bhcgd,bhcjd->bhcgj", q, k) * scale
  if bias is not None:
    ahead += to_first[:, None, None, None]
    logits += bias
  logits = jnp.where(there.reshape(len(there), 1, -1), logits, MASKED)
  highest = lambda x: jnp.max(x, axis=-1, keepdims=True, initial=MASKED)
  top = jax.lax.stop_gradient(jnp.maximum(highest(ahead), highest(logits)))
  ahead, rest = jnp.exp(ahead - top), jnp.exp(logits - top)
  out = product("bhcgf,bhfd->bhcgd", ahead.astype(v.dtype), first_v)
  out += product("bhcgj,bhcjd->bhcgd", rest.astype(v.dtype), v)
  return (out / (ahead.sum(-1, keepdims=True) + rest.sum(-1, keepdims=True))).astype(v.dtype)


def _cut(x: jax.Array, axis: int, parts: int, size: int) -> jax.Array:
  """A dimension as two, [parts, size], padded with zeros."""
  more = parts * size - x.shape[axis]
  x = jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])
  return x.reshape(*x.shape[:axis], parts, size, *x.shape[axis + 1 :])
