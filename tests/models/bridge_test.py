"""A language model that looks at something: bridge, generation, likelihood."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models.bridge import Bridge, BridgeConfig
from vfe.models.generation import Choice, generate
from vfe.models.language_model import Cache, LanguageConfig, LanguageModel
from vfe.nn.blocks import Between

WORDS = LanguageConfig.of("test", 24)  # three layers
BRIDGE = BridgeConfig(WORDS.width, WORDS.depth, inputs=6, every=1, heads=2, head_dim=4, mlp=16)
RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(1, 24, (2, 7)), jnp.int32)
MASK = jnp.arange(7) < jnp.array([[7], [5]])
VISUAL = jnp.asarray(RNG.standard_normal((2, 5, 6)), jnp.float32)
THERE = jnp.ones((2, 5), bool)


def uneven(shapes, seed):
  draw = np.random.default_rng(seed)
  make = lambda leaf: jnp.asarray(draw.normal(scale=0.4, size=leaf.shape), jnp.float32)
  return jax.tree.map(make, shapes)


@pytest.fixture(scope="module")
def language():
  shapes = jax.eval_shape(LanguageModel(WORDS).init, jax.random.key(0), IDS, MASK)
  return uneven(shapes["params"], 1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def config(request):
  """In front of every layer, of every second (the last group is shorter), of the first only."""
  return dataclasses.replace(BRIDGE, every=request.param)


def bridge_of(config, seed=2):
  return uneven(jax.eval_shape(Bridge(config).init, jax.random.key(0)), seed)


def logits(language, config, bridge, visual=VISUAL, there=THERE):
  def run(language, bridge, visual, there):
    between = Bridge(config).between(bridge, visual, there)
    return LanguageModel(WORDS).apply({"params": language}, IDS, MASK, between)

  return np.asarray(jax.jit(run)(language, bridge, visual, there))


@pytest.fixture(scope="module")
def alone(language):
  return np.asarray(jax.jit(LanguageModel(WORDS).apply)({"params": language}, IDS, MASK))


def test_at_first_the_language_model_is_exactly_itself(language, config, alone):
  fresh = jax.jit(Bridge(config).init)(jax.random.key(3))
  found = logits(language, config, fresh)
  np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


def test_a_bridge_looks_before_every_nth_block(language, config):
  """Against the same work done one block after another."""
  bridge = bridge_of(config)
  between = Bridge(config).between(bridge, VISUAL, THERE)
  assert jax.tree.leaves(between.layers)[0].shape[0] == config.layers

  def by_hand(tokens, places, layers, params):
    stack = LanguageModel(WORDS)._stack()
    one = dataclasses.replace(stack, depth=1)
    for i in range(WORDS.depth):
      if i % config.every == 0:
        own = jax.tree.map(lambda leaf, i=i: leaf[i // config.every], between.layers)
        tokens = between.run(tokens, own)
      part = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], (layers, params))
      tokens = one.apply_with(*part, tokens, places)[0]
    return tokens

  found = logits(language, config, bridge)
  wanted = _logits_by(by_hand, language)
  np.testing.assert_allclose(found[MASK], wanted[MASK], rtol=2e-4, atol=2e-4)


def _logits_by(blocks, language):
  from vfe.models.language_model import per_layer
  from vfe.nn.decoder import Layer, by_mask

  model = LanguageModel(WORDS).bind({"params": language})
  layers = Layer(*per_layer(WORDS), None)
  tokens = blocks(model.embed(IDS), by_mask(MASK), layers, language["blocks"])
  return np.asarray(model.logits(tokens))


def test_what_is_not_there_is_not_looked_at(language):
  bridge, there = bridge_of(BRIDGE), THERE.at[:, 3:].set(False)
  changed = VISUAL.at[:, 3:].add(5.0)
  a, b = (logits(language, BRIDGE, bridge, of, there) for of in (VISUAL, changed))
  np.testing.assert_array_equal(a, b)
  assert np.abs(a - logits(language, BRIDGE, bridge)).max() > 1e-3


def test_another_video_gives_other_words_likelihood(language):
  bridge = bridge_of(BRIDGE)
  a, b = logits(language, BRIDGE, bridge), logits(language, BRIDGE, bridge, VISUAL[::-1])
  assert np.abs(a - b)[MASK].max() > 1e-2


def test_likelihood_is_that_of_the_logits(language, monkeypatch):
  """In parts of three words too, which do not divide the six that are predicted after the first."""
  bridge = bridge_of(BRIDGE)
  log = np.asarray(jax.nn.log_softmax(logits(language, BRIDGE, bridge)))
  wanted = np.take_along_axis(log[:, :-1], IDS[:, 1:, None], axis=-1)[:, :, 0]
  wanted = np.where(MASK[:, 1:], wanted, 0.0)
  between = Bridge(BRIDGE).between(bridge, VISUAL, THERE)
  for part in (32, 4):
    monkeypatch.setattr("vfe.models.language_model.WORDS", part)
    run = lambda *of: LanguageModel(WORDS).apply(
      {"params": language}, *of, between, method="log_likelihood"
    )
    found = np.asarray(run(IDS, MASK))
    assert (found[:, 0] == 0).all()
    np.testing.assert_allclose(found[:, 1:], wanted, rtol=1e-4, atol=1e-4)


def test_rows_of_one_video_share_its_keys(language):
  """Options of a question: three texts to each of two videos."""
  bridge = bridge_of(BRIDGE)
  ids = jnp.stack([IDS, (IDS + 1) % 24, (IDS + 2) % 24], axis=1)
  mask = jnp.broadcast_to(MASK[:, None], ids.shape)
  score = lambda ids, mask, visual: LanguageModel(WORDS).apply(
    {"params": language}, ids, mask, Bridge(BRIDGE).between(bridge, visual, THERE[: len(visual)]),
    method="log_likelihood",
  )  # fmt: skip
  together = score(ids.reshape(6, 7), mask.reshape(6, 7), VISUAL).reshape(2, 3, 7)
  for row in range(2):
    for option in range(3):
      one = score(ids[row, option][None], mask[row, option][None], VISUAL[row : row + 1])
      np.testing.assert_allclose(together[row, option], one[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_is_that_without(language, beams):
  """Greedy words are the most likely ones; the score is their likelihood, of beams as well."""
  bridge = bridge_of(BRIDGE)
  between = Bridge(BRIDGE).between(bridge, VISUAL, THERE)
  choice = Choice(words=5, beams=beams)

  def write(language):
    run = lambda *of: LanguageModel(WORDS).apply({"params": language}, *of, between, method="read")
    return generate(run, Cache.empty(WORDS, 2, 12, "float32"), IDS, MASK, choice)

  written = jax.jit(write)(language)
  for row in range(2):
    prompt = IDS[row][MASK[row]]
    ids = jnp.concatenate([prompt, written.ids[row]])[None]
    own = Bridge(BRIDGE).between(bridge, VISUAL[row : row + 1], THERE[:1])
    model = LanguageModel(WORDS)
    log = np.asarray(jax.nn.log_softmax(model.apply({"params": language}, ids, ids > -1, own)))[0]
    if beams == 1:
      np.testing.assert_array_equal(log[len(prompt) - 1 : -1].argmax(-1), ids[0, len(prompt) :])
    score = log[np.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]].sum()
    np.testing.assert_allclose(written.score[row], score, rtol=1e-4)


def test_bad_shapes_are_refused():
  with pytest.raises(UserError, match="bridge every=4: the language model has 3 layers"):
    dataclasses.replace(BRIDGE, every=4)


def test_depth_does_not_show_in_the_program():
  """Six layers of a language model with a bridge, and twelve: as many operations."""
  counts = []
  for depth in (6, 12):
    words = LanguageConfig.of("test", 24, depth=depth, windows=(0,) * depth)
    config = dataclasses.replace(BRIDGE, depth=depth, every=2)

    def run(language, bridge, words=words, config=config):
      between: Between = Bridge(config).between(bridge, VISUAL, THERE)
      return LanguageModel(words).apply({"params": language}, IDS, MASK, between)

    shapes = jax.eval_shape(LanguageModel(words).init, jax.random.key(0), IDS, MASK)["params"]
    bridge = jax.eval_shape(Bridge(config).init, jax.random.key(0))
    counts.append(jax.jit(run).lower(shapes, bridge).as_text().count("stablehlo."))
  assert counts[0] == counts[1]
