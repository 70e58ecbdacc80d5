import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn import causal as module
from vfe.nn.causal import ALL, NEVER, Keys, causal

RANDOM = np.random.default_rng(0)
N, SCALE = 11, 0.5
Q = RANDOM.standard_normal((2, N, 4, 8)).astype(np.float32)
K, V = RANDOM.standard_normal((2, 2, N, 2, 8)).astype(np.float32)
POSITIONS = np.broadcast_to(np.arange(N), (2, N))


def expected(window=ALL, cap=0.0):
  """A query, a head and a key after another, in float64."""
  out = np.zeros(Q.shape)
  for row, i, head in np.ndindex(2, N, 4):
    seen = slice(max(0, i - window + 1), i + 1)
    logits = SCALE * (K[row, seen, head // 2].astype(float) @ Q[row, i, head])
    logits = cap * np.tanh(logits / cap) if cap else logits
    weights = np.exp(logits - logits.max())
    out[row, i, head] = (weights / weights.sum()) @ V[row, seen, head // 2]
  return out


def found(seen, q=Q, positions=POSITIONS, **options):
  run = jax.jit(lambda *arrays: causal(*arrays, scale=SCALE, **options))
  return np.asarray(run(q, positions, seen))


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"cap": 1.5}], ids=str)
def test_numbers(options):
  np.testing.assert_allclose(
    found([Keys(K, V, POSITIONS)], **options), expected(**options), atol=1e-5
  )


def test_keys_in_two_parts_and_slots_that_nobody_sees():
  """As a cache with room for more than is in it, and what is new."""
  junk = np.full((2, 3, 2, 8), 9.0, np.float32)
  late = lambda of: np.concatenate([of[:, :7], junk], axis=1)
  slots = np.concatenate([POSITIONS[:, :7], np.full((2, 3), NEVER)], axis=1)
  cache = Keys(late(K), late(V), slots)
  new = Keys(K[:, 7:], V[:, 7:], POSITIONS[:, 7:])
  out = found([new, cache], Q[:, 7:], POSITIONS[:, 7:], window=5)
  np.testing.assert_allclose(out, expected(5)[:, 7:], atol=1e-5)


def test_in_chunks_numbers_and_gradients_are_the_same(monkeypatch):
  def both(q, positions, seen):
    run = lambda q: causal(q, positions, seen, window=4, scale=SCALE)
    return run(q), jax.grad(lambda q: jnp.sum(run(q) ** 2))(q)

  inputs = Q, POSITIONS, [Keys(K, V, POSITIONS)]
  whole = jax.jit(both)(*inputs)
  monkeypatch.setattr(module, "CHUNK", 4)
  for a, b in zip(whole, jax.jit(lambda *of: both(*of))(*inputs), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_query_that_sees_nothing_is_finite():
  assert np.isfinite(found([Keys(K, V, np.full((2, N), NEVER))])).all()
