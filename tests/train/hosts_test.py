"""Two real processes: one is killed, one is told to stop, one goes on alone; the same losses."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from vfe.learn import sharding
from vfe.stages.mae import MAEStage
from vfe.stages.stage import Setting
from vfe.train import loop
from vfe.train.clock import Clock
from vfe.train.writers import read_scalars

STEPS = 20
HEARTBEAT = 10  # seconds, after which a process notices that another has died
GRACE = 60
CHANGES = {"pretrain.steps": STEPS, "checkpoint.every": 2}  # a save waits for the one before it
SHARDED = {"stages": "('pretrain',)", "mesh.data": 2, "mesh.fsdp": 2}
SHARDED |= {"hosts.heartbeat_timeout_seconds": HEARTBEAT}


@dataclasses.dataclass
class Started:
  """A launcher, what it and its processes have written, and the processes' numbers."""

  launcher: subprocess.Popen
  file: pathlib.Path

  @property
  def told(self) -> str:
    return self.file.read_text()

  def send(self, process: int, number: int) -> None:
    pid = re.search(rf"launch: process {process} of 2 is pid (\d+)", self.told)[1]
    os.kill(int(pid), number)

  def wait_for(self, path: pathlib.Path) -> "Started":
    while not path.exists():
      assert self.launcher.poll() is None, self.told
      time.sleep(0.01)
    return self

  def end(self) -> int:
    return self.launcher.wait(timeout=GRACE + 60)


@pytest.fixture(scope="module")
def start(request, tmp_path_factory):
  """Starts pre-training in two processes with two devices each, sharded over all four."""
  changes = request.getfixturevalue("tiny_pixels_changes") | CHANGES | SHARDED
  command = [sys.executable, "launch/local.py", "-n", "2", "--devices", "2", f"--grace={GRACE}"]
  command += ["--", sys.executable, "-m", "vfe.main", "--config=configs/lvmae_128.py:demo"]
  command += [f"--config.{key}={value}" for key, value in changes.items()]
  env = os.environ | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
  env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  env |= {"XLA_FLAGS": request.getfixturevalue("quick_flags")}  # only the first has a cache

  def call(workdir):
    file = tmp_path_factory.mktemp("told") / "stderr"
    with file.open("w") as stderr:
      launcher = subprocess.Popen(
        [*command, f"--workdir={workdir}"], cwd=request.config.rootpath, env=env, stderr=stderr
      )
    return Started(launcher, file)

  return call


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("hosts") / "run"


@pytest.fixture(scope="module")
def killed(start, workdir):
  """The run until process 1 was killed."""
  process = start(workdir).wait_for(workdir / "pretrain/checkpoints/2")
  process.send(1, signal.SIGKILL)
  return process.end(), process.told


@pytest.fixture(scope="module")
def stopped(killed, start, workdir):
  """The same run, started again, until process 1 was told to stop."""
  process = start(workdir).wait_for(workdir / "pretrain/checkpoints/6")
  process.send(1, signal.SIGTERM)
  return process.end(), process.told


def losses(folder):
  lines = read_scalars(folder / "metrics.jsonl")
  found = {line["step"]: line["loss"] for line in lines if "loss" in line}
  assert list(found) == list(range(1, STEPS + 1))
  return np.asarray(list(found.values()))


def test_the_process_that_died_is_named_and_the_other_ends_by_itself(killed):
  code, told = killed
  assert code == 128 + signal.SIGKILL
  assert "launch: process 1 was killed by signal 9 (SIGKILL)" in told
  assert "launch: process 0 " in told and "launch: process 0 was killed by signal 9" not in told


def test_told_to_one_all_save_at_the_same_step_and_end_with_75(stopped, workdir):
  code, told = stopped
  assert code == 75
  assert all(f"launch: process {number} ended with exit code 75" in told for number in (0, 1))
  assert re.search(rf"resumed at step \d+ of {STEPS}", told)
  step = re.search(rf"saved at step (\d+) of {STEPS}; the same command goes on from it", told)[1]
  newest = max((workdir / "pretrain/checkpoints").iterdir(), key=lambda folder: int(folder.name))
  assert newest.name == step


def test_one_process_goes_on_with_the_same_samples(stopped, workdir, tiny_pixels, tmp_path):
  """And the losses of all three parts are those of one process with four devices."""
  config = tiny_pixels(CHANGES | {"checkpoint.every": 100})
  mesh = sharding.make_mesh(None, jax.devices()[:4])
  for folder in (workdir / "pretrain", tmp_path):
    stage = MAEStage(Setting("pretrain", config, folder, {}, mesh))
    loop.train(stage, meta={}, clock=Clock(), yes=True)
  # As four devices and one in loop_test: float32, and sums in another order.
  np.testing.assert_allclose(losses(workdir / "pretrain"), losses(tmp_path), rtol=2e-5)
