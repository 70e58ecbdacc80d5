"""The formulas count what the real models do, to the operation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from vfe.learn.flops import flops as counted
from vfe.learn.paths import named_leaves
from vfe.learn.sharding import make_mesh
from vfe.models import flops
from vfe.models.classifier import Classifier
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.models.mae import MAE, Decoder, DecoderConfig
from vfe.models.svitt import Svitt, SvittConfig
from vfe.models.text import TextConfig, TextEncoder
from vfe.models.tokenizer import TokenizerConfig
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn.blocks import Execution
from vfe.stages.planned import planned
from vfe.tokens.edges import Edges
from vfe.tokens.pruning import Pruning
from vfe.tokens.tubes import tubevit
from vfe.train.program import program

XLA = Execution(attention="xla")  # no chunks, hence no padding to whole ones
KEPT, ASKED = 40, 60


def shape(*sizes, dtype="float32"):
  return jax.ShapeDtypeStruct(sizes, dtype)


def forward(module, *inputs):
  params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  return counted(module.apply, params, *inputs)


@pytest.fixture(params=["test", "s", "b", "l"])
def encoder(request):
  return request.param, EncoderConfig.of(request.param, frames=8, size=64, tubelet=(2, 8, 8))


def test_an_encoder(encoder):
  _, config = encoder
  patches = shape(1, KEPT, config.layout.channels, dtype="uint8")
  expected = forward(Encoder(config, XLA), patches, shape(1, KEPT, dtype="int32"))
  assert flops.encoder(config, KEPT) == expected


@pytest.mark.parametrize(
  "changes",
  [
    dict(mixing="frame", cls=True),
    dict(mixing="factorised"),
    dict(adapter=8),
    dict(lora=3),
    dict(cls=True),
  ],
  ids=str,
)
def test_an_encoder_of_another_kind(changes):
  config = EncoderConfig.of("test", frames=8, size=32, tubelet=(2, 8, 8), **changes)
  patches = shape(1, config.layout.size, config.layout.channels, dtype="uint8")
  places = shape(1, config.layout.size, dtype="int32")
  assert flops.encoder(config, config.layout.size) == forward(Encoder(config, XLA), patches, places)


def test_an_encoder_of_tubes():
  config = EncoderConfig.of("test", 16, 32, positions="sincos3d", tubes=tubevit(16, 8))
  for tokens in (config.layout.size, 13):
    patches = tuple(
      shape(1, count, tube.channels, dtype="uint8")
      for count, tube in zip(config.layout.shares(tokens), config.tubes, strict=True)
    )
    expected = forward(Encoder(config, XLA), patches, shape(1, tokens, dtype="int32"))
    assert flops.encoder(config, tokens) == expected


def test_a_text():
  config = TextConfig.of("test", 100)
  ids, mask = shape(1, 7, dtype="int32"), shape(1, 7, dtype="bool")
  assert flops.text(config, 7) == forward(TextEncoder(config, XLA), ids, mask)


def test_a_language_model_is_its_parameters_twice_a_word_and_its_attention():
  ids, mask = shape(1, 7, dtype="int32"), shape(1, 7, dtype="bool")
  for config in (LanguageConfig.of("demo", 100), LanguageConfig.of("test", 33, tied=False)):
    module = LanguageModel(config, XLA)
    params = named_leaves(jax.eval_shape(module.init, jax.random.key(0), ids, mask)["params"])
    kernels = sum(leaf.size for name, leaf in params.items() if name.endswith("kernel"))
    met = 4 * config.depth * 7**2 * config.heads * config.head_dim
    assert flops.language(config, 7) == 14 * (kernels + config.width * config.vocabulary) + met
    assert flops.language(config, 7) == forward(module, ids, mask)


def test_tuning_counts_forward_passes_of_what_is_frozen():
  config = EncoderConfig.of("test", frames=8, size=32, tubelet=(2, 8, 8))
  layout, one = config.layout, flops.layer(config, KEPT, config.layout)
  embedding = 2 * KEPT * layout.channels * config.width
  cost = functools.partial(flops.tuned_encoder, config, KEPT, layout)
  assert cost(first_trained=0, few=False) == 3 * flops.encoder(config, KEPT)
  assert cost(first_trained=2, few=False) == embedding + 2 * one + 3 * one
  few = dataclasses.replace(config, adapter=8)
  own = flops.mlp(KEPT, config.width, 8)
  assert flops.tuned_encoder(few, KEPT, layout, first_trained=0, few=True) == (
    3 * embedding + 3 * (2 * one + 3 * own)
  )


def test_a_decoder(encoder):
  size, config = encoder
  decoder = DecoderConfig.of(size)
  tokens = shape(1, KEPT, config.width)
  places = shape(1, KEPT, dtype="int32"), shape(1, ASKED, dtype="int32")
  expected = forward(Decoder(config, decoder, 6, XLA), tokens, *places)
  assert flops.decoder(config, decoder, 6, KEPT, ASKED) == expected


@pytest.mark.parametrize("pool", ["mean", "class_attention", "attentive"])
def test_a_classifier(pool):
  config, classes = EncoderConfig.of("test", frames=8, size=64), {"verb": 97, "noun": 300}
  patches = shape(1, KEPT, config.layout.channels, dtype="uint8")
  module = Classifier(config, classes, pool, XLA)
  expected = forward(module, patches, shape(1, KEPT, dtype="int32"))
  parts = flops.encoder(config, KEPT), flops.pooling(config, pool, KEPT)
  assert sum(parts) + flops.heads(config, classes) == expected


def test_a_layer_takes_24nd2_plus_4n2d():
  config = EncoderConfig.of("b", frames=128, size=224)
  n, d = 627, 768
  assert flops.blocks(config, n) == 12 * (24 * n * d**2 + 4 * n**2 * d)


def test_training_is_three_times_forward_but_for_the_gradient_of_the_pixels():
  config, decoder = EncoderConfig.of("test", frames=8, size=64), DecoderConfig.of("test")
  module = MAE(config, decoder, 6, XLA)
  patches = shape(1, KEPT, config.layout.channels, dtype="uint8")
  places = shape(1, KEPT, dtype="int32"), shape(1, ASKED, dtype="int32")
  params = jax.eval_shape(module.init, jax.random.key(0), patches, *places)
  loss = lambda *inputs: jnp.sum(jnp.square(module.apply(*inputs)))
  whole = flops.encoder(config, KEPT) + flops.decoder(config, decoder, 6, KEPT, ASKED)
  of_pixels = 2 * KEPT * config.layout.channels * config.width
  found = counted(jax.grad(loss), params, patches, *places)
  assert found == flops.TRAINED * whole - of_pixels


def test_one_convolution_of_the_tokenizer_is_counted_as_published():
  config = TokenizerConfig(
    filters=4, multipliers=(1, 1), temporal_downsample=(True,), res_blocks=0, window=4,
    scorer_channels=(4, 4),
  )  # fmt: skip
  pixels, tokens = 4 * 16 * 16, 2 * 8 * 8
  found = flops.tokenizer(config, 16)
  assert found["encode"] == 2 * pixels * 27 * 3 * 4 + 2 * tokens * 4 * config.channels
  assert flops.targets(config, 12, 16) == 3 * (found["encode"] + found["importance"])


CHANGES = {"model.remat": "none", "model.attention": "xla", "tokenizer.model.remat_stages": 0}
MESH = make_mesh({"data": -1})
INLINE = {"pretrain.inputs.targets": "", "pretrain.inputs.tokenizer": "tokenizer"}
PROBE = {"finetune.freeze": True, "finetune.pool": "mean"}


@pytest.mark.parametrize(
  "name,changes", [("pretrain", {}), ("pretrain", INLINE), ("finetune", {}), ("finetune", PROBE)]
)
def test_a_step_does_what_the_model_asks_for_and_no_more(tiny, name, changes):
  stage = planned(tiny(CHANGES | changes), name, MESH)
  of_pixels = 0  # no step computes their gradient
  if changes is not PROBE:
    of_pixels = 2 * stage.tokens() * stage.layout.channels * stage.encoder.width
  made = program(stage)
  found = counted(made.step, made.state, made.frozen, made.batch)
  assert found == stage.model_flops() - stage.config.batch * of_pixels


def test_a_gan_step_does_what_the_models_ask_for(tiny):
  """Within 2 %: without the pixels' gradient, with the zeros that a strided one's is spread by."""
  stage = planned(tiny(CHANGES), "tokenizer", MESH)
  made = program(stage)
  found = counted(made.step, made.state, made.frozen, made.batch)
  assert found == pytest.approx(stage.model_flops(), rel=0.02)


def test_what_is_computed_again_is_no_part_of_it(tiny):
  of = lambda remat: planned(tiny(CHANGES | {"model.remat": remat}), "pretrain", MESH)
  assert of("full").model_flops() == of("none").model_flops()


def test_the_whole_batch_is_counted(tiny):
  of = functools.partial(planned, name="pretrain", mesh=MESH)
  large = {"pretrain.batch": 16, "pretrain.accumulate": 2}
  assert of(tiny(large)).model_flops() == 2 * of(tiny()).model_flops()


def test_svitt_by_edges_and_with_tokens_that_do_not_go_on():
  """To a hundredth: the CLS's row is computed apart, and its scores once more."""
  vision = EncoderConfig.of(
    "s", 4, 64, (1, 8, 8), positions="relative", layer_scale=0.1, cls=True,
    edges=Edges(1, 3, 16), pruning=Pruning((3, 6), 0.5),
  )  # fmt: skip
  config = SvittConfig(vision, TextConfig.of("medium", 1000), 64, 2, pruning=None)
  patches = shape(1, 256, vision.layout.channels, dtype="uint8")
  words = shape(1, 32, dtype="int32"), shape(1, 32, dtype="bool")
  found = forward(Svitt(config, XLA, XLA), patches, shape(1, 256, dtype="int32"), *words)
  asked = flops.svitt(config, 32, texts=1, read=1, words=True)
  assert abs(found / asked - 1) < 0.01
