"""The caption stage trains what lies between two frozen models, and nothing else."""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.data.wordpiece import train_vocabulary
from vfe.errors import UserError
from vfe.learn import exports
from vfe.learn.paths import named_leaves
from vfe.learn.sharding import make_mesh
from vfe.models.generation import Choice
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.models.vivit import Encoder
from vfe.stages import inputs
from vfe.stages.planned import planned
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets
from vfe.train import hlo
from vfe.train.program import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = make_mesh(None, jax.devices()[:1])
WORDS = LanguageConfig.of("test", 40)
END = 3
SMALL = {
  "model.size": "test",
  "caption.batch": 8,
  "caption.data.frames": 8,
  "caption.data.text.length": 12,
  "caption.mixture.short.data.frames": 4,
  "caption.mixture.short.data.text.length": 8,
  "caption.written.caption.data.frames": 4,
  "caption.resampler.queries": 4,
  "caption.resampler.depth": 1,
  "caption.resampler.heads": 2,
  "caption.resampler.head_dim": 8,
  "caption.resampler.mlp": 2,
  "caption.bridge.heads": 2,
  "caption.bridge.head_dim": 8,
  "caption.bridge.mlp": 1,
  "caption.inputs.encoder": "encoder",
  "caption.optimizer.warmup": 0.0,
  "caption.optimizer.base_lr": 1e-2,
  "caption.optimizer.batch_reference": 8,
  "data.size": 16,
  "model.tubelet": (2, 8, 8),
  "precision": "float32",
  "stages": ("caption",),
}


@functools.cache
def recipe():
  path = ROOT / "configs" / "longvivit_256.py"
  spec = importlib.util.spec_from_file_location("longvivit_256", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def write_language(folder, eos=(END,)):
  """A language model of random weights, as a stage exports one."""
  one = jnp.ones((1, 1), jnp.int32)
  params = jax.jit(LanguageModel(WORDS).init)(jax.random.key(0), one, one > 0)["params"]
  model = {"language": dataclasses.asdict(WORDS), "tokenizer": None, "eos": list(eos)}
  text = train_vocabulary(["a hand lifts the red cup and puts it down"], 40)
  exports.write(folder, "language", model, {"language": params}, files={"tokenizer.json": text})
  return str(folder)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
  return write_language(tmp_path_factory.mktemp("language") / "export")


def stage(language, changes=None, mesh=ONE):
  config = recipe().get_config("size=s")
  config.update_from_flattened_dict(SMALL | {"caption.inputs.language": language} | (changes or {}))
  return planned(config, "caption", mesh)


def batch_of(made, seed=0):
  """Rows of noise, the last one of each part not valid; answers begin at the fourth word."""
  rng = np.random.default_rng(seed)
  batch = {}
  for name, part in made.batch_shapes().items():
    rows, words = part["text"]["ids"].shape
    mask = np.arange(words) < rng.integers(5, words + 1, rows)[:, None]
    batch[name] = {
      "video": rng.integers(0, 256, part["video"].shape, np.uint8),
      "row": np.arange(rows, dtype=np.int32),
      "valid": np.arange(rows) < rows - 1,
      "text": {
        "ids": rng.integers(5, 40, (rows, words)).astype(np.int32) * mask,
        "mask": mask,
        "answer": mask & (np.arange(words) > 2),
      },
      "label": {head: np.zeros(rows, np.int32) for head in part["label"]},
    }
  return batch


def concrete(tree, seed):
  """Arrays of these shapes."""
  draw = np.random.default_rng(seed)
  make = lambda leaf: draw.normal(scale=0.3, size=leaf.shape).astype(np.float32)
  return jax.tree.map(make, tree)


class Run:
  """The real program of a stage, compiled once, and a state before it: parameters drawn here, which
  nothing is compiled for, with gates of 0, and 0 for all the rest."""

  def __init__(self, made, mesh=ONE):
    self.mesh, self.stage = mesh, made
    with jax.set_mesh(mesh):
      self.program = program(made)
      self.compiled = self.program.compile()
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.program.state)
    group = state.groups["model"]
    params = concrete(group.params, 7)
    for name in ("gate", "mlp_gate"):
      params["bridge"]["blocks"][name][:] = 0
    self.before = state.replace(groups={"model": group.replace(params=params)})
    self.frozen = concrete(self.program.frozen, 5)

  def __call__(self, batch, steps=1):
    """The state after some steps on the batch, and the metrics of the last."""
    put = lambda tree, like: jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), tree, like)
    with jax.set_mesh(self.mesh):
      state = put(self.before, self.program.state)
      given = put(self.frozen, self.program.frozen), put(batch, self.program.batch)
      for _ in range(steps):
        state, metrics = self.compiled(state, *given)
    return jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, metrics), given[0]


@pytest.fixture(scope="module")
def run(language):
  return Run(stage(language))


@pytest.fixture(scope="module")
def batch(run):
  return batch_of(run.stage)


def test_only_resampler_and_bridge_are_trained(run, batch):
  """Bitwise: the first step opens the gates, the second one moves all the rest."""
  state, _, frozen = run(batch, steps=2)
  params, before = state.groups["model"].params, run.before.groups["model"].params
  assert set(params) == {"resampler", "bridge"}
  for (name, a), b in zip(named_leaves(params).items(), jax.tree.leaves(before), strict=True):
    assert not np.array_equal(a, b), name
  for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(run.frozen), strict=True):
    np.testing.assert_array_equal(a, b)
  assert {name.split("/")[0] for name in named_leaves(state.groups["model"].opt_state)}
  state_names = " ".join(named_leaves(state))
  assert "word/embedding" not in state_names and "position" not in state_names


def test_the_loss_is_that_of_the_answers_words(run, batch):
  """At gates of 0 it is the language model's own, by its logits."""
  frozen = run.frozen["language"]
  total = count = 0.0
  for part in batch.values():
    text = part["text"]
    apply = jax.jit(lambda *of: LanguageModel(WORDS).apply({"params": frozen}, *of))
    log = np.asarray(jax.nn.log_softmax(apply(text["ids"], text["mask"])))
    own = np.take_along_axis(log[:, :-1], text["ids"][:, 1:, None], -1)[:, :, 0]
    asked = text["answer"][:, 1:] & part["valid"][:, None]
    total, count = total - own[asked].sum(), count + asked.sum()
  _, metrics, _ = run(batch)
  found, weight = metrics["loss"]
  assert found / weight == pytest.approx(total / count, rel=1e-4)


def test_the_gradient_sees_the_video(run, batch):
  """The gates of two batches that differ in their videos only open differently."""
  other = {n: part | {"video": part["video"][::-1].copy()} for n, part in batch.items()}
  gate = lambda batch: run(batch)[0].groups["model"].opt_state
  moments = [named_leaves(gate(of)) for of in (batch, other)]
  name = next(n for n in moments[0] if n.endswith("bridge/blocks/gate"))
  assert not np.allclose(moments[0][name], moments[1][name], rtol=1e-3)


def test_neither_parts_nor_devices_change_the_step(run, batch, language):
  """In two parts on two devices: each of those has two rows of a part's four."""
  mesh = make_mesh({"data": 1, "fsdp": 2}, jax.devices()[:2])
  other = Run(stage(language, {"caption.accumulate": 2}, mesh), mesh)
  (a, ma, _), (b, mb, _) = run(batch), other(batch)
  assert ma["loss"][0] / ma["loss"][1] == pytest.approx(mb["loss"][0] / mb["loss"][1], rel=2e-5)
  for name, leaf in named_leaves(a.groups["model"].opt_state).items():
    if name.endswith("gate"):  # of Adam: what is tiny elsewhere has no sign to agree on
      np.testing.assert_allclose(
        leaf, named_leaves(b.groups["model"].opt_state)[name], rtol=1e-3, atol=1e-6
      )


def test_with_gates_of_nothing_words_are_the_language_models(run, batch):
  """Logits to 1e-6, and the same greedy words (issue: at step 0 it is exactly itself)."""
  model, part = run.stage.model, jax.tree.map(jnp.asarray, batch["long"])
  params, frozen = run.before.groups["model"].params, run.frozen
  text, keys = part["text"], jax.random.split(jax.random.key(0), len(part["row"]))

  def both(params, frozen, video):
    looking = model.looking(params, *model.features(frozen, video, keys))
    for seen in (looking, None):
      yield (
        model.log_likelihood(frozen, text["ids"], text["mask"], seen),
        model.generate(frozen, text["ids"], text["mask"], seen, Choice(words=4, eos=(END,))),
      )

  run_both = jax.jit(lambda *of: tuple(both(*of)))
  (a, written), (b, alone) = run_both(params, frozen, part["video"])
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(written.ids, alone.ids)


def test_a_share_of_the_tokens_is_dropped_also_afterwards(language):
  made = stage(language)
  assert made.tokens() == 16 - int(16 * 0.3)  # of 4 x 2 x 2
  assert stage(language, {"caption.masked": 0.0}).tokens() == 16


def test_short_clips_are_spread_over_the_encoders_positions(run):
  """Frames 0 and 1 of 2 latent ones are 0 and 2 of 4; without, they are 0 and 1."""
  model = run.stage.model
  short, long = model.layout(4), model.layout(8)
  assert short.per_frame == long.per_frame == 4 and long.grid[0] == 2 * short.grid[0]
  every = jnp.arange(short.size, dtype=jnp.int32)[None]
  np.testing.assert_array_equal(model.places(every, short)[0], [0, 1, 2, 3, 8, 9, 10, 11])
  all_of_long = jnp.arange(long.size, dtype=jnp.int32)[None]
  np.testing.assert_array_equal(model.places(all_of_long, long), all_of_long)
  first = dataclasses.replace(model, config=dataclasses.replace(model.config, spread=False))
  np.testing.assert_array_equal(first.places(every, short), every)


def test_a_short_clip_has_the_features_of_its_frames_at_those_places(run):
  """Against the encoder, told where the tokens lie."""
  model, frozen = run.stage.model, run.frozen
  bare = dataclasses.replace(model, config=dataclasses.replace(model.config, masked=0.0))
  clip = jnp.asarray(np.random.default_rng(3).integers(0, 256, (1, 4, 16, 16, 3)), jnp.uint8)
  found, there = bare.features(frozen, clip, jax.random.split(jax.random.key(0), 1))
  at = jnp.asarray([[0, 1, 2, 3, 8, 9, 10, 11]], jnp.int32)
  patches = gather_tubelets(clip, model.layout(4), everything(1, 8))
  tokens = Encoder(model.config.encoder).apply({"params": frozen["encoder"]}, patches, at)
  np.testing.assert_allclose(found, tokens.reshape(1, 2, 4, -1).mean(1), rtol=1e-4, atol=1e-5)
  assert there.all()


def test_without_pooling_the_resampler_reads_every_token(language):
  made = stage(language, {"caption.pool": "none"})
  shapes = jax.eval_shape(
    made.model.features, made.frozen, made.batch_shapes()["long"]["video"],
    jax.random.split(jax.random.key(0), 4),
  )  # fmt: skip
  assert shapes[0].shape == (4, 12, 32)
  assert made.model_flops() > stage(language).model_flops()


def test_frozen_parts_are_run_in_the_type_of_the_platform(language):
  made = stage(language, {"precision": "bfloat16"})
  assert {leaf.dtype for leaf in jax.tree.leaves(made.frozen)} == {jnp.dtype("bfloat16")}
  trained = jax.eval_shape(made.init, jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(trained)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("changes,message", [
  ({"caption.inputs.encoder": ""}, r"config\.caption\.inputs\.encoder is not set"),
  ({"caption.mixture.short.data.frames": 16}, r"mixture\.short\.data\.frames=16 is more than"),
  ({"caption.mixture.short.share": 0.7}, "shares add up to 1.2"),
  ({"caption.pool": "max"}, "pool='max' is unknown"),
  ({"caption.bridge.every": 9}, "the language model has 3 layers"),
])  # fmt: skip
def test_what_cannot_be_is_named(language, changes, message):
  with pytest.raises(UserError, match=message):
    stage(language, changes).inputs()


def test_a_language_model_must_say_how_texts_end(tmp_path):
  with pytest.raises(UserError, match="has an eos_token_id"):
    stage(write_language(tmp_path / "export", eos=()))


def test_what_a_recipe_lacks_is_told_before_its_first_stage(monkeypatch):
  config = recipe().get_config("size=s")
  with pytest.raises(UserError, match=r"caption\.inputs\.language is not set; name a folder"):
    inputs.check(config, config.stages)
  config.caption.inputs.language = "/weights/gemma"
  inputs.check(config, config.stages)
  monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[captions\]'"):
    inputs.check(config, config.stages)


def test_the_export_says_what_it_was_trained_between(run):
  kind, model, params = run.stage.export(run.before.groups["model"].params)
  assert kind == "caption" and set(params) == {"resampler", "bridge"}
  assert set(model["inputs"]) == {"encoder", "language"}
  json.dumps(model)


def test_devices_send_parameters_and_no_clips_or_words(language):
  """With parameters cut over four devices, what a step sends is of the order of the parameters.

  Before rows were held apart, the width of words and latents was cut as the parameters are, and
  every product of theirs was added up over the mesh.
  """
  mesh = make_mesh({"data": 1, "fsdp": 4}, jax.devices()[:4])
  more = {"caption.batch": 256, "caption.data.text.length": 64}
  made = stage(language, more, mesh)
  with jax.set_mesh(mesh):
    traffic = hlo.traffic(program(made).compile().as_text())
  trees = made.frozen, jax.eval_shape(made.init, jax.random.key(0))
  params = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trees))
  words = 256 // 2 * (64 + 8) * WORDS.width * 4 * WORDS.depth  # of the answers, in every layer
  sent = sum(of.bytes for of in traffic.collectives)
  assert sent < 6 * params < words
