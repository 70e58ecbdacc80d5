"""The contrast stage takes the step that the paper describes, of what it says that it trains."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.paths import named_leaves
from vfe.learn.sharding import make_mesh
from vfe.stages.planned import planned
from vfe.train.program import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = make_mesh(None, jax.devices()[:1])
SMALL = {
  "model.size": "test",
  "model.text": "test",
  "model.joint": 16,
  "vocabulary.size": 64,
  "data.text.length": 6,
  "short.batch": 16,
  "image.batch": 16,
  "long.batch": 8,
  "long.data.frames": 32,
  "long.data.text.length": 8,
}


@functools.cache
def recipe():
  path = ROOT / "configs" / "longvivit_256.py"
  spec = importlib.util.spec_from_file_location("longvivit_256", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def stage(name, changes=None, mesh=ONE):
  config = recipe().get_config("demo")
  config.update_from_flattened_dict(SMALL | (changes or {}))
  return planned(config, name, mesh)


def batch_of(made, seed=0):
  """Rows of noise, the last one not valid."""
  rng = np.random.default_rng(seed)
  batch = {}
  for name, part in made.batch_shapes().items():
    rows, words = part["text"]["ids"].shape
    lengths = rng.integers(3, words + 1, rows)
    mask = np.arange(words) < lengths[:, None]
    batch[name] = {
      "video": rng.integers(0, 256, part["video"].shape, np.uint8),
      "row": np.arange(rows, dtype=np.int32),
      "valid": np.arange(rows) < rows - 1,
      "text": {"ids": rng.integers(5, 64, (rows, words)).astype(np.int32) * mask, "mask": mask},
      "label": {head: np.zeros(rows, np.int32) for head in part["label"]},
    }
  return batch


class Run:
  """The real program of a stage, compiled once, and a state before it: parameters drawn here, which
  nothing is compiled for, and 0 for all the rest."""

  def __init__(self, made, mesh=ONE):
    self.mesh = mesh
    with jax.set_mesh(mesh):
      self.program = program(made)
      self.compiled = self.program.compile()
    draw = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.program.state)
    group = state.groups["model"]
    drawn = lambda leaf: draw.normal(scale=0.1, size=leaf.shape).astype(leaf.dtype)
    group = group.replace(params=jax.tree.map(drawn, group.params))
    self.before = state.replace(groups={"model": group})

  def __call__(self, batch, steps=1):
    """The state after some steps on the batch, and the metrics of the last."""
    with jax.set_mesh(self.mesh):
      state = jax.device_put(self.before, self.program.layout)
      batch = jax.device_put(batch, jax.tree.map(lambda leaf: leaf.sharding, self.program.batch))
      for _ in range(steps):
        state, metrics = self.compiled(state, {}, batch)
    return jax.tree.map(np.asarray, (state, metrics))


def params(state):
  return named_leaves(state.groups["model"].params)


@pytest.fixture(scope="module")
def short():
  made = stage("short")
  run = Run(made)
  return made, run, *run(batch_of(made))


def test_images_and_videos_are_of_one_step_each_with_its_own_embedding(short):
  made, run, after, metrics = short
  assert made.inputs()["images"].spec.frames == 1 and made.inputs()["videos"].spec.frames == 16
  assert {"images/loss", "videos/loss", "scale", "videos/top1/text_to_video"} <= set(metrics)
  before = params(run.before)
  moved = {name for name, leaf in params(after).items() if np.any(leaf != before[name])}
  assert moved >= {"vision/embed/kernel", "vision/embed_image/kernel", "vision/position"}
  assert moved >= {"log_scale", "text/word/embedding"}


def test_a_row_that_is_not_valid_is_nobodys_negative(short):
  made, run, _, metrics = short
  batch = batch_of(made)
  for part in batch.values():
    part["video"][-1] = 0
    part["text"]["mask"][-1] = False
  _, found = run(batch)
  np.testing.assert_allclose(found["loss"][0], metrics["loss"][0], rtol=1e-5)


def test_four_devices_in_two_parts_take_the_step_of_one(short):
  """The loss is the global batch's, however it is cut over devices and over time."""
  mesh = make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4])
  whole, cut = stage("image"), stage("image", {"image.accumulate": 2}, mesh)
  batch = batch_of(whole)
  (one, metrics), (other, found) = Run(whole)(batch), Run(cut, mesh)(batch)
  for name in ("loss", "norm/model_gradient", "images/top1/text_to_video"):
    name = name.replace("images", "videos")
    np.testing.assert_allclose(found[name][0], metrics[name][0], rtol=1e-4, err_msg=name)
  moments = lambda state: named_leaves(state.groups["model"].opt_state)
  for name, leaf in moments(other).items():
    np.testing.assert_allclose(leaf, moments(one)[name], rtol=2e-3, atol=2e-6, err_msg=name)


@pytest.fixture(scope="module")
def last():
  """The long stage, of which one layer trains."""
  made = stage("long", {"long.last_layers": 1, "long.mask.ratio": 0.75})
  return made, Run(made)


def test_the_last_layers_train_and_nothing_else_of_the_towers(last):
  made, run = last
  before, after = params(run.before), params(run(batch_of(made), steps=2)[0])
  moved = {
    name: np.any(leaf != before[name], axis=tuple(range(1, leaf.ndim)))
    for name, leaf in after.items()
  }
  blocks = {name for name in moved if name.startswith("vision/blocks/")}
  assert all(moved[name].tolist() == [False, False, True] for name in blocks)
  rest = {name for name in moved if name not in blocks and np.any(moved[name])}
  assert rest == {
    "vision/norm/scale", "vision/norm/bias", "vision_projection/kernel", "log_scale",
  }  # fmt: skip


@pytest.mark.parametrize(
  "changes, tokens",
  [
    ({"short.mask.ratio": 0.75}, 32),
    ({"short.mask.ratio": 0.75, "short.mask.kind": "tube"}, 32),
    ({"short.mask.ratio": 0.75, "short.mask.kind": "frame"}, 32),
    ({"short.mask.ratio": 0.0}, 128),
    ({"short.mask.ratio": 0.75, "model.mixing": "factorised"}, 32),
    ({"short.mask.ratio": 0.75, "model.mixing": "frame", "model.cls": True}, 32),
  ],
  ids=str,
)
def test_what_is_dropped_never_enters(changes, tokens):
  made = stage("short", changes)
  assert made.tokens() == tokens
  shapes = jax.eval_shape(made.init_state, jax.random.key(0)).groups["model"].params
  embedded = jax.eval_shape(made.embed, shapes, made.batch_shapes(), jax.random.key(0))
  assert embedded["videos"]["video"].shape == embedded["images"]["text"].shape == (8, 16)


@pytest.mark.parametrize(
  "train, changes",
  [
    ("adapters", {}),
    ("lora", {}),
    ("temporal", {"model.mixing": "factorised"}),
  ],
)
def test_few_parameters_train_and_the_program_has_no_gradient_of_the_rest(train, changes):
  made = stage("short", {"short.train": train, "short.freeze_text": True, **changes})
  shapes = jax.eval_shape(made.init_state, jax.random.key(0)).groups["model"]
  part = named_leaves(made.updates["model"].trained.of(shapes.params))
  marks = {"adapters": "adapter", "lora": "_lora", "temporal": "temporal"}
  beside = {"vision/embed", "vision/embed_image", "vision_projection", "log_scale", "gate"}
  for name in part:
    assert marks[train] in name or any(of in name for of in beside), name
  moments = [name for name in named_leaves(shapes.opt_state) if "/mu/" in name]
  assert len(moments) == len(part)
  trained, total = made.updates["model"].trained.count(shapes.params)
  assert 0 < trained < 0.4 * total


def test_adapters_and_low_rank_products_add_as_many_parameters():
  count = {}
  for train in ("adapters", "lora"):
    made = stage("short", {"short.train": train, "model.size": "b", "model.text": "test"})
    shapes = jax.eval_shape(made.init_state, jax.random.key(0)).groups["model"].params
    leaves = named_leaves(shapes).items()
    count[train] = sum(leaf.size for n, leaf in leaves if "adapter" in n or "_lora" in n)
  assert abs(count["lora"] / count["adapters"] - 1) < 0.03


def test_masking_and_tuning_the_last_layers_both_take_memory_away(last):
  """By the compiler, without running anything."""
  dense = stage("long", {"long.mask.ratio": 0.0, "long.train": "all"})
  with jax.set_mesh(ONE):
    whole = program(dense).compile()
  temporaries = lambda compiled: compiled.memory_analysis().temp_size_in_bytes
  assert temporaries(last[1].compiled) < 0.4 * temporaries(whole)


@pytest.mark.parametrize(
  "name, changes, message",
  [
    ("short", {"short.train": "adaptors"}, r"config.short.train='adaptors' is unknown \(nearest"),
    ("short", {"short.train": "temporal"}, "train='temporal' with model.mixing='joint'"),
    ("long", {"long.last_layers": 9}, "last_layers=9: the video tower has 3"),
    ("short", {"short.mixture.images.share": 0.7}, "shares add up to 1.2; make that 1"),
    ("short", {"short.mask.kind": "rows"}, "config.short.mask.kind='rows' is unknown"),
    ("short", {"short.loss": "clip"}, "config.short.loss='clip' is unknown"),
    ("short", {"short.mixture.videos.data.text.length": 2}, "data.text.length=2 has no room"),
    ("image", {"image.inputs.vocabulary": ""}, "vocabulary and .text are both not set"),
  ],
)
def test_what_cannot_be_is_named(name, changes, message):
  with pytest.raises(UserError, match=message):
    stage(name, changes).check()


def test_a_stage_of_another_space_than_its_input_is_refused():
  made = stage("short", {"model.joint": 8, "image.inputs.vocabulary": "vocabulary"})
  narrow = stage("image").export(jax.eval_shape(made.init, jax.random.key(0))["model"])
  given = dataclasses.replace(made.setting.inputs["text"], model=narrow[1])
  setting = dataclasses.replace(made.setting, inputs={"text": given})
  with pytest.raises(UserError, match=r"embeds in 16 dimensions, config.model.joint=8; "):
    type(made)(setting).warm()
