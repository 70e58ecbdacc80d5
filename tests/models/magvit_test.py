import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core.primitives import remat_p

from vfe.models.magvit import Decoder, Encoder, average_pool, nearest_upsample

SMALL = dict(filters=4, multipliers=(1, 2, 2), temporal_downsample=(True, False), res_blocks=1)


def count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_encoder_and_decoder_are_mirror_images_in_shape():
  video = jnp.zeros((2, 8, 16, 16, 3))
  encoder, decoder = Encoder(channels=6, **SMALL), Decoder(**SMALL)
  soft, _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), video)
  assert soft.shape == (2, 4, 4, 4, 6)
  out, _ = jax.eval_shape(decoder.init_with_output, jax.random.key(0), soft)
  assert out.shape == video.shape


def test_parameter_counts_of_magvit_b():
  """By formula from the published layer list: filters 64, (1, 2, 2, 4), 2 blocks, 256 channels."""
  block = lambda i, o: 27 * i * o + 27 * o * o + 2 * i + 2 * o + (i * o if i != o else 0)
  encoder = 27 * 3 * 64 + 2 * block(64, 64) + block(64, 128) + 3 * block(128, 128)
  encoder += block(128, 256) + 3 * block(256, 256) + 2 * 256 + 256 * 256 + 256
  decoder = 27 * 256 * 256 + 256 + 4 * block(256, 256) + 27 * 256 * 256 + 256
  decoder += block(256, 128) + block(128, 128) + 27 * 128 * 128 + 128
  decoder += 2 * block(128, 128) + 27 * 128 * 128 + 128
  decoder += block(128, 64) + block(64, 64) + 2 * 64 + 27 * 64 * 3 + 3
  config = dict(
    filters=64, multipliers=(1, 2, 2, 4), temporal_downsample=(True, True, False), res_blocks=2
  )
  video, latent = jnp.zeros((1, 16, 64, 64, 3)), jnp.zeros((1, 4, 8, 8, 256))
  shapes = jax.eval_shape(Encoder(channels=256, **config).init, jax.random.key(0), video)
  assert count(shapes) == encoder
  shapes = jax.eval_shape(Decoder(**config).init, jax.random.key(0), latent)
  assert count(shapes) == decoder


def test_average_pool_leaves_padding_out_of_the_mean():
  video = jnp.arange(3 * 3 * 1.0).reshape(1, 1, 3, 3, 1)
  np.testing.assert_allclose(average_pool(video)[0, 0, :, :, 0], [[2, 3.5], [6.5, 8]])


def test_upsampling_then_pooling_is_the_identity():
  video = jax.random.normal(jax.random.key(0), (1, 2, 3, 3, 2))
  for time in (True, False):
    up = nearest_upsample(video, time)
    assert up.shape == (1, 4 if time else 2, 6, 6, 2)
    np.testing.assert_allclose(average_pool(up, time), video, rtol=1e-6)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_remat_recomputes_blocks_and_keeps_the_parameters(half):
  if half == "encoder":
    make, shape = lambda n: Encoder(channels=6, remat_stages=n, **SMALL), (1, 4, 8, 8, 3)
  else:
    make, shape = lambda n: Decoder(remat_stages=n, **SMALL), (1, 2, 2, 2, 6)
  x = jnp.zeros(shape)
  init = lambda n: jax.eval_shape(make(n).init, jax.random.key(0), x)
  assert init(0) == init(2)
  for stages in (0, 2):
    jaxpr = jax.make_jaxpr(make(stages).apply)(init(stages), x)
    assert sum(eqn.primitive is remat_p for eqn in jaxpr.eqns) == stages
