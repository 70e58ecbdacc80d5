import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn.positions import sincos1d, sincos3d


def table(count, width):
  """VideoMAE's definition, in float64."""
  angle = np.arange(count)[:, None] / 10000.0 ** (2 * (np.arange(width) // 2) / width)
  return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle))


@pytest.mark.parametrize("count, width", [(12544, 768), (1568, 384), (10, 2), (1, 4)])
def test_sincos1d_is_videomae_s_table_to_float32(count, width):
  """Two roundings of the factors, one of each product and one of the sum: below 4 ulp of 1."""
  index = np.unique(np.linspace(0, count - 1, 300).astype(np.int32))
  found = jax.jit(sincos1d, static_argnums=(1, 2))(jnp.asarray(index), width, count)
  assert found.shape == (len(index), width)
  np.testing.assert_allclose(found, table(count, width)[index], rtol=0, atol=4 * 2**-23)


def test_sincos3d_is_the_three_axes_side_by_side():
  places = tuple(jnp.asarray(np.asarray([[0, 3], [1, 2]]) * scale) for scale in (1, 2, 3))
  found = jax.jit(sincos3d, static_argnums=(1, 2))(places, (8, 9, 12), 16)
  axes = ((8, 8), (9, 4), (12, 4))  # a third of 16, even, is 4; time takes the rest
  expected = [table(n, width)[np.asarray(p)] for (n, width), p in zip(axes, places, strict=True)]
  np.testing.assert_allclose(found, np.concatenate(expected, -1), rtol=0, atol=4 * 2**-23)
