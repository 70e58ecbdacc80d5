"""Poolings and heads on an encoder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.models.classifier import Classifier, TokenPool
from vfe.models.vivit import HEAD_EPS, EncoderConfig
from vfe.nn.blocks import Attention, Execution, Mlp
from vfe.tokens.tubelets import gather_tubelets

CONFIG = EncoderConfig.of("test", frames=8, size=16, tubelet=(2, 8, 8))
SELECTION = jnp.asarray([[0, 3, 9, 15], [1, 2, 4, 8]], jnp.int32)
VIDEO = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8))
PATCHES = gather_tubelets(VIDEO, CONFIG.layout, SELECTION)


@pytest.mark.parametrize("pool", ["mean", "class_attention", "attentive"])
def test_classifier_has_float32_logits_of_every_head(pool):
  model = Classifier(CONFIG, {"verb": 5, "noun": 3}, pool, Execution(dtype="bfloat16"))
  params = jax.jit(model.init)(jax.random.key(0), PATCHES, SELECTION)
  assert ("norm" in params["params"]["encoder"]) == (pool != "mean")
  logits = jax.jit(model.apply)(params, PATCHES, SELECTION)
  assert {name: (x.shape, x.dtype) for name, x in logits.items()} == {
    "verb": ((2, 5), jnp.float32),
    "noun": ((2, 3), jnp.float32),
  }
  # Heads start at VideoMAE's .02 * .001: every class is equally likely.
  assert all(np.abs(x).max() < 0.01 for x in logits.values())


def test_class_attention_is_over_the_tokens_and_itself():
  """Against the same layer written down: values are mixed by the learned token's own softmax."""
  tokens = jnp.asarray(np.random.default_rng(1).standard_normal((2, 6, 8)), jnp.float32)
  pool = TokenPool(heads=2, mlp=16, joins=True)
  params = jax.jit(pool.init)(jax.random.key(0), tokens)["params"]

  @jax.jit
  def written_down(params, tokens):
    bound = lambda name, module, *args: module.apply({"params": params[name]}, *args)
    layer_norm = lambda name, x: bound(name, nn.LayerNorm(HEAD_EPS), x)
    cls = jnp.broadcast_to(params["token"], (2, 1, 8))
    every = layer_norm("attention_norm", jnp.concatenate([cls, tokens], axis=1))
    cls += bound("attention", Attention(2), every)[:, :1]
    cls += bound("mlp", Mlp(16), layer_norm("mlp_norm", cls))
    return layer_norm("norm", cls)[:, 0]

  found = jax.jit(pool.apply)({"params": params}, tokens)
  np.testing.assert_allclose(found, written_down(params, tokens), atol=1e-5)


def test_a_mean_is_not_of_class_tokens():
  """What the heads see does not change when the class token's own output does."""
  config = EncoderConfig.of("test", 4, 16, (2, 8, 8), cls=True, depth=1)
  model = Classifier(config, {"label": 3})
  rng = np.random.default_rng(0)
  patches = jnp.asarray(rng.integers(0, 256, (1, 8, 384), np.uint8))
  chosen = jnp.arange(8)[None]
  params = jax.jit(model.init)(jax.random.key(0), patches, chosen)
  apply = jax.jit(functools.partial(model.apply, capture_intermediates=True))
  _, state = apply(params, patches, chosen)
  tokens = state["intermediates"]["encoder"]["__call__"][0]
  pooled = state["intermediates"]["pool"]["__call__"][0]
  mean = tokens[:, 1:].mean(1)
  expected = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-5)
  assert tokens.shape[1] == 9
  np.testing.assert_allclose(pooled, expected, atol=1e-5)
