"""Block-sparse attention: each block of tokens sees the blocks that a pattern names, and the CLS.

The blocks are gathered, which runs on every platform, takes an additive bias and a pattern that
changes from step to step. Time grows with the pairs that exist. Of these, some blocks' are held at
a time, forward and backward; what is kept for the backward pass is queries, keys and values.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from vfe.nn.attention import HEADS, MASKED, ROWS, is_ours
from vfe.nn.relative import FROM_CLS, TO_CLS, WITHIN_CLS, RelativeBias, between

QUERIES = 256  # whose probabilities are held at once, or those of one block where it is larger


class Seen(NamedTuple):
  """Keys and values of the blocks [B H M G d], and of the tokens that everybody sees [B H f d]."""

  k: jax.Array
  v: jax.Array
  first_k: jax.Array
  first_v: jax.Array


class Which(NamedTuple):
  """Integers: the pattern [C c J] and own codes [C b c G] of C parts of c query blocks; codes
  [b M G] of all blocks' tokens; which of these tokens there are [M G]. No codes without a bias."""

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
  twice in a row. The last block may not be full; nobody sees what it lacks. One block of all tokens
  is dense attention, with its N x N probabilities.

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
  heads = [x.swapaxes(1, 2) for x in (q, k, v)]
  queries, keys, values = (_cut(x[:, :, first:], 2, blocks, size) for x in heads)
  seen = Seen(keys, values, *(x[:, :, :first] for x in heads[1:]))
  parts = -(-blocks // max(1, QUERIES // size))
  at_once = -(-blocks // parts)
  split = lambda x, axis: jnp.moveaxis(_cut(x, axis, parts, at_once), axis, 0)
  table = codes = own = None
  if bias is not None:
    table, codes = bias.table.T, _cut(bias.codes, 1, blocks, size)
    own = split(codes, 1)
  there = (jnp.arange(blocks * size) < n).reshape(blocks, size)
  out = _meet(split(queries, 2), seen, table, Which(split(pattern, 0), own, codes, there))
  out = jnp.moveaxis(out, 0, 2).reshape(*heads[0].shape[:2], -1, q.shape[3])[:, :, :n]
  if not first:
    return out.swapaxes(1, 2)
  row = probabilities_of_first(q[:, :first], k, None if bias is None else bias.table)
  everywhere = jnp.einsum("bhfn,bnhd->bfhd", row.astype(v.dtype), v)
  return jnp.concatenate([everywhere, out.swapaxes(1, 2)], axis=1)


@jax.custom_vjp
def _meet(q, seen: Seen, table, which: Which):
  """What the tokens of query blocks [C B H c G d] get from those they see, part after part.

  table: [H R] or None.
  """

  def part(of):
    q, pattern, own = of
    k, v = _gathered(seen, pattern)
    bias = _biases(table, _entries(table, which, pattern, own, seen.first_k.shape[2]))
    return _mixed(q, k, v, seen.first_k, seen.first_v, bias, which.there[pattern])

  return jax.lax.map(part, (q, which.pattern, which.own))


def _forward(q, seen: Seen, table, which: Which):
  return _meet(q, seen, table, which), (q, seen, table, which)


def _backward(saved, given):
  """Each part's probabilities are made again. What its keys, values and biases get is added where
  they came from: autodiff would add arrays of all tokens, part after part, in time N²."""
  q, seen, table, which = saved

  def part(sums, of):
    q, pattern, own, given = of
    entries = _entries(table, which, pattern, own, seen.first_k.shape[2])
    run = lambda *inputs: _mixed(*inputs, which.there[pattern])
    inputs = (q, *_gathered(seen, pattern), seen.first_k, seen.first_v, _biases(table, entries))
    dq, dk, dv, *firsts, dbias = jax.vjp(run, *inputs)[1](given)
    of_seen, of_table = sums
    k, v = (
      x.at[:, :, pattern].add(dx.reshape(*x.shape[:2], *pattern.shape, *x.shape[3:]))
      for x, dx in ((of_seen.k, dk), (of_seen.v, dv))
    )
    of_first = (x + dx for x, dx in zip(of_seen[2:], firsts, strict=True))
    if table is not None:
      of_table = of_table.at[:, entries].add(jnp.moveaxis(dbias, 1, 0))
    return (Seen(k, v, *of_first), of_table), dq

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (seen, table))
  sums, dq = jax.lax.scan(part, zeros, (q, which.pattern, which.own, given))
  dseen, dtable = jax.tree.map(lambda x, of: x.astype(of.dtype), sums, (seen, table))
  return dq, dseen, dtable, None


_meet.defvjp(_forward, _backward)


def _gathered(seen: Seen, pattern):
  """Keys and values [B H c J·G d] that each of c blocks sees."""
  return (
    x[:, :, pattern].reshape(*x.shape[:2], len(pattern), -1, x.shape[4]) for x in (seen.k, seen.v)
  )


def _entries(table, which: Which, pattern, own, first: int):
  """The table's entries [b c G first + J·G] of the pairs of a part, None without a table."""
  if table is None:
    return None
  answering = which.codes[:, pattern].reshape(len(own), len(pattern), 1, -1)
  found = between(own[..., None], answering, table.shape[1])
  return jnp.pad(found, [(0, 0)] * 3 + [(first, 0)], constant_values=table.shape[1] + TO_CLS)


def _biases(table, entries):
  """[b H c G first + J·G]"""
  return None if table is None else jnp.moveaxis(table[:, entries], 0, 1)


def _mixed(q, k, v, first_k, first_v, bias, there):
  """Attention of q [B H c G d] to k and v [B H c J·G d] that are `there` [c J G], and the first."""
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  logits = jnp.concatenate(
    [product("bhcgd,bhfd->bhcgf", q, first_k), product("bhcgd,bhcjd->bhcgj", q, k)], axis=-1
  )
  logits *= q.shape[-1] ** -0.5
  if bias is not None:
    logits += bias
  first = first_k.shape[2]
  there = jnp.pad(there.reshape(len(there), 1, -1), [(0, 0), (0, 0), (first, 0)],
                  constant_values=True)  # fmt: skip
  probabilities = jax.nn.softmax(jnp.where(there, logits, MASKED), axis=-1).astype(v.dtype)
  out = product("bhcgf,bhfd->bhcgd", probabilities[..., :first], first_v)
  out += product("bhcgj,bhcjd->bhcgd", probabilities[..., first:], v)
  return out.astype(v.dtype)


def _cut(x: jax.Array, axis: int, parts: int, size: int) -> jax.Array:
  """A dimension as two, [parts, size], padded with zeros."""
  more = parts * size - x.shape[axis]
  x = jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])
  return x.reshape(*x.shape[:axis], parts, size, *x.shape[axis + 1 :])
