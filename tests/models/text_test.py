import dataclasses
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.interop import bert
from vfe.models.text import TextConfig, TextEncoder, mean_of_tokens
from vfe.nn.blocks import Execution

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
IDS, MASK = runpy.run_path(str(GOLDEN / "make_hf_towers.py"))["texts"]()


@pytest.fixture(scope="module")
def read():
  """(config, params) of transformers' BERT."""
  _, model, params = bert.read_export(GOLDEN / "hf_towers" / "bert")
  return TextConfig.from_dict(model["text"]), params["text"]


@pytest.fixture(scope="module")
def encode(read):
  config, params = read
  run = jax.jit(TextEncoder(config).apply)
  return lambda ids, mask: np.asarray(run({"params": params}, jnp.asarray(ids), jnp.asarray(mask)))


def test_words_are_those_of_transformers(encode):
  """Of texts of 12, 7, 3 and 1 words; what padding becomes nobody uses."""
  golden = np.load(GOLDEN / "hf_towers" / "bert.npz")["tokens"]
  np.testing.assert_allclose(encode(IDS, MASK)[MASK], golden[MASK], atol=1e-4, rtol=1e-4)


def test_a_shorter_text_is_the_same_words(encode):
  golden = np.load(GOLDEN / "hf_towers" / "bert.npz")["tokens"]
  found = encode(IDS[1:2, :7], MASK[1:2, :7])
  np.testing.assert_allclose(found[0], golden[1, :7], atol=1e-4, rtol=1e-4)


def test_no_word_sees_padding(encode):
  other = np.where(MASK, IDS, 9)
  np.testing.assert_array_equal(encode(other, MASK)[MASK], encode(IDS, MASK)[MASK])
  assert not np.allclose(encode(other, np.ones_like(MASK))[MASK], encode(IDS, MASK)[MASK], atol=0.1)


def test_gradients_are_finite_also_of_a_row_without_words(read):
  config, params = read
  mask = jnp.asarray(MASK).at[2].set(False)

  def loss(params):
    tokens = TextEncoder(config).apply({"params": params}, jnp.asarray(IDS), mask)
    return jnp.square(mean_of_tokens(tokens, mask)).sum()

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  assert not grads["type"][1].any() and not grads["position"][12:].any()
  assert all(leaf.any() for leaf in jax.tree.leaves(grads["blocks"]))


def test_a_frozen_text_model_has_no_gradient(read):
  config, params = read
  frozen = TextEncoder(config, Execution(first_trained=config.depth))
  of = lambda p: frozen.apply({"params": p}, jnp.asarray(IDS), jnp.asarray(MASK)).sum()
  assert not any(leaf.any() for leaf in jax.tree.leaves(jax.jit(jax.grad(of))(params)))


def test_mean_is_over_the_words_in_float32():
  tokens = jnp.asarray(np.random.default_rng(0).standard_normal((4, 12, 5)), jnp.bfloat16)
  found = mean_of_tokens(tokens, jnp.asarray(MASK).at[2].set(False))
  assert found.dtype == jnp.float32
  for row, length in enumerate([12, 7, 0, 1]):
    expected = np.asarray(tokens, np.float32)[row, :length].sum(0) / max(length, 1)
    np.testing.assert_allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize("size", ["medium", "base"])
def test_sizes_are_berts(size):
  """google/bert_uncased_L-8_H-512_A-8 and bert-base-uncased, less keys' biases and the pooler."""
  one = jax.ShapeDtypeStruct((1, 4), jnp.int32), jax.ShapeDtypeStruct((1, 4), jnp.bool_)
  model = TextEncoder(TextConfig.of(size, 30522))
  shapes = jax.eval_shape(model.init, jax.random.key(0), *one)
  d, m, depth = model.config.width, model.config.mlp, model.config.depth
  layer = 4 * d * d + 3 * d + 2 * d * m + m + d + 4 * d
  expected = (30522 + 512 + 2) * d + 2 * d + depth * layer
  assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected
  assert expected + depth * d + d * d + d == {"medium": 41_373_184, "base": 109_482_240}[size]


def test_config_comes_back_from_json():
  config = TextConfig.of("test", 100, positions=20, norm_eps=1e-6)
  assert TextConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: TextConfig.of("tset", 100), "text size='tset' is unknown .*test"),
    (lambda: TextConfig.of("test", 100, heads=3), "width=32 is not divisible by heads=3"),
    (lambda: TextConfig.of("test", 100, activation="relu"), "text activation='relu'"),
    (
      lambda: jax.eval_shape(
        TextEncoder(TextConfig.of("test", 100, positions=8)).init,
        jax.random.key(0),
        jnp.asarray(IDS),
        jnp.asarray(MASK),
      ),
      "texts of 12 words, but the text model has 8 positions",
    ),
  ],
)
def test_what_does_not_fit_is_one_line_with_the_reason(make, message):
  with pytest.raises(UserError, match=message):
    make()
