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


class Parts(NamedTuple):
  """How queries and keys are cut: C parts of c blocks of g queries, M blocks of G keys.

  pattern: [C c J], the blocks of keys that each block of queries sees.
  """

  pattern: jax.Array
  asking: int
  blocks: int
  answering: int


class Seen(NamedTuple):
  """Keys and values side by side, of the blocks [B H M G 2d] and of the tokens that everybody sees
  [B H f 2d]: a head's are 128 numbers mostly, as many as a TPU's memory keeps in a row."""

  blocks: jax.Array
  first: jax.Array


class Which(NamedTuple):
  """Integers: the pattern [C c J] and own codes [C b c g] of the parts; codes [b M G] of all blocks
  of keys; which of these there are [M G]. No codes without a bias."""

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
  table, codes = bias or (None, None)
  out = _meet(size, first, q, k, v, table, codes, pattern)
  if not first:
    return out
  row = probabilities_of_first(q[:, :first], k, table)
  everywhere = jnp.einsum("bhfn,bnhd->bfhd", row.astype(v.dtype), v)
  return jnp.concatenate([everywhere, out], axis=1)


def _parts(pattern, n: int, size: int) -> Parts:
  """How n tokens that meet by a pattern of blocks of `size` are cut."""
  blocks = len(pattern)
  if pattern.shape[1] == blocks:  # the keys are one block, and so are the queries of a part
    asking = ALIGNED * -(-n // (ALIGNED * -(-n // QUERIES)))
    return Parts(jnp.zeros((-(-n // asking), 1, 1), pattern.dtype), asking, 1, n)
  parts = -(-blocks // max(1, QUERIES // size))
  return Parts(_cut(pattern, 0, parts, -(-blocks // parts)), size, blocks, size)


def _queries(x, parts: Parts):
  """Of tokens [B N H d] the parts [C B H c g d]."""
  count, at_once, _ = parts.pattern.shape
  x = _cut(x.swapaxes(1, 2), 2, count * at_once, parts.asking)
  return jnp.moveaxis(_cut(x, 2, count, at_once), 2, 0)


def _seen(k, v, parts: Parts, first: int) -> Seen:
  x = jnp.concatenate([k, v], axis=-1).swapaxes(1, 2)
  return Seen(_cut(x[:, :, first:], 2, parts.blocks, parts.answering), x[:, :, :first])


def _which(codes, parts: Parts, n: int) -> Which:
  count, at_once, _ = parts.pattern.shape
  there = (jnp.arange(parts.blocks * parts.answering) < n).reshape(parts.blocks, -1)
  if codes is None:
    return Which(parts.pattern, None, None, there)
  own = _cut(_cut(codes, 1, count * at_once, parts.asking), 1, count, at_once)
  answering = _cut(codes, 1, parts.blocks, parts.answering)
  return Which(parts.pattern, jnp.moveaxis(own, 1, 0), answering, there)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _meet(size: int, first: int, q, k, v, table, codes, pattern):
  """What all tokens [B N H d] but the first get, part after part. table, codes: or None."""
  n = q.shape[1] - first
  parts = _parts(pattern, n, size)
  seen, which = _seen(k, v, parts, first), _which(codes, parts, n)

  def part(of):
    q, pattern, own = of
    biases = _biases(table, own, _answering(which, pattern))
    return _mixed(q, _gathered(seen, pattern), seen.first, *biases, which.there[pattern])

  out = jax.lax.map(part, (_queries(q[:, first:], parts), which.pattern, which.own))
  out = jnp.moveaxis(out, 0, 2)  # B H C c g d
  return out.reshape(*out.shape[:2], -1, out.shape[5])[:, :, :n].swapaxes(1, 2)


def _forward(size: int, first: int, *inputs):
  return _meet(size, first, *inputs), inputs


def _backward(size: int, first: int, inputs, given):
  """Each part's probabilities are made again. What its keys, values and biases get is added where
  they came from: autodiff would add arrays of all tokens, part after part, in time N²."""
  *tokens, table, codes, pattern = inputs
  n = given.shape[1]
  parts = _parts(pattern, n, size)
  cut = lambda q, k, v: (_queries(q[:, first:], parts), _seen(k, v, parts, first))
  (queries, seen), uncut = jax.vjp(cut, *tokens)
  which = _which(codes, parts, n)

  def part(sums, of):
    q, pattern, own, given = of
    answering = _answering(which, pattern)
    run = lambda *inputs: _mixed(*inputs, which.there[pattern])
    inputs = (q, _gathered(seen, pattern), seen.first, *_biases(table, own, answering))
    dq, dblocks, dfirst, dbias, dto_first = jax.vjp(run, *inputs)[1](given)
    (of_blocks, of_first), of_table = sums
    if table is not None:
      of_table = _table_added(of_table, own, answering, dbias).at[TO_CLS].add(dto_first)
    return (Seen(_added(of_blocks, pattern, dblocks), of_first + dfirst), of_table), dq

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (seen, table))
  scanned = (queries, which.pattern, which.own, _queries(given, parts))
  sums, dq = jax.lax.scan(part, zeros, scanned)
  dseen, dtable = jax.tree.map(lambda x, of: x.astype(of.dtype), sums, (seen, table))
  return *uncut((dq, dseen)), dtable, None, None


_meet.defvjp(_forward, _backward)


def _gathered(seen: Seen, pattern):
  """Keys and values [B H c J·G 2d] that each of c blocks sees."""
  x = seen.blocks
  if x.shape[2] == 1:
    return x
  return x[:, :, pattern].reshape(*x.shape[:2], len(pattern), -1, x.shape[4])


def _added(sums, pattern, dx):
  """Sums [B H M G 2d] and what has been `_gathered` from there."""
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


def _mixed(q, seen, first, bias, to_first, there):
  """Attention of q [B H c g d] to the `seen` [B H c J·G 2d] that are `there` [c J G] and the first.
  """
  k, v = jnp.split(seen, 2, axis=-1)
  first_k, first_v = jnp.split(first, 2, axis=-1)
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
