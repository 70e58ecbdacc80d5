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
  clock = clocks.Clock(clocks.Console(io.StringIO()), now=now)
  now.go(1)
  with clock("step"):
    now.go(2)
    with clock("compile"):
      now.go(4)
    now.go(8)
  assert clock.spent() == {"step": 10, "compile": 4, "other": 1}
  assert clock.seconds() == 15


def test_an_error_inside_still_counts(now):
  clock = clocks.Clock(clocks.Console(io.StringIO()), now=now)
  with pytest.raises(KeyError), clock("data"):
    now.go(3)
    raise KeyError
  now.go(1)
  assert clock.spent() == {"data": 3, "other": 1}


def test_a_lap_starts_at_zero(now):
  clock = clocks.Clock(clocks.Console(io.StringIO()), now=now)
  with clock("data"):
    now.go(3)
  assert clock.lap() == {"data": 3, "other": 0, "wall": 3}
  with clock("data"):
    now.go(1)
  now.go(1)
  assert clock.lap() == {"data": 1, "other": 1, "wall": 2}


def test_rates_leave_out_what_is_not_training():
  lap = {"data": 2.0, "step": 6.0, "compile": 10.0, "other": 0.0, "wall": 18.0}
  measured = clocks.rates(lap, steps=4, batch=8, tokens=100)
  assert measured["rate/clips_per_s"] == 4.0 and measured["rate/tokens_per_s"] == 400.0
  assert measured["time/data_share"] == 0.25 and measured["time/compile_s"] == 10.0


def test_announcements_come_before_the_work(now):
  stream = io.StringIO()
  clock = clocks.Clock(clocks.Console(stream), "pretrain", now=now)
  now.go(2.5)
  with clock("compile", "compiling the step"):
    assert stream.getvalue() == "[    2.5 s] pretrain: compiling the step ...\n"


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
