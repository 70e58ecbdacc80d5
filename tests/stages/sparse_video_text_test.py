"""The stage of SViTT-Ego takes the step that the paper describes."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.paths import named_leaves
from vfe.learn.sharding import make_mesh
from vfe.models import contrastive
from vfe.models.egonce import egonce, egonce_positives
from vfe.nn.relative import entries
from vfe.stages.planned import planned
from vfe.train.program import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = make_mesh(None, jax.devices()[:1])
SMALL = {
  "model.size": "test",
  "model.text": "test",
  "model.joint": 16,
  "vocabulary.size": 256,
  "data.size": 16,
  "data.frames": 2,
  "data.text.length": 6,
  "pretrain.batch": 8,
  "pretrain.steps": 60,
  "pretrain.optimizer.base_lr": 3e-3,
  "pretrain.optimizer.batch_reference": 8,
  "pretrain.edges.size": 8,
  "pretrain.edges.random": 1,
  "pretrain.pruning.after": (0,),
}


@functools.cache
def recipe():
  path = ROOT / "configs" / "svitt_ego.py"
  spec = importlib.util.spec_from_file_location("svitt_ego", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def stage(changes=None, mesh=ONE, name="pretrain", argument="demo"):
  config = recipe().get_config(argument)
  config.update_from_flattened_dict(SMALL | (changes or {}))
  return planned(config, name, mesh)


def batch_of(made, seed=0):
  """Rows of noise, the last one not valid."""
  rng = np.random.default_rng(seed)
  shapes = made.batch_shapes()["clip"]
  rows, words = shapes["text"]["ids"].shape
  mask = np.arange(words) < rng.integers(3, words + 1, rows)[:, None]
  ids = np.where(np.arange(words) == 0, 101, rng.integers(110, 250, (rows, words)))
  text = {
    "ids": ids.astype(np.int32) * mask,
    "mask": mask,
    "nouns": rng.random((rows, shapes["text"]["nouns"].shape[1])) < 0.02,
    "verbs": rng.random((rows, shapes["text"]["verbs"].shape[1])) < 0.1,
    "clip": np.arange(rows, dtype=np.int32),
  }
  return {
    "clip": {
      "video": rng.integers(0, 256, shapes["video"].shape, np.uint8),
      "row": np.arange(rows, dtype=np.int32),
      "valid": np.arange(rows) < rows - 1,
      "text": text,
      "label": {head: np.zeros(rows, np.int32) for head in shapes["label"]},
    }
  }


def step(made, batch, mesh=ONE):
  """(parameters before, state after a step on the batch, metrics, what takes the next step)"""
  with jax.set_mesh(mesh):
    made_program = program(made)
    init = jax.jit(made.init_state, out_shardings=made_program.layout)
    before = jax.tree.map(np.asarray, init(made_program.rng))
    state = jax.device_put(before, made_program.layout)
    where = jax.tree.map(lambda leaf: leaf.sharding, made_program.batch)
    batch, run = jax.device_put(batch, where), made_program.compile()
    state, metrics = run(state, {}, batch)
  after = jax.tree.map(np.asarray, state)
  return before.groups["model"].params, after, metrics, lambda state: run(state, {}, batch)


@pytest.fixture(scope="module")
def whole():
  made = stage()
  batch = batch_of(made)
  return made, batch, *step(made, batch)


def test_a_step_trains_all_of_it(whole):
  _, _, before, state, metrics, _ = whole
  before, after = named_leaves(before), named_leaves(state.groups["model"].params)
  still = {name for name, leaf in after.items() if np.array_equal(leaf, before[name])}
  assert not still
  assert {
    "contrast/loss", "contrast/positives", "match/loss", "match/matching/right", "words/loss",
    "words/words/top1", "scale", "loss",
  } <= set(metrics)  # fmt: skip
  total = sum(metrics[f"{name}/loss"][0] / metrics[f"{name}/loss"][1]
              for name in ("contrast", "match", "words"))  # fmt: skip
  np.testing.assert_allclose(metrics["loss"][0], total, rtol=1e-5)


def test_what_is_seen_again_and_again_is_matched_and_its_hidden_words_are_found(whole):
  """Each clip and each text is of a right pair and of wrong ones: neither tells by itself."""
  _, _, _, state, metrics, again = whole
  first = metrics
  for _ in range(59):
    state, metrics = again(state)
  mean = lambda metrics, name: metrics[name][0] / metrics[name][1]
  assert mean(first, "match/loss") > 0.5 and mean(metrics, "match/loss") < 0.1
  assert mean(metrics, "words/loss") < 0.8 * mean(first, "words/loss")


def test_four_devices_in_two_parts_take_the_step_of_one(whole):
  """EgoNCE, the matching of hard negatives and hidden words are of the global batch's rows."""
  _, batch, _, state, metrics, _ = whole
  mesh = make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4])
  _, other, found, _ = step(stage({"pretrain.accumulate": 2}, mesh), batch, mesh)
  for name in ("loss", "contrast/loss", "match/loss", "words/loss", "norm/model_gradient"):
    np.testing.assert_allclose(found[name][0], metrics[name][0], rtol=1e-4, err_msg=name)
  moments = lambda state: named_leaves(state.groups["model"].opt_state)
  for name, leaf in moments(other).items():
    np.testing.assert_allclose(leaf, moments(state)[name], rtol=5e-3, atol=5e-6, err_msg=name)


def test_the_contrast_is_egonce_of_the_embeddings(whole):
  made, batch, before, _, metrics, _ = whole
  embed = jax.jit(lambda params, batch: made.embed(params, batch, jax.random.key(9)))
  clip, text = batch["clip"], batch["clip"]["text"]
  # No drop path in the demo, and edges matter little before training: only the pattern differs.
  found = embed(before, batch)
  run = lambda x, method: made.model.apply({"params": before}, x, method=method)
  video, words = run(found["video"], "embed_video"), run(found["words"], "embed_text")
  positives = egonce_positives(*(jnp.asarray(text[name]) for name in ("nouns", "verbs", "clip")))
  scale = contrastive.scale_of(jnp.asarray(before["log_scale"]))
  loss = egonce(video, words, scale, positives, valid=jnp.asarray(clip["valid"]))
  np.testing.assert_allclose(
    loss[0] / loss[1], metrics["contrast/loss"][0] / metrics["contrast/loss"][1], rtol=0.05
  )


def test_without_egonce_a_clip_is_the_only_positive_of_itself():
  made = stage({"pretrain.contrast": "info_nce"})
  text = batch_of(made)["clip"]["text"]
  text["clip"][1] = text["clip"][0]
  found = np.asarray(made._positives(jax.tree.map(jnp.asarray, text)))
  assert found.sum() == 8 + 2 and found[0, 1] and found[1, 0]


def test_weights_that_are_zero_leave_their_networks_out_of_the_program():
  asked = {"pretrain.weights.match": 0.0, "pretrain.weights.words": 0.0}
  made = stage(asked)
  shapes = jax.eval_shape(made.init_state, jax.random.key(0)).groups["model"].params
  embedded = jax.eval_shape(made.embed, shapes, made.batch_shapes(), jax.random.key(0))
  assert set(embedded) == {"video", "words"}
  assert made.model_flops() < stage().model_flops()


def test_the_papers_sizes_and_the_curriculum():
  made = stage_of_paper("curriculum", "pretrain")
  assert made.vision.pruning.counts(784, 12)[-1] == 270
  assert made.vision.layout.size == 784 and made.svitt.text.depth == 12
  then = stage_of_paper("curriculum", "expand")
  assert then.vision.pruning.counts(then.vision.layout.size, 12)[::4] == (1568, 941, 565)
  assert entries(then.vision.layout.grid) == 15 * 27**2 + 3


def stage_of_paper(argument, name):
  config = recipe().get_config(argument)
  config.pretrain.inputs.text = "/bert"  # as if it were there
  return planned(config, name, ONE)


def test_a_temperature_that_is_not_learned_is_not_trained():
  made = stage({"pretrain.learn_temperature": False})
  shapes = jax.eval_shape(made.init_state, jax.random.key(0)).groups["model"].params
  assert "log_scale" not in named_leaves(made.updates["model"].trained.of(shapes))


def test_an_input_of_another_space_is_an_error_by_its_key():
  first = stage()
  params = jax.eval_shape(first.init_state, jax.random.key(0)).groups["model"].params
  kind, model, params = first.export(params)
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
  given = Export(kind, model, params, "digest", "runs/other")
  made = stage({"model.joint": 32})
  made.setting.inputs["encoder"] = given
  with pytest.raises(UserError, match=r"model\.joint=16"):
    made.warm()


@pytest.mark.parametrize("where", ["pruning", "fused_pruning"])
def test_pruning_that_makes_no_sense_is_an_error_by_its_key(where):
  with pytest.raises(UserError, match=rf"config\.pretrain\.{where}\.after=\(7,\): there are"):
    stage({f"pretrain.{where}.after": (7,)})
  with pytest.raises(UserError, match=rf"config\.pretrain\.{where}\.by='magic' is unknown"):
    stage({f"pretrain.{where}.by": "magic"})


def test_layers_that_all_read_the_video_are_an_error():
  with pytest.raises(UserError, match=r"model\.fused=2"):
    stage({"model.fused": 2})
