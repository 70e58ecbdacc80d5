"""Operations are counted as the published formulas count them."""

import jax
import jax.numpy as jnp
import pytest

from vfe.learn.flops import flops
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn.blocks import Execution


def test_products_scans_and_convolutions():
  a, b = jax.ShapeDtypeStruct((4, 5), "float32"), jax.ShapeDtypeStruct((5, 6), "float32")
  assert flops(lambda a, b: a @ b, a, b) == 2 * 4 * 5 * 6
  scanned = lambda a: jax.lax.scan(lambda c, _: (c @ jnp.ones((5, 5)), None), a, None, length=7)[0]
  assert flops(scanned, a) == 7 * 2 * 4 * 5 * 5
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), "float32")
  kernel = jax.ShapeDtypeStruct((3, 3, 3, 16), "float32")
  convolve = lambda x, k: jax.lax.conv_general_dilated(
    x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  assert flops(convolve, image, kernel) == 2 * 8 * 8 * 16 * 9 * 3


@pytest.mark.parametrize("size", ["s", "b"])
def test_an_encoder_takes_24nd2_plus_4n2d_a_layer(size):
  config = EncoderConfig.of(size, frames=16, size=224)
  encoder = Encoder(config, Execution(attention="xla"))
  n, width = 160, config.width
  patches = jax.ShapeDtypeStruct((1, n, config.layout.channels), "uint8")
  places = jax.ShapeDtypeStruct((1, n), "int32")
  params = jax.eval_shape(encoder.init, jax.random.key(0), patches, places)
  layer = 24 * n * width**2 + 4 * n**2 * width
  expected = config.depth * layer + 2 * n * config.layout.channels * width
  assert flops(encoder.apply, params, patches, places) == expected
