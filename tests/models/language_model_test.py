import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models.language_model import Cache, LanguageConfig, LanguageModel
from vfe.nn.blocks import Execution
from vfe.nn.rotary import Rope

# All that the families have: windows and two ropes, four norms, norms of queries, both caps.
CONFIG = LanguageConfig.of(
  "test", 24, windows=(3, 3, 0), rope=Rope(500.0), rope_local=Rope(20.0), qk_norm=True,
  sandwich=True, plus_one=True, embed_scale=2.0, activation="gelu_tanh", cap=20.0, logit_cap=8.0,
)  # fmt: skip
IDS = np.random.default_rng(0).integers(0, 24, (2, 9)).astype(np.int32)
ALL = np.ones((2, 9), bool)


@pytest.fixture(scope="module")
def params():
  """Uneven ones."""
  shapes = jax.eval_shape(LanguageModel(CONFIG).init, jax.random.key(0), IDS, ALL)["params"]
  random = np.random.default_rng(1)
  draw = lambda leaf: random.normal(scale=0.4, size=leaf.shape).astype(np.float32)
  return jax.tree.map(draw, shapes)


@pytest.fixture(scope="module")
def whole():
  return jax.jit(lambda params, *inputs: LanguageModel(CONFIG).apply({"params": params}, *inputs))


@pytest.fixture(scope="module")
def read():
  """Called as `LanguageModel.read`, with params first."""
  apply = LanguageModel(CONFIG).apply
  return jax.jit(lambda params, *of: apply({"params": params}, *of, method="read"))


def test_no_word_sees_a_later_one(params, whole):
  other = IDS.copy()
  other[:, 5] = (other[:, 5] + 1) % 24
  a, b = (np.asarray(whole(params, of, ALL)) for of in (IDS, other))
  np.testing.assert_array_equal(a[:, :5], b[:, :5])
  assert (np.abs(a - b).max(-1) > 1e-3)[:, 5:].all()


def test_windows_limit_what_a_word_sees(params):
  """Three layers of two words: the first reaches no further than the fourth."""
  config = dataclasses.replace(CONFIG, windows=(2, 2, 2))
  run = jax.jit(LanguageModel(config).apply)
  other = IDS.copy()
  other[:, 0] = (other[:, 0] + 1) % 24
  a, b = (np.asarray(run({"params": params}, of, ALL)) for of in (IDS, other))
  np.testing.assert_array_equal(a[:, 4:], b[:, 4:])
  assert np.abs(a - b)[:, 3].max() > 1e-6


def test_padding_changes_nothing_on_either_side(params, whole):
  """Of 9 places, words at 3 to 8 or at 0 to 5."""
  left, right = np.arange(9) >= 3, np.arange(9) < 6
  rows = np.stack([np.where(left, np.roll(IDS[0], 3), 7), np.where(right, IDS[0], 5)])
  found = whole(params, rows, np.stack([left, right]))
  np.testing.assert_allclose(found[0, 3:], found[1, :6], atol=1e-5)


def test_reading_in_parts_is_reading_at_once(params, whole, read):
  """Rows of 4 and 2 words at first, then of 2 and 4, with numbers that mean nothing between."""
  cache, expected = Cache.empty(CONFIG, 2, 12, "float32"), whole(params, IDS, ALL)
  done = np.zeros(2, int)
  for count in ((4, 2), (2, 4), (1, 1), (2, 2)):
    part = np.zeros((2, 4), np.int32)
    for row, n in enumerate(count):
      part[row, :n] = IDS[row, done[row] : done[row] + n]
    logits, cache = read(params, part, np.asarray(count, np.int32), cache)
    done += count
    np.testing.assert_allclose(logits, expected[np.arange(2), done - 1], atol=1e-5)
  assert cache.length.tolist() == [9, 9]


def test_more_words_than_slots(params, read):
  with pytest.raises(UserError, match="9 words do not go into a cache of 4"):
    read(params, IDS, np.full(2, 9, np.int32), Cache.empty(CONFIG, 2, 4, "float32"))


def test_bfloat16_gives_float32_logits_nearby(params, whole):
  module = LanguageModel(CONFIG, Execution(dtype="bfloat16"))
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
  found = jax.jit(module.apply)({"params": half}, IDS, ALL)
  assert found.dtype == jnp.float32
  assert np.abs(found - whole(params, IDS, ALL)).mean() < 0.1


def test_gradients_reach_everything_and_padding_makes_no_nans(params):
  """Also of a row that is all padding, with layers computed again."""
  module, mask = LanguageModel(CONFIG, Execution(remat="full")), ALL & (np.arange(2) < 1)[:, None]

  def loss(params, ids, mask):
    logp = jax.nn.log_softmax(module.apply({"params": params}, ids, mask)[:, :-1])
    found = jnp.take_along_axis(logp, ids[:, 1:, None], axis=2)[:, :, 0]
    return -jnp.sum(found * mask[:, 1:])

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params, IDS, mask)):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_the_config_goes_through_json():
  again = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
  assert LanguageConfig.from_dict(again) == CONFIG


def test_windows_of_another_depth():
  with pytest.raises(UserError, match="2 windows, but a language model of 3 layers"):
    LanguageConfig.of("test", 24, windows=(1, 2))


# As the published folders have them, without what decides nothing here.
GEMMA = dict(
  model_type="gemma3_text", head_dim=256, num_attention_heads=4, num_key_value_heads=1,
  sliding_window=512, rope_theta=1000000, rope_local_base_freq=10000, vocab_size=262144,
  query_pre_attn_scalar=256, hidden_activation="gelu_pytorch_tanh", rope_scaling=None,
)  # fmt: skip
LLAMA = dict(
  hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
  num_key_value_heads=8, head_dim=64, rope_theta=500000.0, vocab_size=128256,
  tie_word_embeddings=True, rms_norm_eps=1e-5, hidden_act="silu", model_type="llama",
  rope_scaling=dict(
    factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, rope_type="llama3",
    original_max_position_embeddings=8192,
  ),
)  # fmt: skip
PUBLISHED = {
  "Gemma 3 270M": (268_098_176, GEMMA | dict(
    hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
  )),
  "Gemma 3 1B": (999_885_952, GEMMA | dict(
    hidden_size=1152, intermediate_size=6912, num_hidden_layers=26,
  )),
  "Llama 3.2 1B": (1_235_814_400, LLAMA),
  "SmolLM2 135M": (134_515_008, dict(
    model_type="llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, rope_theta=100000, vocab_size=49152,
    tie_word_embeddings=True,
  )),
  "Qwen3 0.6B": (596_049_920, dict(
    model_type="qwen3", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
    num_attention_heads=16, num_key_value_heads=8, head_dim=128, rope_theta=1000000,
    vocab_size=151936, tie_word_embeddings=True, use_sliding_window=False, sliding_window=None,
  )),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_as_many_parameters(name):
  count, config = PUBLISHED[name]
  module = LanguageModel(LanguageConfig.from_hugging_face(config))
  shapes = jax.eval_shape(module.init, jax.random.key(0), IDS, ALL)["params"]
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_every_sixth_layer_of_gemma_sees_all():
  config = LanguageConfig.from_hugging_face(PUBLISHED["Gemma 3 270M"][1])
  assert config.windows == (512, 512, 512, 512, 512, 0) * 3
  assert (config.rope.base, config.rope_local.base) == (1e6, 1e4)


def test_a_rope_is_said_in_two_ways():
  """By transformers 4 and 5."""
  rope = LLAMA["rope_scaling"] | {"rope_theta": LLAMA["rope_theta"]}
  newer = {k: v for k, v in LLAMA.items() if not k.startswith("rope")} | {"rope_parameters": rope}
  assert LanguageConfig.from_hugging_face(newer) == LanguageConfig.from_hugging_face(LLAMA)
  assert LanguageConfig.from_hugging_face(newer).rope == Rope(5e5, "llama3", 32.0, 1.0, 4.0, 8192)


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"model_type": "mamba"}, "model_type='mamba' is no language model that can be read"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type 'yarn' .only default, linear, llama3. is"),
    ({"rope_scaling": {"rope_type": "linear"}}, "no factor of rope_type 'linear'"),
    ({"attention_bias": True}, "attention_bias=True is not supported"),
    ({"hidden_act": "relu"}, "activation 'relu' .* is not supported"),
    ({"hidden_size": None}, "no hidden_size in it"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
  ],
)
def test_what_we_have_no_model_for(changes, said):
  with pytest.raises(UserError, match=f"config.json: {said}"):
    LanguageConfig.from_hugging_face(LLAMA | changes)
