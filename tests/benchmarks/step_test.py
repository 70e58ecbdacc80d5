"""The benchmarks of the step: what they time, how they count, what they print."""

import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import plans
import scaling
import step

from vfe.learn.sharding import make_mesh
from vfe.stages.planned import planned
from vfe.train import planning
from vfe.train.program import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ["--config.model.size=test", "--config.data.size=32", "--config.model.decoder_depth=1"]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def timed():
  """A row of the real thing, on two of the devices."""
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    patch.setattr(step, "SECONDS", 0.01)
    config = step.recipe("pretrain_stored", "s", 16, SMALL)
    return step.measured(config, "pretrain_stored", 4, jax.devices()[:2], run=True)


@pytest.mark.parametrize("name", step.STAGES)
def test_every_stage_can_be_timed(name):
  config = step.recipe(name, "s", 32, SMALL)
  stage = planned(config, step.STAGES[name][0], make_mesh(config.mesh), classes=step.CLASSES)
  clip = stage.batch_shapes()["clip"]
  assert ("codes" in clip) == (name == "pretrain_stored") and set(clip["label"]) == {"label"}
  assert bool(stage.frozen) == (name == "pretrain")
  assert clip["video"].shape[1] == (16 if name == "tokenizer" else 32)


def test_a_row_is_of_the_whole_batch(timed):
  assert timed["clips_per_s"] == pytest.approx(4 / timed["seconds"])
  assert timed["model_flops"] > 0 and timed["bytes"] > 0 and timed["devices"] == 2
  assert timed["mfu"] is None  # of a CPU it says nothing
  assert step.line(timed).count("|") == step.HEAD.count("|") == 9
  assert "-" in step.line(timed | {"seconds": None, "clips_per_s": None, "tokens_per_s": None})


def test_a_batch_is_random_bytes_and_rows_that_count():
  config = step.recipe("pretrain_stored", "s", 16, SMALL)
  config = planning.changed(config, "pretrain", {"batch": 8})
  made = program(planned(config, "pretrain", make_mesh(config.mesh)))
  clip = step.filled(made.batch)["clip"]
  assert clip["video"].dtype == jnp.uint8 and int(clip["video"].max()) > 200
  assert int(clip["codes"].max()) < 8 and bool(clip["valid"].all())
  assert float(jnp.std(clip["importance"])) > 0


def test_scaling_goes_through_frames_then_devices():
  flags = types.SimpleNamespace(frames=[16, 32], devices=[1, 2, 4], axis=["data", "context"])
  assert list(scaling.cases(flags)) == [
    (16, 1, "data"), (32, 1, "data"),
    (16, 2, "data"), (16, 4, "data"), (16, 2, "context"), (16, 4, "context"),
  ]  # fmt: skip


def test_scalings_ratios_are_to_the_first_row(timed):
  half = timed | {"axis": "data", "seconds": timed["seconds"] / 2, "bytes": timed["bytes"] * 3}
  assert "  0.50 |" in scaling.line(half, timed) and scaling.line(half, timed).endswith("  3.00")


def test_a_plan_is_a_row_of_the_docs_table():
  plan = {
    "stage": "pretrain", "batch": 8, "needs": 3 << 30, "capacity": 16 << 30, "fits": True,
    "model_flops": 8e12, "traffic": {"collectives": [{"bytes": 1 << 20}], "exact": True},
    "memory": {"parameters": 1 << 30, "optimizer": 2 << 30, "temporaries": 5 << 20},
  }  # fmt: skip
  row = plans.row("a.py", "v5e:1x1", plan)
  assert row.count("|") == plans.HEAD.count("|")
  assert "| 3.00 GiB | 16.00 GiB | 8.00 | 1.00 MiB |" in row
  assert "does not fit" in plans.row("a.py", "v5e:1x1", plan | {"memory": None, "fits": False})
