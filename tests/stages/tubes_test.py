"""Contrastive training on tubes: from images by the flat kernel to clips by all four."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.flops import flops as counted
from vfe.learn.sharding import make_mesh
from vfe.models import flops
from vfe.stages import towers
from vfe.stages.planned import planned
from vfe.tokens.tubes import tubevit

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = make_mesh(None, jax.devices()[:1])
SMALL = {
  "model.tubes": "tubevit",
  "model.size": "test",
  "model.text": "test",
  "model.attention": "xla",  # no chunks, hence no padding to whole ones
  "vocabulary.size": 64,
  "data.text.length": 6,
  "short.batch": 8,
  "long.data.frames": 32,
}


@functools.cache
def recipe():
  path = ROOT / "configs" / "longvivit_256.py"
  spec = importlib.util.spec_from_file_location("longvivit_256", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def stage(name, changes=None):
  config = recipe().get_config("demo")
  config.update_from_flattened_dict(SMALL | (changes or {}))
  return planned(config, name, ONE)


@pytest.fixture(scope="module")
def short():
  return stage("short")


def test_each_stage_has_the_kernels_of_its_clips(short):
  image, long = stage("image").vision, stage("long").vision
  assert image.tubes == tubevit(1, 8) and not image.images
  assert short.vision.tubes == tubevit(16, 8) and short.vision.images
  assert long.tubes == tubevit(32, 8) and long.positions == "sincos3d"
  assert short.vision.layout.size == 28 and short.tokens() == 14  # half of them dropped


def test_a_step_computes_what_is_counted(short):
  """Images by the flat kernel's embedding alone; besides the towers there are projections."""
  shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
  params = jax.eval_shape(short.init, jax.random.key(0))["model"]
  batch = jax.tree.map(shape, short.batch_shapes())
  embed = lambda params, batch: short.embed(params, batch, jax.random.key(0))
  found = jax.eval_shape(embed, params, batch)
  assert {name: part["video"].shape for name, part in found.items()} == {
    "videos": (4, 64), "images": (4, 64)
  }  # fmt: skip
  vision, text = short.vision, flops.text(short.dual.text, 6)
  parts = [(14, vision.layout), (8, vision.image_layout)]
  towers_ = sum(
    flops.embedding(vision, tokens, layout) + vision.depth * flops.layer(vision, tokens, layout)
    for tokens, layout in parts
  )
  projections = 2 * 2 * 64 * (vision.width + short.dual.text.width)
  assert counted(embed, params, batch) == 4 * (towers_ + 2 * text + projections)
  assert short.model_flops() == flops.TRAINED * 4 * (towers_ + 2 * text)


def test_the_short_stage_begins_with_the_image_stages_kernel(short):
  image = short.setting.inputs["encoder"]
  draw = lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype)
  object.__setattr__(image, "params", jax.tree.map(draw, image.params))
  object.__setattr__(short.setting.inputs["text"], "params", image.params)
  found = towers.warm(short.setting, short.config, short.dual)["vision"]
  flat = image.params["vision"]["embed_0"]["kernel"]
  np.testing.assert_array_equal(found["embed_3"]["kernel"], flat)
  wanted = jax.eval_shape(short.init, jax.random.key(0))["model"]["vision"]
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(found) == shapes(wanted)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"model.tubes": "tubevitt"}, "did you mean tubevit|nearest: tubevit"),
    ({"short.mask.kind": "tube"}, "tubes are dropped at random only"),
    ({"model.mixing": "factorised"}, "they lie in no grid"),
  ],
)
def test_what_cannot_be_is_named(changes, message):
  with pytest.raises(UserError, match=message):
    stage("short", changes)
