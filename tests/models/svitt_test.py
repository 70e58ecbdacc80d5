"""SViTT's networks together: what is pooled, which column is a match, how many tokens arrive."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models.frozen import first_tokens
from vfe.models.matching import matching_loss
from vfe.models.svitt import Svitt, SvittConfig
from vfe.models.text import TextConfig
from vfe.models.vivit import EncoderConfig
from vfe.tokens.edges import Edges
from vfe.tokens.pruning import Pruning

VISION = EncoderConfig.of("test", 2, 16, (1, 8, 8), positions="relative", cls=True)
SMALL = SvittConfig(VISION, TextConfig.of("test", 20), 8, fused=1, pruning=None)
VIDEO = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 32)), jnp.float32)


def shapes(config):
  patches, chosen = first_tokens(config.vision.layout)
  words = jnp.zeros((1, 4), jnp.int32)
  of = jax.eval_shape(Svitt(config).init, jax.random.key(0), patches, chosen, words, words == 0)
  return of["params"]


def test_a_clip_is_its_class_token_or_the_norm_of_the_mean_of_the_others():
  of_cls = Svitt(SMALL).apply({"params": {"log_scale": 1.0}}, VIDEO, method="pooled")
  np.testing.assert_array_equal(of_cls, VIDEO[:, 0])
  by_mean = dataclasses.replace(SMALL, pool="mean")
  scale, bias = jnp.arange(32) / 8, jnp.ones(32)
  params = {"log_scale": 1.0, "pool_norm": {"scale": scale, "bias": bias}}
  mean = VIDEO[:, 1:].mean(1)
  normed = (mean - mean.mean(-1, keepdims=True)) / mean.std(-1, keepdims=True)
  found = Svitt(by_mean).apply({"params": params}, VIDEO, method="pooled")
  np.testing.assert_allclose(found, normed * scale + bias, atol=1e-4)


def test_what_trains_to_match_raises_the_second_logit():
  fused = jnp.ones((3, 2, 32))

  def loss(head):
    params = {"log_scale": 1.0, "matching_head": head}
    match = lambda fused: Svitt(SMALL).apply({"params": params}, fused, method="match")
    wrong = -fused
    return matching_loss(match(fused), match(wrong), match(wrong), jnp.ones(3, bool))[0]

  head = {"kernel": jnp.zeros((32, 2)), "bias": jnp.zeros(2)}
  step = jax.jit(jax.grad(loss))(head)
  trained = {"log_scale": 1.0, "matching_head": jax.tree.map(lambda p, g: p - g, head, step)}
  logits = Svitt(SMALL).apply({"params": trained}, fused, method="match")
  assert logits.dtype == jnp.float32 and (logits[:, 1] > logits[:, 0] + 1).all()


def test_of_270_tokens_of_a_clip_27_reach_the_last_layer():
  """The paper's sizes: 784 tokens enter, 0.7 go on three times, a tenth after the second of the
  three fused layers; the class token always."""
  vision = EncoderConfig.of(
    "b", 4, 224, (1, 16, 16), positions="relative", layer_scale=0.1, cls=True, pixels="half",
    edges=Edges(1, 3, 56), pruning=Pruning(),
  )  # fmt: skip
  config = SvittConfig(vision, TextConfig.of("base", 100))
  params, model = shapes(config), Svitt(config)
  assert vision.pruning.counts(784, 12)[::3] == (784, 784, 549, 385)

  def read(params, patches, ids):
    chosen = jnp.broadcast_to(jnp.arange(784, dtype=jnp.int32), patches.shape[:2])
    run = lambda *inputs, **how: model.apply({"params": params}, *inputs, **how)
    video = run(patches, chosen, method="tokens_of_video")
    words = run(ids, ids > 0, method="tokens_of_text")
    fused, sown = run(words, ids > 0, video, method="fuse", mutable=["intermediates"])
    return video, words, fused, sown["intermediates"]["text"]["kept_of_video"]

  patches, ids = (jax.ShapeDtypeStruct(*of) for of in (((2, 784, 768), jnp.uint8), ((2, 30), int)))
  video, words, fused, kept = jax.eval_shape(read, params, patches, ids)
  assert video.shape == (2, 1 + 270, 768)
  assert words.shape == fused.shape == (2, 30, 768)
  assert [of.shape for of in kept] == [(2, 27)]


def test_a_config_survives_json():
  config = dataclasses.replace(SMALL, pruning=Pruning((0,), 0.5), pool="mean")
  for of in (SMALL, config):
    assert SvittConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(of)))) == of


@pytest.mark.parametrize(
  "changes, said",
  [
    (dict(pool="max"), "model.pool"),
    (dict(pruning=Pruning((1,), 0.1)), "there are 1 layers"),
  ],
)
def test_what_cannot_be_is_said(changes, said):
  with pytest.raises(UserError) as error:
    dataclasses.replace(SMALL, **changes)
  assert said in str(error.value)
