import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vfe.learn.sharding import make_mesh
from vfe.nn import relative, sparse
from vfe.nn.sparse import attend_sparse
from vfe.tokens.edges import Edges, pattern
from vfe.tokens.layout import Layout

LAYOUT = Layout((3, 2, 4), (1, 1, 1))
N, SIZE = 18, 4  # of the 24 tokens 18 are left: 5 blocks, the last of 2 tokens
HEADS, DEPTH = 2, 4
EDGES = Edges(1, 1, SIZE)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
  """Two blocks at a time: three parts of the five, the last one not full. Where all blocks meet,
  parts of 16 of the 18 tokens. Of biases, two queries' at a time."""
  monkeypatch.setattr(sparse, "QUERIES", 2 * SIZE)
  monkeypatch.setattr(sparse, "PAIRS", 4 * SIZE)


def inputs(first=1, batch=2, dtype=np.float32, rows=None):
  """Queries, keys, values, a table of biases and the tokens of each row, or of all (rows=1)."""
  rng = np.random.default_rng(0)
  q, k, v = (
    jnp.asarray(rng.standard_normal((batch, first + N, HEADS, DEPTH)), dtype) for _ in range(3)
  )
  table = rng.standard_normal((relative.entries(LAYOUT.grid), HEADS)).astype(np.float32)
  chosen = [np.sort(rng.permutation(LAYOUT.size)[:N]) for _ in range(rows or batch)]
  return q, k, v, jnp.asarray(table), jnp.asarray(np.stack(chosen))


def meet(q, k, v, table, chosen, which, first):
  """`attend_sparse` of tokens chosen from the layout."""
  codes = relative.codes(LAYOUT.places(chosen), LAYOUT.grid)
  bias = None if table is None else relative.RelativeBias(table, codes)
  return attend_sparse(q, k, v, which, size=SIZE, first=first, bias=bias)


def edges_of(which, first):
  """Which query sees which key, as a matrix."""
  seen = np.zeros((N, N), bool)
  for i in range(N):
    for j in range(N):
      seen[i, j] = j // SIZE in np.asarray(which)[i // SIZE].tolist()
  whole = np.ones((first + N, first + N), bool)
  whole[first:, first:] = seen
  return whole


def entries(rows, chosen, first):
  """[b, N, N] of a table of `rows`, pair by pair, from the coordinates."""
  at, (t, h, w) = LAYOUT.coordinates()[np.asarray(chosen)], LAYOUT.grid
  dt, dy, dx = np.moveaxis(at[:, :, None] - at[:, None, :] + np.array([t, h, w]) - 1, 3, 0)
  found = np.full((len(at), first + N, first + N), rows - 2)
  found[:, :first], found[:, :first, :first] = rows - 3, rows - 1
  found[:, first:, first:] = (dt * (2 * h - 1) + dy) * (2 * w - 1) + dx
  return found


def reference(q, k, v, table, chosen, which, first):
  """Dense, float64, with an explicit mask: the output, and the gradients of the sum of its sines
  with respect to queries, keys, values and table."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(DEPTH)
  if table is not None:
    at = entries(len(table), chosen, first)
    logits = logits + np.moveaxis(np.asarray(table, np.float64)[at], 3, 1)
  logits = np.where(edges_of(which, first), logits, -np.inf)
  probabilities = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities /= probabilities.sum(-1, keepdims=True)
  out = np.einsum("bhnm,bmhd->bnhd", probabilities, v)
  given = np.cos(out)
  dv = np.einsum("bhnm,bnhd->bmhd", probabilities, given)
  dp = np.einsum("bnhd,bmhd->bhnm", given, v)
  ds = probabilities * (dp - (dp * probabilities).sum(-1, keepdims=True))
  dq = np.einsum("bhnm,bmhd->bnhd", ds, k) / np.sqrt(DEPTH)
  dk = np.einsum("bhnm,bnhd->bmhd", ds, q) / np.sqrt(DEPTH)
  if table is None:
    return out, (dq, dk, dv)
  dtable, ds = np.zeros(table.shape), np.moveaxis(ds, 1, 3)
  np.add.at(dtable, np.broadcast_to(at, ds.shape[:3]), ds)
  return out, (dq, dk, dv, dtable)


def found_of(q, k, v, table, chosen, which, first):
  """What `attend_sparse` makes of what `reference` does, from one compilation."""

  def loss(q, k, v, table):
    out = meet(q, k, v, table, chosen, which, first)
    return jnp.sum(jnp.sin(out)), out

  wanted = (0, 1, 2) if table is None else (0, 1, 2, 3)
  gradients, out = jax.jit(jax.grad(loss, wanted, has_aux=True))(q, k, v, table)
  return out, gradients


def agree(found, expected):
  """Sums of at most 19 products of numbers near 1 in float32: 1e-5 is a hundred roundings. An entry
  of the table adds up at most 144 of them (18 tokens of 8 rows), made smaller by a softmax."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def drawn(edges=EDGES):
  return pattern(jax.random.key(3), 0, N, edges)


@pytest.mark.parametrize(
  ("first", "biased", "rows", "random"),
  [(1, True, None, 1), (1, True, 1, 1), (0, False, None, 1), (2, True, None, 4)],
)
def test_it_is_masked_softmax_attention_forward_and_backward(first, biased, rows, random):
  q, k, v, table, chosen = inputs(first, rows=rows)
  which = drawn(Edges(1, random, SIZE))
  assert which.shape == (5, 1 + random) and edges_of(which, first).all() == (random == 4)
  of = (q, k, v, table if biased else None, chosen, which, first)
  agree(found_of(*of), reference(*of))


def test_one_block_of_all_tokens_is_dense():
  q, k, v, table, chosen = inputs()
  edges = Edges(1, 0, N)
  codes = relative.codes(LAYOUT.places(chosen), LAYOUT.grid)
  bias = relative.RelativeBias(table, codes)
  found = attend_sparse(q, k, v, drawn(edges), size=edges.size, bias=bias)
  everything = np.zeros((5, 5), int) + np.arange(5)
  agree(found, reference(q, k, v, table, chosen, everything, 1)[0])


def test_softmax_is_float32_under_bfloat16():
  """What is left is the rounding of inputs, probabilities and output: 2**-8 each, of values < 4."""
  q, k, v, table, chosen = inputs(dtype=jnp.bfloat16)
  found = meet(q, k, v, table, chosen, drawn(), 1)
  assert found.dtype == jnp.bfloat16
  expected = reference(q, k, v, table, chosen, drawn(), 1)[0]
  np.testing.assert_allclose(found.astype(np.float32), expected, rtol=0, atol=2**-6)


def test_what_a_cls_gives_to_each_token():
  q, k, _, table, _ = inputs()
  found = np.asarray(sparse.probabilities_of_first(q[:, :1], k, table))
  logits = np.einsum("bhd,bnhd->bhn", *(np.asarray(x, np.float64) for x in (q[:, 0], k)))
  logits = logits / np.sqrt(DEPTH) + np.asarray(table)[[-1] + [-3] * N].T
  expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found[:, :, 0], expected, rtol=0, atol=1e-6)


def test_a_pattern_of_other_blocks_is_refused():
  q, k, v, *_ = inputs()
  with pytest.raises(ValueError, match="5 blocks is not one of 19 tokens in blocks of 3"):
    attend_sparse(q, k, v, drawn(), size=3, first=0)


@pytest.mark.parametrize(
  ("sizes", "rows"), [({"data": 2, "fsdp": 2, "tensor": 2}, None), ({"data": 4, "context": 2}, 1)]
)
def test_a_mesh_changes_no_number(sizes, rows):
  of = (*inputs(batch=8, rows=rows), drawn(), 1)
  with jax.set_mesh(make_mesh(sizes)):
    found = found_of(*of)
  agree(found, reference(*of))


def test_no_token_crosses_the_mesh():
  """Rows and heads that lie where they are worked on: forward, nothing is sent at all."""
  mesh = make_mesh({"data": 4, "tensor": 2})
  place = lambda *names: NamedSharding(mesh, PartitionSpec(*names))
  q, k, v, table, chosen = inputs(batch=4)
  tokens = place("data", None, "tensor")
  specs = (tokens, tokens, tokens, place(None, "tensor"), place("data"))
  with jax.set_mesh(mesh):
    run = jax.jit(lambda *of: meet(*of, drawn(), 1), in_shardings=specs, out_shardings=tokens)
    program = run.lower(q, k, v, table, chosen).compile().as_text()
  assert not re.search(r"all-(gather|reduce|to-all)|collective-permute|reduce-scatter", program)


@pytest.mark.parametrize("edges", [EDGES, Edges(1, 0, 2048)], ids=["sparse", "dense"])
def test_memory_is_linear_in_the_length_and_nothing_is_as_large_as_all_pairs(edges):
  """Forward and backward with a bias, from 512 to 2048 tokens; every array of the program."""

  def compiled(n):
    grid, blocks = (n // 16, 4, 4), edges.blocks(n)
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)
    whole = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.int32)
    loss = lambda q, k, v, table, codes, which: attend_sparse(
      q, k, v, which, size=edges.size, first=0, bias=relative.RelativeBias(table, codes)
    ).sum()  # fmt: skip
    tokens = [shape(1, n, 1, 4)] * 3
    rest = shape(relative.entries(grid), 1), whole(1, n), whole(blocks, edges.met(n))
    return jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(*tokens, *rest).compile()

  short, long = compiled(512), compiled(2048)
  temporaries = lambda program: program.memory_analysis().temp_size_in_bytes
  assert temporaries(long) < 5 * temporaries(short)
  shapes = re.findall(r"\b(?:f32|s32|u32|pred)\[([\d,]+)\]", long.as_text())
  largest = max(math.prod(int(side) for side in shape.split(",")) for shape in shapes)
  assert largest <= 2048 * 16 < 2048 * 2048
