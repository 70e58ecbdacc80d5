import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.tokens.layout import Layout
from vfe.tokens.pooling import mean_over_time
from vfe.tokens.selection import everything, random

LAYOUT = Layout.of_video(8, 32, (2, 8, 8))  # 4 x 4 x 4
TOKENS = np.random.default_rng(0).standard_normal((3, LAYOUT.size, 5)).astype(np.float32)


def test_of_all_tokens_it_is_the_mean_over_the_frames():
  found, there = mean_over_time(jnp.asarray(TOKENS), everything(3, LAYOUT.size), LAYOUT)
  wanted = TOKENS.reshape(3, 4, 16, 5).mean(1)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
  assert there.all() and found.shape == (3, 16, 5)


@pytest.mark.parametrize("keep", [45, 9])
def test_of_some_tokens_it_is_the_mean_of_those_of_a_site(keep):
  """9 of 64 tokens leave most of the 16 sites empty."""
  chosen = np.asarray(random(jax.random.split(jax.random.key(keep), 3), LAYOUT.size, keep))
  tokens = np.take_along_axis(TOKENS, chosen[:, :, None], axis=1)
  found, there = mean_over_time(jnp.asarray(tokens), jnp.asarray(chosen), LAYOUT)
  found, there = np.asarray(found), np.asarray(there)
  for row in range(3):
    for site in range(16):
      own = tokens[row][chosen[row] % 16 == site]
      assert there[row, site] == bool(len(own))
      wanted = own.mean(0) if len(own) else np.zeros(5)
      np.testing.assert_allclose(found[row, site], wanted, rtol=1e-5, atol=1e-6)
  assert keep > 16 or not there.all()
