"""A planned stage is the run's, made of shapes alone, on a machine that has next to nothing."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn import exports
from vfe.learn.sharding import make_mesh
from vfe.stages.planned import planned
from vfe.train.program import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
MESH = make_mesh({"data": -1})


def shapes(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


@pytest.mark.parametrize("name", ["tokenizer", "pretrain", "finetune"])
def test_a_stage_is_planned_without_a_file_or_an_array(tiny, tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  live = len(jax.live_arrays())
  stage = planned(tiny(), name, MESH)
  made = program(stage)
  assert made.batch["clip"]["video"].shape == (8, 16 if name == "tokenizer" else 32, 32, 32, 3)
  assert not list(tmp_path.iterdir())
  leaves = jax.tree.leaves((made.state, made.frozen, made.batch))
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
  assert len(jax.live_arrays()) <= live + 1  # the key that the run starts from


def test_the_planned_batch_is_the_one_that_comes(tiny):
  stage = planned(tiny(), "tokenizer", MESH)
  real = type(stage)(stage.setting.__class__("tokenizer", tiny(), pathlib.Path(), {}, MESH))
  assert real.source.heads == stage.source.heads and len(real.source) == len(stage.source)
  batch = next(iter(real.inputs()["clip"].train(0, np.arange(8), 0)))
  for name, shape in shapes(stage.batch_shapes()["clip"]).items():
    assert shapes(batch[name]) == shape


def test_stored_targets_have_their_shapes_without_a_store(tiny):
  clip = planned(tiny(), "pretrain", MESH).batch_shapes()["clip"]
  assert clip["codes"].shape == (8, 8 * 8 * 8, 6) and clip["codes"].dtype == np.uint8
  assert clip["importance"].shape == (8, 8 * 8 * 8)


def test_an_input_that_is_here_is_looked_at(tiny, tmp_path):
  expected = planned(tiny(), "finetune", MESH)
  kind, model, params = planned(tiny(), "pretrain", MESH).export(expected.pretrained.params)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
  exports.write(tmp_path / "export", kind, model, zeros)
  found = planned(tiny({"finetune.inputs.encoder": str(tmp_path)}), "finetune", MESH)
  assert found.encoder == expected.encoder
  assert shapes(found.pretrained.params) == shapes(expected.pretrained.params)
  wrong = {"finetune.inputs.encoder": str(tmp_path), "model.size": "demo"}
  with pytest.raises(UserError, match=r"has an encoder of width=32"):
    planned(tiny(wrong), "finetune", MESH)


def test_an_input_that_is_not_here_is_assumed(tiny, recipe):
  encoder = planned(tiny({"finetune.inputs.encoder": "/not/here"}), "finetune", MESH)
  made = planned(tiny(), "finetune", MESH).pretrained
  assert shapes(encoder.pretrained.params["encoder"]) == shapes(made.params["encoder"])
  changes = {"tokenizer.inputs.perceptual": "/not/here", "data.size": 32}
  judged = planned(recipe("", changes), "tokenizer", MESH)
  assert judged.frozen["perceptual"]["classifier"]["kernel"].shape == (2048, 1000)
  assert not judged.notes()
  (note,) = planned(tiny(), "tokenizer", MESH).notes()
  assert note.startswith("no config.tokenizer.inputs.perceptual (a ResNet-50 folder)")
  stored = {"pretrain.inputs.tokenizer": "", "pretrain.inputs.targets": "/not/here"}
  aligned = {"data.sampling.align": 16, "data.augment.kind": "center", "model.size": "s"}
  clip = planned(recipe("", stored | aligned), "pretrain", MESH).batch_shapes()["clip"]
  assert clip["codes"].shape == (2048, 64 * 14 * 14, 6)


def test_classes_are_the_datas_or_those_given_or_assumed(tiny):
  heads = lambda changes=None, **given: planned(tiny(changes), "finetune", MESH, **given).heads
  assert heads() == {"noun": 30, "colour": 6, "shape": 5}
  assert heads(classes={"verb": 97, "noun": 300}) == {"verb": 97, "noun": 300}
  assert heads({"data.source": "folder", "data.path": "/not/here"}) == {"label": 48}


def test_an_absent_tokenizer_is_the_papers(recipe):
  stage = planned(recipe("", {"pretrain.inputs.tokenizer": "/not/here"}), "pretrain", MESH)
  assert stage.tokenizer.window == 16 and "encoder" in stage.frozen["tokenizer"]


def test_an_unknown_stage_is_named(tiny):
  with pytest.raises(UserError, match=r"--stage=pretrian is not a stage \(nearest: pretrain\)"):
    planned(tiny(), "pretrian", MESH)


BARE = """
import sys
for name in ("tensorflow", "tensorboard", "clu", "grain", "av", "tensorflow_datasets",
             "array_record", "PIL", "safetensors", "transformers", "torch"):
  sys.modules[name] = None  # an import of it fails
import importlib.util, json
import jax, jax.numpy as jnp
from vfe.learn.sharding import make_mesh
from vfe.stages.planned import planned
from vfe.train.program import program
spec = importlib.util.spec_from_file_location("recipe", "configs/lvmae_128.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
config = module.get_config("demo")
config.update_from_flattened_dict(json.loads(sys.argv[1]))
mesh = make_mesh({"data": 1}, jax.devices()[:1])
with jax.set_mesh(mesh):
  planned(config, "targets", mesh)
  stage = planned(config, "finetune", mesh)
  made = program(stage)
  state = jax.jit(stage.init_state)(made.rng)
  batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made.batch)
  state, metrics = made.step(state, made.frozen, batch)
print(int(state.step))
"""


def test_a_step_runs_without_what_reads_data_and_writes_logs(tiny_changes):
  changes = {key: value for key, value in tiny_changes.items() if not key.startswith("log")}
  command = [sys.executable, "-c", BARE, json.dumps(changes | {"finetune.batch": 2})]
  cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | cache)
  assert done.returncode == 0, done.stderr
  assert done.stdout.split()[-1] == "1"
