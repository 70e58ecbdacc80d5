import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.models.discriminator import (
  Discriminator,
  DiscriminatorConfig,
  discriminator_loss,
  generator_loss,
  logits_and_r1,
)


@pytest.fixture(scope="module")
def small(random_params):
  model = Discriminator(DiscriminatorConfig(filters=4, multipliers=(2,)))
  video = jax.random.uniform(jax.random.key(0), (3, 2, 8, 8, 3))
  return model, {"params": random_params(model, video)}, video


def test_parameter_count_of_magvit_b():
  """By formula from the published layer list, 16 frames of 128x128: the last grid is 1x4x4."""
  block = lambda i, o: 27 * i * i + i + 27 * i * o + o + i * o
  want = 27 * 3 * 64 + 64 + block(64, 128) + block(128, 256) + 3 * block(256, 256)
  want += 27 * 256 * 256 + 256 + 16 * 256 * 256 + 256 + 256 + 1
  video = jnp.zeros((1, 16, 128, 128, 3))
  shapes = jax.eval_shape(Discriminator(DiscriminatorConfig()).init, jax.random.key(0), video)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want


def test_a_row_depends_on_that_row_only(small):
  model, params, video = small
  together = jax.jit(model.apply)(params, video)
  alone = jax.jit(model.apply)(params, video[1:2])
  np.testing.assert_allclose(together[1], alone[0], rtol=1e-5)


def test_r1_is_the_squared_slope_of_each_row(small):
  model, params, video = small
  discriminate = lambda v: model.apply(params, v)
  logits, r1 = jax.jit(lambda v: logits_and_r1(discriminate, v))(video)
  judge, slope = jax.jit(discriminate), jax.jit(jax.grad(lambda v: discriminate(v)[2]))(video)
  np.testing.assert_allclose(logits, judge(video), rtol=1e-5)
  # along its own gradient the logit climbs by |gradient| a unit; central difference, step 1e-2
  step = 1e-2 * slope / jnp.sqrt(jnp.square(slope).sum())
  climb = (judge(video + step) - judge(video - step))[2] / 2e-2
  np.testing.assert_allclose(r1[2], jnp.square(climb), rtol=2e-2)


def test_r1_has_a_gradient_to_the_parameters(small):
  model, params, video = small
  penalty = lambda p: logits_and_r1(lambda v: model.apply(p, v), video)[1].mean()
  gradient = jax.jit(jax.grad(penalty))(params)
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  assert jnp.abs(gradient["params"]["conv_in"]["kernel"]).sum() > 0


def test_losses_are_non_saturating_and_do_not_overflow():
  real, fake = jnp.array([0.0, 100.0, -100.0]), jnp.array([0.0, -100.0, 100.0])
  np.testing.assert_allclose(discriminator_loss(real, fake), [2 * np.log(2), 0, 200], atol=1e-5)
  np.testing.assert_allclose(generator_loss(fake), [np.log(2), 100, 0], atol=1e-5)
