import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.models.mae import MAE, DecoderConfig, masked_mse, pixel_targets
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.layout import Layout
from vfe.tokens.selection import contains, count, visible
from vfe.tokens.tubelets import gather_tubelets

CONFIG = EncoderConfig.of("test", frames=8, size=16, tubelet=(2, 8, 8))
VIDEO = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8))
VISIBLE = jnp.asarray([[0, 3, 9], [1, 2, 4]], jnp.int32)
ASKED = jnp.asarray([[1, 3, 5, 15], [0, 2, 3, 7]], jnp.int32)  # 3 and 2 are visible too


def test_predictions_are_of_the_asked_tokens_in_their_order():
  model = MAE(CONFIG, DecoderConfig.of("test"), 6)
  patches = gather_tubelets(VIDEO, CONFIG.layout, VISIBLE)
  params = jax.jit(model.init)(jax.random.key(0), patches, VISIBLE, ASKED)
  apply = jax.jit(model.apply)
  predicted = apply(params, patches, VISIBLE, ASKED)
  assert predicted.shape == (2, 4, 6) and predicted.dtype == jnp.float32
  turned = apply(params, patches, VISIBLE, ASKED[:, ::-1])
  np.testing.assert_allclose(turned[:, ::-1], predicted, rtol=1e-4, atol=1e-5)


def dimensions(jaxpr):
  """All lengths of axes of everything that a program computes."""
  for eqn in jaxpr.eqns:
    for var in eqn.outvars:
      yield from getattr(var.aval, "shape", ())
    for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from dimensions(inner)


def test_nothing_is_computed_for_tokens_neither_visible_nor_asked():
  """N = 62 * 9 appears in no shape of the forward and backward pass, nor does any N of pixels."""
  config = EncoderConfig.of("test", frames=124, size=24, tubelet=(2, 8, 8))
  n = config.layout.size
  model = MAE(config, DecoderConfig.of("test"), 6)
  one = lambda k, *more: jnp.zeros((1, k, *more), jnp.uint8 if more else jnp.int32)
  patches = one(5, config.layout.channels)
  params = jax.eval_shape(model.init, jax.random.key(0), patches, one(5), one(8))

  def loss(params, patches, chosen, asked):
    return model.apply(params, patches, chosen, asked).sum()

  program = jax.make_jaxpr(jax.grad(loss))(params, patches, one(5), one(8))
  found = set(dimensions(program.jaxpr))
  assert {5, 13} <= found  # encoder and decoder lengths
  assert n not in found


def test_pixel_targets_are_normalised_by_tubelet_and_channel():
  targets = pixel_targets(VIDEO, CONFIG.layout, ASKED)
  patches = np.asarray(gather_tubelets(VIDEO, CONFIG.layout, ASKED), np.float64) / 255
  pixels = patches.reshape(2, 4, -1, 3)
  expected = (pixels - pixels.mean(2, keepdims=True)) / (
    pixels.std(2, ddof=1, keepdims=True) + 1e-6
  )
  # 128 pixels summed in float32, over deviations near 0.3.
  np.testing.assert_allclose(targets, expected.reshape(patches.shape), rtol=0, atol=1e-5)


def test_a_flat_tubelet_s_target_is_0():
  """Up to two roundings (2**-24 each, of a mean below 1), which are divided by 1e-6."""
  flat = jnp.full_like(VIDEO, 200)
  np.testing.assert_allclose(pixel_targets(flat, CONFIG.layout, ASKED), 0, atol=0.12)


def test_what_is_asked_but_visible_weighs_nothing():
  weight = ~contains(VISIBLE, ASKED, CONFIG.layout.size)
  target = jnp.zeros((2, 4, 6))
  predicted = jnp.where(weight[:, :, None], 2.0, 1000.0) * jnp.ones((2, 4, 6))
  total, weights = masked_mse(predicted, target, weight)
  assert (float(total), float(weights)) == (6 * 4.0, 6.0)


def test_decoder_config_survives_json():
  config = DecoderConfig.of("b", depth=2)
  assert DecoderConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.slow
def test_temporaries_at_128_frames_fall_with_the_budget():
  """LVMAE figure 1: ViT-B, batch 1, plain attention; 15 % takes at most a quarter of 100 %."""
  config = EncoderConfig.of("b", frames=128, size=224)
  layout = Layout.of_video(128, 224, (2, 16, 16))
  model = MAE(config, DecoderConfig.of("b"), 6, Execution(attention="xla"))
  kept = layout.grid[0] * visible(layout.per_frame, 0.9)
  shape = lambda k, *more: jax.ShapeDtypeStruct((1, k, *more), jnp.uint8 if more else jnp.int32)

  def temporaries(budget):
    asked = count(layout.size, budget)
    args = shape(kept, layout.channels), shape(kept), shape(asked)
    params = jax.eval_shape(model.init, jax.random.key(0), *args)
    loss = lambda params, *args: jnp.square(model.apply(params, *args)).sum()
    compiled = jax.jit(jax.grad(loss)).lower(params, *args).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  measured = {budget: temporaries(budget) for budget in (1.0, 0.5, 0.3, 0.15)}
  print({budget: f"{size / 2**30:.2f} GiB" for budget, size in measured.items()})
  assert measured[0.15] <= measured[1.0] / 4
