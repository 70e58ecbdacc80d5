"""The memory study: every method is what it says, and the table continues."""

import json
import pathlib
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import longvivit_memory as study  # noqa: E402

from vfe.learn.sharding import make_mesh  # noqa: E402
from vfe.stages.planned import planned  # noqa: E402

SMALL = ["--config.model.size=test", "--config.model.text=test", "--config.data.size=64"]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def made(name, frames=16, changes=()):
  """(stage, its parameters counted)"""
  config = study.recipe(name, "b", frames, 2, "none", changes)
  stage = planned(config, study.STAGE, make_mesh(None, jax.devices()[:1]))
  return stage, study.counted(stage, jax.eval_shape(stage.init, jax.random.key(0))["model"])


@pytest.fixture(scope="module")
def methods():
  """Methods at the paper's size, those that share nothing."""
  names = (
    study.DENSE, "frame, 75% masked", "factorised, all tokens", "MLP adapters", "LoRA",
    "temporal attention only", "tubelets 4x32x32", "TubeViT, four kernels",
  )  # fmt: skip
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    return {name: made(name) for name in names}


def test_methods_are_of_the_papers_sizes(methods):
  stage, count = methods[study.DENSE]
  assert count["trained"] == count["all"] and stage.tokens() == 2048
  assert 86e6 < count["vision"] < 89e6  # ViT-B, learned positions of eight latent frames
  assert 40e6 < count["text"] < 42e6  # BERT-medium with BERT's own words
  assert methods["frame, 75% masked"][0].tokens() == 512
  assert methods["tubelets 4x32x32"][0].tokens() == 4 * 8 * 8
  assert 256 < methods["TubeViT, four kernels"][0].tokens() < 1024


def test_only_the_named_few_are_trained(methods):
  count = {name: found for name, (_, found) in methods.items()}
  dense = count[study.DENSE]
  added = {name: found["all"] - dense["all"] for name, found in count.items()}
  assert 0.9 < added["LoRA"] / added["MLP adapters"] < 1.1  # so that they can be compared
  assert added["factorised, all tokens"] > 12 * 4 * 768**2
  for name in ("MLP adapters", "LoRA", "temporal attention only"):
    assert count[name]["vision"] < dense["vision"] / 2 and count[name]["text"] == dense["text"]
  stage, last = made("last 4 layers, 75% masked", 128)
  assert 4 * 7e6 < last["vision"] < 4 * 7.2e6 and last["text"] == 0
  assert stage.tokens() == 16_384 // 4


def test_few_parameters_take_fewer_flops(methods):
  flops = {name: stage.model_flops() for name, (stage, _) in methods.items()}
  assert flops["frame, 75% masked"] < flops["LoRA"] < flops[study.DENSE]


@pytest.mark.slow
def test_a_method_is_measured_by_compiling_its_step():
  config = study.recipe("joint, 75% masked", "b", 16, 2, "none", SMALL)
  found = study.measured(config, jax.devices()[:1])
  assert found["tokens"] == 8 * 4 * 4 // 4 and found["batch"] == 2
  assert found["needs"] > found["memory"]["temporaries"] > 0 and found["fits"]
  assert study.row("x", found, found).count("|") == study.HEAD.count("|")
  assert study.row("x", found, found).endswith("| 1.00 |")
  refused = found | {"memory": None, "fits": False, "needs": 3 * found["needs"]}
  assert study.row("x", refused, found).endswith("(does not fit) | 3.00 |")


def test_what_was_kept_is_not_compiled_again(tmp_path, capsys, monkeypatch):
  plan = {"batch": 16, "tokens": 9, "model_flops": 1e12, "memory": None, "needs": 9, "fits": True}
  plan["parameters"] = dict.fromkeys(study.COUNTED, 1e6)
  compiled = []
  monkeypatch.setattr(study, "measured", lambda *given: compiled.append(given) or plan)
  flags = ["--topology=local", f"--kept={tmp_path / 'kept.json'}", "--method", study.DENSE, "LoRA"]
  study.main([*flags, "--frames=16"])
  study.main(flags)
  assert len(compiled) == 4  # sixteen frames once, 128 after that
  assert len(json.loads(capsys.readouterr().out.splitlines()[-1])) == 4
