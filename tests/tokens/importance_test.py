import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.tokens.importance import token_difference
from vfe.tokens.layout import Layout


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_distance_to_the_latent_frame_before(dtype):
  features = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(dtype)
  distance = token_difference(jnp.asarray(features.reshape(2, 12, 5)), Layout((3, 2, 2), (1, 1, 1)))
  steps = np.linalg.norm(np.diff(features.astype(np.float64), axis=1), axis=-1)
  expected = np.concatenate([steps[:, :1], steps], axis=1).reshape(2, 12)
  np.testing.assert_allclose(distance, expected, rtol=1e-6)


def test_one_latent_frame_has_no_difference():
  with pytest.raises(UserError, match="use at least 4 frames"):
    token_difference(jnp.zeros((1, 4, 3)), Layout((1, 2, 2), (2, 1, 1)))
