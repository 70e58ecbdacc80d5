"""Recipes from end to end: every stage, skipping, refusing, redoing, evaluating again."""

import json
import pathlib
import shutil

import numpy as np
import pytest

import vfe
from vfe.errors import UserError
from vfe.train import run
from vfe.train.writers import read_scalars


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
  """A workdir in which the whole tiny recipe has run, and what it returned."""
  workdir = tmp_path_factory.mktemp("runs") / "tiny"
  return workdir, run.recipe(tiny(), workdir=workdir, command=["typed"])


def test_every_stage_leaves_what_it_says(finished):
  workdir, results = finished
  assert list(results["stages"]) == ["tokenizer", "targets", "pretrain", "finetune"]
  assert json.loads((workdir / "results.json").read_text()) == results
  for name, steps in (("tokenizer", 4), ("targets", 0), ("pretrain", 6), ("finetune", 4)):
    result = results["stages"][name]
    assert result["steps"] == steps and result["seconds"] > 0
    assert all(np.isfinite(value) for value in result["metrics"].values())
    about = json.loads((workdir / name / "about.json").read_text())
    assert about["command"] == ["typed"] and about["versions"]["jax"]
    assert about["config"]["seed"] == 0
  assert (workdir / "pretrain" / "pictures" / "kept_tokens.png").is_file()
  assert (workdir / "tokenizer" / "reconstructions.png").is_file()


def test_the_log_has_every_step_with_rates_and_norms(finished):
  lines = read_scalars(finished[0] / "pretrain" / "metrics.jsonl")
  assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
  wanted = {"learning_rate/model", "norm/model_gradient", "rate/clips_per_s", "rate/tokens_per_s"}
  assert wanted | {"time/data_share", "data/unreadable", "data/short"} <= set(lines[0])


def test_predictions_name_every_validation_video(finished):
  rows = (finished[0] / "finetune" / "predictions.csv").read_text().splitlines()
  assert rows[0].startswith("name,") and len(rows) == 1 + 4


def test_complete_stages_are_skipped(finished, tiny, capfd):
  workdir, results = finished
  before = (workdir / "pretrain" / "metrics.jsonl").read_text()
  assert run.recipe(tiny(), workdir=workdir) == results
  assert capfd.readouterr().err.count("complete") == 4
  assert (workdir / "pretrain" / "metrics.jsonl").read_text() == before


def test_a_finished_stage_with_another_config_is_refused(finished, tiny):
  workdir, _ = finished
  with pytest.raises(UserError) as error:
    run.recipe(tiny({"pretrain.optimizer.base_lr": 0.5}), workdir=workdir, only="pretrain")
  assert "pretrain.optimizer.base_lr: 0.001 -> 0.5" in str(error.value)
  assert "--redo=pretrain" in str(error.value)


def test_evaluating_again_gives_the_same_metrics(finished, tiny):
  """Also in batches of another size: how a stage is measured is no matter of how it was trained."""
  workdir, results = finished
  other = tiny({"finetune.eval_batch": 16})
  again = run.recipe(other, workdir=workdir, evaluate=True, only="finetune")
  first = results["stages"]["finetune"]["metrics"]
  assert again["stages"]["finetune"]["metrics"] == pytest.approx(first, rel=1e-5)
  assert (workdir / "finetune" / "eval" / "predictions.csv").is_file()
  assert json.loads((workdir / "results.json").read_text()) == results


def test_an_evaluation_batch_that_does_not_divide_is_refused(finished, tiny):
  with pytest.raises(UserError, match="batch=4 does not divide over 8 devices"):
    run.recipe(
      tiny({"finetune.eval_batch": 4}), workdir=finished[0], evaluate=True, only="finetune"
    )


def test_exports_open_with_load(finished):
  workdir, _ = finished
  video = np.zeros((1, 32, 32, 32, 3), np.uint8)
  features = vfe.load(workdir / "pretrain").encode(video)
  assert features.shape == (1, 8 * 8 * 8, 32)
  tokens = vfe.load(workdir / "tokenizer").encode(video)
  assert tokens.latent.shape == (1, 8 * 8 * 8, 6)


def test_a_missing_input_says_how_to_make_it(tmp_path, tiny):
  with pytest.raises(UserError, match=r"'tokenizer' has not finished .* --stage=tokenizer"):
    run.recipe(tiny(), workdir=tmp_path, only="targets")
  assert not any(tmp_path.iterdir())


def test_an_input_of_another_size_is_refused(finished, tiny):
  workdir, _ = finished
  config = tiny({"model.size": "demo", "finetune.inputs.encoder": str(workdir / "pretrain")})
  with pytest.raises(UserError, match=r"width=32, config.model .*size=demo.* says 64"):
    run.recipe(config, workdir=workdir.parent / "other", only="finetune")


def test_redo_keeps_what_was_made_and_its_followers_are_refused(finished, tiny, tmp_path):
  workdir = pathlib.Path(shutil.copytree(finished[0], tmp_path / "run"))
  another = tiny({"data.max_fault_share": 0.5})  # of the same program
  run.recipe(another, workdir=workdir, only="finetune", redo="finetune", command=["again"])
  made = {}
  for name in ("finetune.old-1", "finetune"):
    assert (workdir / name / "export" / "export.json").is_file()
    about = json.loads((workdir / name / "about.json").read_text())
    made[name] = about["command"], about["config"]["data"]["max_fault_share"]
  assert made == {"finetune.old-1": (["typed"], 0.05), "finetune": (["again"], 0.5)}
  steps = [line["step"] for line in read_scalars(workdir / "finetune" / "metrics.jsonl")]
  assert steps[0] == 1  # from its beginning
  pretrained = workdir / "pretrain" / "export" / "export.json"
  pretrained.write_text(json.dumps(json.loads(pretrained.read_text()) | {"digest": "new"}))
  with pytest.raises(UserError, match=r"another encoder \(digest .*, now new\).*--redo=finetune"):
    run.recipe(another, workdir=workdir, only="finetune")


@pytest.mark.parametrize("flag", ["only", "redo"])
def test_an_unknown_stage_is_named(tmp_path, tiny, flag):
  with pytest.raises(UserError, match=r"=pretrian is not a stage \(nearest: pretrain\)"):
    run.recipe(tiny(), workdir=tmp_path, **{flag: "pretrian"})


REFUSED = [
  ({"data.frames": 24}, "data.frames=24 is not divisible by the tokenizer's window of 16"),
  ({"pretrain.decoder_budget.kind": "adaptve"}, "decoder_budget.kind='adaptve' is unknown"),
  ({"pretrain.kind": "mea"}, "config.pretrain.kind='mea' is unknown (nearest: mae)"),
  ({"precision": "float8"}, "config.precision='float8' is unknown"),
  ({"mesh.data": 3}, "does not fit 8 devices"),
  ({"pretrain.batch": 6}, "batch=6 does not divide over 8 devices"),
  ({"pretrain.data.augment.kind": "resized_crop"}, "stored targets are of the centre crop"),
  ({"data.sampling.align": 1}, "align=1: clips with stored targets start at multiples of 16"),
  ({"data.sampling.stride": 2}, "stride 2, fps 0: stored targets are of consecutive"),
  ({"data.sampling.fps": 1.0}, "stride 1, fps 1: stored targets are of consecutive frames"),
  ({"pretrain.inputs.targets": "tokenizer"}, "holds a tokenizer, not a targets"),
]


@pytest.mark.parametrize("changes,told", REFUSED, ids=[next(iter(c)) for c, _ in REFUSED])
def test_what_does_not_fit_together_is_refused_in_one_line(finished, tiny, changes, told):
  workdir, _ = finished
  given = changes.get("pretrain.inputs.targets", "targets")
  fresh = changes | {"pretrain.inputs.targets": str(workdir / given)}
  with pytest.raises(UserError) as error:
    run.recipe(tiny(fresh), workdir=workdir.parent / "refused", only="pretrain")
  assert told in str(error.value) and "\n" not in str(error.value)
  assert not (workdir.parent / "refused").exists()


def test_what_would_take_days_asks_first(tmp_path, recipe):
  small = {"videos": 8, "eval_videos": 2, "size": 32}
  small = {f"data.tabletop.{key}": value for key, value in small.items()}
  pixels = {"target": "pixels", "importance": "difference", "inputs.tokenizer": ""}
  pixels = {f"pretrain.{key}": value for key, value in pixels.items()}
  config = recipe("", small | pixels | {"stages": ("pretrain",)})
  with pytest.raises(UserError, match=r"stage pretrain is .* steps of .* --yes"):
    run.recipe(config, workdir=tmp_path)
