"""SIGTERM: the step is finished and saved; outside of steps the process ends; twice is at once."""

import signal

import pytest

from vfe.train import run, stop
from vfe.train.log import Log


@pytest.fixture(autouse=True)
def handlers_are_given_back():
  before = [signal.getsignal(number) for number in stop.SIGNALS]
  yield
  assert [signal.getsignal(number) for number in stop.SIGNALS] == before


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_the_step_in_which_it_comes_is_the_last(number):
  with pytest.raises(SystemExit), stop.Stop() as stopping:
    assert not stopping.after(1)
    signal.raise_signal(number)
    assert stopping.after(2) and stopping.signal == number.name
    raise SystemExit(stop.EXIT_STOPPED)


def test_the_second_one_ends_the_process():
  with pytest.raises(SystemExit), stop.Stop():
    signal.raise_signal(signal.SIGINT)
    assert all(signal.getsignal(number) == signal.SIG_DFL for number in stop.SIGNALS)
    raise SystemExit(stop.EXIT_STOPPED)


def test_what_does_not_train_ends_at_once(capsys):
  with pytest.raises(SystemExit) as ended, stop.at_once(print):
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("unreachable")
  assert ended.value.code == 75
  assert capsys.readouterr().out == "stopped by SIGTERM; the same command goes on\n"


def test_one_that_comes_in_the_last_step_is_for_what_follows():
  with pytest.raises(SystemExit) as ended, stop.at_once(print), stop.Stop():
    signal.raise_signal(signal.SIGTERM)
  assert ended.value.code == 75


def test_a_stage_is_saved_and_says_so(tiny_pixels, tmp_path, monkeypatch, capfd):
  config = tiny_pixels({"pretrain.steps": 6, "checkpoint.every": 100})
  write = Log.line

  def stopped_at_two(log, done, *rest):
    write(log, done, *rest)
    if done == 2:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(Log, "line", stopped_at_two)
  with pytest.raises(SystemExit) as ended:
    run.recipe(config, workdir=tmp_path)
  assert ended.value.code == 75
  assert "pretrain: SIGTERM: saved at step 3 of 6; the same command" in capfd.readouterr().err
  checkpoints = tmp_path / "pretrain" / "checkpoints"
  assert [folder.name for folder in checkpoints.iterdir()] == ["3"]
  assert not (tmp_path / "pretrain" / "done.json").exists()
