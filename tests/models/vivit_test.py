import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models.vivit import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Encoder,
  EncoderConfig,
  normalise,
)
from vfe.nn.blocks import Execution
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

CONFIG = EncoderConfig.of("test", frames=8, size=16, tubelet=(2, 8, 8))
SELECTION = jnp.asarray([[0, 3, 9, 15], [1, 2, 4, 8]], jnp.int32)
VIDEO = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8))
PATCHES = gather_tubelets(VIDEO, CONFIG.layout, SELECTION)


@pytest.fixture(scope="module")
def params():
  return jax.jit(Encoder(CONFIG).init)(jax.random.key(0), PATCHES, SELECTION)


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size, millions", [("s", 22), ("b", 86), ("l", 304)])
def test_parameters_are_as_many_as_the_formula_says(size, millions):
  config = EncoderConfig.of(size, frames=128, size=224)
  patches = jax.ShapeDtypeStruct((1, 1, 1536), jnp.uint8)
  one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes = jax.eval_shape(Encoder(config).init, jax.random.key(0), patches, one)
  d, m = config.width, config.mlp
  attention = 4 * d * d + 3 * d  # queries, values and output have biases, keys have none
  layer = attention + 2 * d * m + m + d + 2 * 2 * d
  assert count(shapes) == (1536 * d + d) + config.depth * layer + 2 * d
  assert round(count(shapes) / 1e6) == millions


def test_tokens_are_told_apart_by_their_place_not_by_their_order(params):
  order = jnp.asarray([2, 0, 3, 1])
  encode = jax.jit(Encoder(CONFIG).apply)
  straight = encode(params, PATCHES, SELECTION)
  shuffled = encode(params, PATCHES[:, order], SELECTION[:, order])
  np.testing.assert_allclose(shuffled, straight[:, order], rtol=1e-4, atol=1e-5)
  elsewhere = encode(params, PATCHES, SELECTION[::-1])
  assert not np.allclose(elsewhere, straight, atol=1e-2)


def test_uint8_is_normalised_inside(params):
  mean, std = np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD)
  pixels = (np.asarray(PATCHES).reshape(2, 4, -1, 3) / np.float32(255) - mean) / std
  pixels = jnp.asarray(pixels.reshape(PATCHES.shape))
  np.testing.assert_allclose(normalise(PATCHES), pixels, rtol=1e-5, atol=1e-6)
  encode = jax.jit(Encoder(CONFIG).apply)
  np.testing.assert_allclose(
    encode(params, PATCHES, SELECTION), encode(params, pixels, SELECTION), rtol=1e-4, atol=1e-5
  )


def test_parameters_do_not_depend_on_the_clip(params):
  longer = dataclasses.replace(CONFIG, frames=32, size=32, positions="sincos3d")
  every = everything(1, longer.layout.size)
  patches = np.zeros((1, longer.layout.size, longer.layout.channels), np.uint8)
  encoded = jax.eval_shape(Encoder(longer).apply, params, patches, every)
  assert encoded.shape == (1, 256, CONFIG.width)


def test_freezing_all_leaves_no_gradient(params):
  frozen = Encoder(CONFIG, Execution(first_trained=CONFIG.depth))
  grads = jax.jit(jax.grad(lambda p: frozen.apply(p, PATCHES, SELECTION).sum()))(params)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_config_survives_json():
  again = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
  assert EncoderConfig.from_dict(again) == CONFIG


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: EncoderConfig.of("tst", 8, 16), "model.size='tst' is unknown; did you mean test"),
    (lambda: EncoderConfig.of("b", 8, 16, heads=7), "width=768 .* heads=7"),
    (lambda: EncoderConfig.of("b", 8, 16, positions="rope"), "positions='rope' is unknown"),
    (lambda: EncoderConfig.of("b", 7, 16).layout, "frames=7 is not divisible"),
  ],
)
def test_a_config_that_cannot_be_is_one_line(make, message):
  with pytest.raises(UserError, match=message):
    make()
