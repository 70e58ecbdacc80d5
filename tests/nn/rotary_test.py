import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn.rotary import Rope, rotate

HEADS = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 1, 8)), jnp.float32)


def test_products_depend_on_the_distance_only():
  frequencies = jnp.asarray(Rope(100.0).frequencies(8))

  def product(a, b):
    q, k = rotate(HEADS, jnp.asarray([[a, b]]), frequencies)[0, :, 0]
    return float(q @ k)

  assert product(3, 7) == pytest.approx(product(103, 107), abs=1e-4)
  assert product(3, 7) != pytest.approx(product(3, 8), abs=1e-3)


def test_position_0_turns_nothing():
  found = rotate(HEADS, jnp.zeros((1, 2), int), jnp.asarray(Rope().frequencies(8)))
  np.testing.assert_array_equal(found, HEADS)


def test_linear_stretches_all():
  np.testing.assert_allclose(
    Rope(100.0, "linear", 4.0).frequencies(8), Rope(100.0).frequencies(8) / 4, rtol=1e-6
  )


def test_llama3_keeps_short_waves_and_stretches_long_ones():
  """Wavelengths 6.3, 19.9, 62.8 and 198.7: kept below 16, divided above 64."""
  stretched = Rope(100.0, "llama3", 4.0, 1.0, 4.0, 64).frequencies(8)
  share = stretched / Rope(100.0).frequencies(8)
  assert share[0] == 1.0 and share[3] == 0.25
  assert 0.25 < share[2] < share[1] < 1.0
