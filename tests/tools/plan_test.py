"""The planner's command line: a table, JSON, and one line for what it cannot plan."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from vfe.tools import plan
from vfe.tools.cli import EXIT_USER_ERROR

CONFIG = "--config=configs/lvmae_128.py:demo"


@pytest.fixture
def command(tiny_changes, request):
  """Runs the planner on the tiny recipe."""
  written = [f"--config.{key}={value}" for key, value in tiny_changes.items()]
  written = [each.replace(" ", "") for each in written if not each.startswith("--config.log")]

  def run(*arguments):
    return subprocess.run(
      [sys.executable, "-m", "vfe.tools.plan", CONFIG, *written, *arguments],
      cwd=request.config.rootpath, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip

  return run


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="the TPU compiler (libtpu) is not installed"
)
def test_a_step_is_compiled_for_chips_that_are_not_here(command, tmp_path):
  out = tmp_path / "plan.json"
  sharded = "--config.mesh.data=1", "--config.mesh.fsdp=4"
  done = command("--stage=pretrain", "--topology=v5e:2x2", f"--json={out}", *sharded)
  assert done.returncode == 0, done.stderr
  assert done.stderr.splitlines() == ["pretrain: compiling the step for 4 x TPU v5 lite"]
  assert done.stdout.startswith("pretrain: 4 x TPU v5 lite, mesh fsdp=4\n")
  assert "fits" in done.stdout and "all-gather" in done.stdout
  found = json.loads(out.read_text())
  (made,) = found["plans"]
  assert found["topology"] == "v5e:2x2" and made["fits"] and made["batch"] == 8
  assert made["peak"] == sum(made["memory"].values()) < made["capacity"]
  assert all(one["bytes"] > 0 for one in made["traffic"]["collectives"])


REFUSED = [
  (["--topology=v9:2x2"], "--topology=v9:2x2 is unknown (nearest: "),
  (["--topology=local", "--stage=pretran"], "--stage=pretran is not a stage (nearest: pretrain)."),
  (["--topology=local", "--stage=targets"], "does not train, so it has no step to plan"),
  (["--topology=local", "--topologi=3"], "--topologi=3 is unknown (nearest: --topology)."),
  (["--topology=local", "--config.pretrain.bach=1"], "bach is unknown (nearest: pretrain.batch)."),
  ([], "required: --topology (see --help)"),
]


@pytest.mark.parametrize("arguments,told", REFUSED, ids=lambda value: str(value)[-30:])
def test_what_cannot_be_planned_is_one_line(request, monkeypatch, capsys, arguments, told):
  monkeypatch.chdir(request.config.rootpath)
  with pytest.raises(SystemExit) as stopped:
    plan.cli.run(plan.main, [CONFIG, *arguments])
  error = capsys.readouterr().err
  assert stopped.value.code == EXIT_USER_ERROR
  assert told in error and error.count("\n") == 1 and error.startswith("vfe: ")


def made(**changes):
  memory = {"parameters": 3 << 30, "temporaries": 5 << 20}
  traffic = {"collectives": [{"kind": "all-reduce", "count": 2, "bytes": 1 << 20}], "exact": True}
  return {
    "stage": "pretrain", "devices": 4, "device": "TPU v5 lite", "mesh": {"data": 4, "fsdp": 1},
    "size": "b", "batch": 8, "frames": 128, "pixels": 224, "tokens": 1280, "memory": memory,
    "needs": 4 << 30, "capacity": 16 << 30, "fits": True, "model_flops": 8e12, "seconds": 3.0,
    "traffic": traffic,
  } | changes  # fmt: skip


def test_the_table_tells_what_fits_and_what_does_not():
  assert "4.00 GiB of 16.00 GiB: fits" in plan.table(made())
  assert "2 a step, 1.00 MiB a device" in plan.table(made())
  large = made(memory=None, traffic=None, needs=20 << 30, fits=False)
  assert "does not fit (needs 20.00 GiB of 16.00 GiB)" in plan.table(large)
  assert "needs more than there is" in plan.table(large | {"needs": 0})
  assert "collectives         not known: this jaxlib" in plan.table(made(traffic=None))
  assert "collectives" not in plan.table(large)
  loop = {"collectives": [{"kind": "all-gather", "count": 1, "bytes": 8}], "exact": False}
  assert "a loop of unknown length was counted as one run" in plan.table(made(traffic=loop))
