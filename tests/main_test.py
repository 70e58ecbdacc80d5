"""The command line: what it accepts, and one line with exit code 2 for what it does not."""

import os
import subprocess
import sys

import pytest
from absl import flags

from vfe import main

CONFIG = "--config=configs/lvmae_128.py:demo"


@pytest.fixture
def parse(monkeypatch, request):
  """Parses flags as the command line does, from the project's root."""
  monkeypatch.chdir(request.config.rootpath)

  def call(*arguments):
    flags.FLAGS.unparse_flags()
    monkeypatch.setattr("sys.argv", ["vfe", *arguments])  # config_flags reads it
    return main.parse_flags(["vfe", *arguments])

  yield call
  flags.FLAGS.unparse_flags()


REFUSED = [
  ([], "--config is missing; try --config=configs/lvmae_128.py:demo"),
  (["--config=configs/none.py"], "--config=configs/none.py: no such file"),
  (["--config=configs/lvmae_128.py:size=b,frame=3"], "'frame' is unknown (nearest: frames)"),
  (["--config=configs/lvmae_128.py:size=xl"], "configs/lvmae_128.py: size='xl' is unknown"),
  ([CONFIG, "--config.pretrain.bach=4"], "pretrain.bach is unknown (nearest: pretrain.batch)"),
  ([CONFIG, "--config.pretrane.batch=4"], "pretrane.batch is unknown (nearest: pretrain.batch)"),
  ([CONFIG, "--config.pretrain.batch=four"], "--config.pretrain.batch='four' is not of type int"),
  ([CONFIG, "--config.data.path=a", "--config.seed=x"], "--config.seed='x' is not of type int"),
  ([CONFIG, "--stge=pretrain"], "--stge is unknown (nearest: stage)"),
]  # fmt: skip


@pytest.mark.parametrize("arguments,told", REFUSED, ids=lambda value: str(value)[-30:])
def test_a_wrong_flag_is_one_line_and_exit_code_2(parse, capfd, arguments, told):
  with pytest.raises(SystemExit) as stopped:
    parse(*arguments)
  assert stopped.value.code == 2
  error = capfd.readouterr().err
  assert told in error and error.count("\n") == 1 and error.startswith("vfe: ")


def test_values_of_every_type_are_taken(parse):
  parse(
    CONFIG,
    "--config.pretrain.steps=7",
    "--config.tokenizer.data.path=/a/b",
    "--config.finetune.freeze=True",
    "--config.pretrain.optimizer.base_lr=3e-4",
    "--config.model.tubelet=(2,8,8)",
  )
  config = flags.FLAGS.config
  assert config.pretrain.steps == 7 and config.tokenizer.data.path == "/a/b"
  assert config.finetune.freeze and config.pretrain.optimizer.base_lr == 3e-4
  assert config.model.tubelet == (2, 8, 8)
  assert main.default_workdir(config) == "runs/lvmae_128-demo"


def test_a_process_ends_with_2_and_without_a_trace(request, tmp_path):
  command = [sys.executable, "-m", "vfe.main", "--config=configs/lvmae_128.py:demo,data=/no/videos"]
  command += [f"--workdir={tmp_path}/run"]
  run = subprocess.run(
    command, cwd=request.config.rootpath, env=os.environ, capture_output=True, text=True
  )
  assert run.returncode == 2
  last = run.stderr.strip().splitlines()[-1]
  assert last.startswith("vfe: data.path=/no/videos does not exist")
  assert "Traceback" not in run.stderr
  assert not (tmp_path / "run" / "tokenizer").exists()
