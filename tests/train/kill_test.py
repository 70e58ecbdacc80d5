"""A run that is killed goes on with the same command and ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

CHANGES = {
  "stages": "('tokenizer', 'pretrain')",
  "pretrain.target": "pixels",
  "pretrain.importance": "difference",
  "pretrain.inputs.targets": "",
  "tokenizer.batch": 2,
  "tokenizer.steps": 8,
  "tokenizer.model.multipliers": (1, 1),
  "tokenizer.model.temporal_downsample": (True,),
  "tokenizer.discriminator.multipliers": (1,),
  "pretrain.steps": 24,
  "log.every": 4,
  "checkpoint.every": 4,
}


@pytest.fixture
def start(request):
  """Starts `python -m vfe.main` with the tiny recipe in a workdir."""
  changes = {**request.getfixturevalue("tiny_changes"), **CHANGES}
  command = [sys.executable, "-m", "vfe.main", "--config=configs/lvmae_128.py:demo"]
  command += [f"--config.{key}={value}" for key, value in changes.items()]
  # One device and one cache of compiled programs for all of them.
  env = os.environ | {"XLA_FLAGS": request.getfixturevalue("quick_flags")}
  env |= {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
  env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

  def call(workdir):
    return subprocess.Popen(
      [*command, f"--workdir={workdir}"], cwd=request.config.rootpath, env=env,
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

  return call


def kill_at(process, checkpoint):
  """SIGKILL as soon as the checkpoint is complete."""
  while not checkpoint.is_dir():
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()


def finish(process):
  _, error = process.communicate(timeout=300)
  assert process.returncode == 0, error
  return error


def test_killed_in_both_stages_it_ends_with_the_same_bits(start, tmp_path):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  finish(start(whole))

  kill_at(start(killed), killed / "tokenizer" / "checkpoints" / "4")
  assert not (killed / "tokenizer" / "export").exists()
  kill_at(start(killed), killed / "pretrain" / "checkpoints" / "12")
  assert not (killed / "pretrain" / "export").exists()
  told = finish(start(killed))
  assert "pretrain: resumed at step" in told and "tokenizer: complete" in told

  for stage in ("tokenizer", "pretrain"):
    # The digest is over every byte of the exported parameters.
    digests = [
      json.loads((folder / stage / "export" / "export.json").read_text())["digest"]
      for folder in (whole, killed)
    ]
    assert digests[0] == digests[1]
