import jax.numpy as jnp
import numpy as np

from vfe.nn.cross import cross

RNG = np.random.default_rng(0)


def numbers(*shape):
  return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def test_every_query_sees_the_keys_that_are_there_and_no_other():
  """By the formula, in float64."""
  q, k, v = numbers(2, 3, 2, 4), numbers(2, 5, 2, 4), numbers(2, 5, 2, 4)
  there = jnp.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
  logits = np.einsum("bnhd,bmhd->bhnm", np.asarray(q, np.float64), k) / 2
  shares = np.exp(logits) * np.asarray(there)[:, None, None]
  shares /= shares.sum(-1, keepdims=True)
  wanted = np.einsum("bhnm,bmhd->bnhd", shares, v)
  np.testing.assert_allclose(cross(q, k, v, there), wanted, rtol=1e-5, atol=1e-6)


def test_without_any_key_the_numbers_are_finite():
  q, k = numbers(1, 2, 1, 4), numbers(1, 3, 1, 4)
  assert np.isfinite(cross(q, k, k, jnp.zeros((1, 3), bool))).all()
