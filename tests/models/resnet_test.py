import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.models.resnet import ResNet, ResNetConfig, perceptual

TINY = ResNetConfig(embedding_size=4, hidden_sizes=(8,), depths=(1,), classes=5)


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(ResNet(TINY), jnp.zeros((1, 32, 32, 3)))


def test_resnet50_has_the_published_number_of_parameters():
  """25,557,032 with batch normalisation's scale and bias; folding leaves one bias a channel."""
  shapes = jax.eval_shape(
    ResNet(ResNetConfig()).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3))
  )
  norm_channels = 26_560  # of the 53 convolutions
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 25_557_032 - norm_channels


def test_perceptual_distance_is_of_each_row_and_zero_for_equal_video(params):
  real = jax.random.uniform(jax.random.key(1), (2, 2, 16, 16, 3))
  fake = real.at[1].set(1 - real[1])
  distance = jax.jit(lambda a, b: perceptual(TINY, params, a, b))
  assert distance(real, fake)[0] == 0
  assert distance(real, fake)[1] > 0
  np.testing.assert_allclose(
    distance(real[::-1], fake[::-1]), distance(real, fake)[::-1], rtol=1e-4, atol=1e-9
  )


def test_gradient_goes_to_the_fake_only(params):
  real = jax.random.uniform(jax.random.key(1), (1, 1, 16, 16, 3))
  to_real, to_fake = jax.jit(
    jax.grad(lambda a, b: perceptual(TINY, params, a, b).sum(), argnums=(0, 1))
  )(real, real * 0.5)
  assert jnp.abs(to_real).max() == 0
  assert jnp.abs(to_fake).max() > 0
