import io

import pytest

from vfe.train import clock as clocks


class Time:
  """A clock that goes when told."""

  def __init__(self):
    self.at = 100.0

  def __call__(self):
    return self.at

  def go(self, seconds):
    self.at += seconds


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def now():
  return Time()


def test_every_second_goes_to_the_innermost_name(now):
  clock = clocks.Clock(io.StringIO(), now)
  now.go(1)
  with clock("step"):
    now.go(2)
    with clock("compile"):
      now.go(4)
    now.go(8)
  assert clock.spent() == {"step": 10, "compile": 4, "other": 1}
  assert clock.seconds_since_start() == 15


def test_an_error_inside_still_counts(now):
  clock = clocks.Clock(io.StringIO(), now)
  with pytest.raises(KeyError), clock("data"):
    now.go(3)
    raise KeyError
  now.go(1)
  assert clock.spent() == {"data": 3, "other": 1}


def test_rates_are_of_the_steps_since_the_last_and_leave_out_what_is_not_training(now):
  clock = clocks.Clock(io.StringIO(), now)
  with clock("compile"):
    now.go(50)
  clock.start("pretrain", 100, 200, rows=8, tokens=100)
  with clock("data"):
    now.go(2)
  with clock("step"):
    now.go(6)
  with clock("eval"):
    now.go(10)
  assert clock.rates(104) == {
    "rate/steps_per_s": 0.5,
    "rate/clips_per_s": 4.0,
    "rate/tokens_per_s": 400.0,
    "time/data_share": 0.25,
    "time/data": 2.0,
    "time/step": 6.0,
    "time/eval": 10.0,
  }
  now.go(1)
  assert clock.rates(105) == {
    "rate/steps_per_s": 1.0,
    "rate/clips_per_s": 8.0,
    "rate/tokens_per_s": 800.0,
    "time/data_share": 0.0,
    "time/other": 1.0,
  }


def test_what_is_said_has_the_time(now):
  stream = io.StringIO()
  clock = clocks.Clock(stream, now)
  now.go(2.5)
  clock.say("pretrain: compiling")
  assert stream.getvalue() == "[    2.5 s] pretrain: compiling\n"


def test_a_stage_on_a_terminal(now):
  stream = Terminal()
  clock = clocks.Clock(stream, now)
  clock.start("pretrain", 0, 4, rows=1)
  clock.progress(1, {"loss": 0.51239})
  clock.finish()
  assert stream.getvalue() == f"pretrain step 1/4 [{'#' * 6}{'.' * 18}], loss 0.5124\n"


def test_elsewhere_progress_is_plain_lines(now):
  stream = io.StringIO()
  progress = clocks.Progress(clocks.Console(stream), "pretrain", 100, now=now)
  for step in range(1, 101):
    progress(step, "loss 0.5")
    now.go(1)
  lines = stream.getvalue().splitlines()
  assert lines[0] == "pretrain step 1/100, loss 0.5"
  assert lines[1] == "pretrain step 21/100 1 steps/s, 1:19 min to go, loss 0.5"
  assert lines[-1] == "pretrain step 100/100 1 steps/s, loss 0.5" and len(lines) == 6
  assert "\r" not in stream.getvalue()


def test_on_a_terminal_progress_is_one_line_below_what_is_said(now):
  stream = Terminal()
  console = clocks.Console(stream)
  progress = clocks.Progress(console, "pretrain", 2, now=now)
  progress(1)
  console.say("evaluating ...")
  now.go(1)
  progress(2)
  assert stream.getvalue() == (
    f"pretrain step 1/2 [{'#' * 12}{'.' * 12}]"
    "\r\033[Kevaluating ...\n"
    f"pretrain step 2/2 [{'#' * 24}] 1 steps/s\n"
  )


def test_durations():
  assert [clocks.duration(s) for s in (42.0, 185.0, 7400.0)] == ["42 s", "3:05 min", "2:03 h"]


@pytest.mark.parametrize(("waited", "shown"), [(1, True), (0.2, False)])
def test_a_large_share_of_waiting_for_data_is_shown(now, waited, shown):
  out = io.StringIO()
  clock = clocks.Clock(out, now)
  clock.start("pretrain", 0, 10, rows=8)
  with clock("data"):
    now.go(waited)
  with clock("step"):
    now.go(4 - waited)
  clock.rates(1)
  clock.progress(1, {"loss": 0.5})
  assert ("loss 0.5, 25% of the time waiting for data" in out.getvalue()) == shown
  assert "loss 0.5" in out.getvalue()
