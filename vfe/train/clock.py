"""Where the time of a run goes, by name, and what a person sees of it while it goes."""

import collections
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import jax

# Seconds between two plain lines, and between two redraws of the bar.
PLAIN_EVERY = 20.0
BAR_EVERY = 0.2


class Console:
  """Lines for a person: on a terminal with a bar under them, plain ones elsewhere.

  Silent on every process but the first.
  """

  def __init__(self, stream: io.TextIOBase | None = None):
    self._stream = sys.stderr if stream is None else stream
    self._first = jax.process_index() == 0
    self.terminal = self._first and self._stream.isatty()
    self._bar = 0  # characters of the bar that stands on the last line

  def say(self, text: str) -> None:
    """Prints a line, above the bar where there is one."""
    if self._first:
      self._stream.write(self._wipe() + text + "\n")
      self._stream.flush()

  def bar(self, text: str) -> None:
    """Rewrites the bar, on a terminal."""
    if self.terminal:
      self._stream.write(self._wipe() + text)
      self._stream.flush()
      self._bar = len(text)

  def end_bar(self) -> None:
    """Leaves the bar as it stands and starts a new line."""
    if self._bar:
      self._stream.write("\n")
      self._stream.flush()
      self._bar = 0

  def _wipe(self) -> str:
    wiped, self._bar = ("\r\033[K" if self._bar else ""), 0
    return wiped


class Clock:
  """Seconds by name. Each second goes to one name: the innermost that is open.

  clock = Clock(console, "pretrain")
  with clock("data"):
    batch = next(batches)
  with clock("compile", "compiling the training step"):  # said before it starts
    ...
  """

  def __init__(
    self, console: Console, label: str = "", now: Callable[[], float] = time.perf_counter
  ):
    self.console = console
    self._label = f"{label}: " if label else ""
    self._now = now
    self._start = self._lap_start = self._since = now()
    self._open: list[str] = []
    self._spent: dict[str, float] = collections.defaultdict(float)
    self._at_lap: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, name: str, announcement: str = "") -> Iterator[None]:
    """Accounts what happens inside to `name`; announces it first where there is something to say.

    Work on the device is dispatched asynchronously: wait for it inside if it is to be counted.
    """
    if announcement:
      self.announce(announcement)
    self._charge()
    self._open.append(name)
    try:
      yield
    finally:
      self._charge()
      self._open.pop()

  def announce(self, text: str) -> None:
    """Says what starts now, with the seconds since the clock was made."""
    self.console.say(f"[{self.seconds():7.1f} s] {self._label}{text} ...")

  def say(self, text: str) -> None:
    """Says what is the case, with the seconds since the clock was made."""
    self.console.say(f"[{self.seconds():7.1f} s] {self._label}{text}")

  def seconds(self) -> float:
    """Since the clock was made."""
    return self._now() - self._start

  def spent(self) -> dict[str, float]:
    """Seconds by name since the clock was made; what no name was open for is `other`."""
    self._charge()
    named = dict(self._spent)
    other = self._since - self._start - sum(named.values())
    return {**named, "other": max(other, 0.0)}

  def lap(self) -> dict[str, float]:
    """Seconds by name since the last lap; `wall` is all of them."""
    spent = self.spent()
    lap = {name: seconds - self._at_lap.get(name, 0.0) for name, seconds in spent.items()}
    lap["wall"] = self._since - self._lap_start
    self._at_lap, self._lap_start = spent, self._since
    return lap

  def _charge(self) -> None:
    now = self._now()
    if self._open:
      self._spent[self._open[-1]] += now - self._since
    self._since = now


# What is not training: left out of the rates.
BESIDE = ("compile", "checkpoint", "eval")


def rates(lap: Mapping[str, float], *, steps: int, batch: int, tokens: int = 0) -> dict[str, float]:
  """What the log says of a lap of `steps` steps of `batch` clips of `tokens` tokens each.

  Rates are over the lap without compiling, checkpoints and evaluation, the wait for data included;
  `time/data_share` is that wait's share. Seconds by name are those of the lap.
  """
  training = max(lap["wall"] - sum(lap.get(name, 0.0) for name in BESIDE), 1e-9)
  clips = steps * batch / training
  measured = {"rate/steps_per_s": steps / training, "rate/clips_per_s": clips}
  if tokens:
    measured["rate/tokens_per_s"] = clips * tokens
  measured["time/data_share"] = lap.get("data", 0.0) / training
  return measured | {f"time/{name}_s": seconds for name, seconds in lap.items()}


class Progress:
  """How far a run is: a bar on a terminal, a line every 20 seconds elsewhere.

  steps: updates in the run. The time to come is judged by the steps after the first call, which
  waited for the compiler.
  """

  def __init__(
    self,
    console: Console,
    label: str,
    steps: int,
    now: Callable[[], float] = time.perf_counter,
  ):
    self._console = console
    self._label, self._steps = label, steps
    self._now = now
    self._first: tuple[float, int] | None = None
    self._shown = -float("inf")

  def __call__(self, step: int, note: str = "") -> None:
    """Shows that `step` updates are done; note: what else to show, such as the loss."""
    now = self._now()
    if self._first is None:
      self._first = (now, step)
    terminal = self._console.terminal
    every = BAR_EVERY if terminal else PLAIN_EVERY
    if now - self._shown < every and step < self._steps:
      return
    self._shown = now
    show = self._console.bar if terminal else self._console.say
    show(self._text(step, now, note, terminal))
    if step >= self._steps:
      self._console.end_bar()

  def _text(self, step: int, now: float, note: str, terminal: bool) -> str:
    since, first = self._first or (now, step)
    text = f"{self._label} step {step}/{self._steps}"
    if terminal:
      filled = round(24 * step / max(self._steps, 1))
      text = f"{text} [{'#' * filled}{'.' * (24 - filled)}]"
    if step > first and now > since:
      speed = (step - first) / (now - since)
      text += f" {speed:.3g} steps/s"
      if step < self._steps:
        text += f", {duration((self._steps - step) / speed)} to go"
    return f"{text}, {note}" if note else text


def duration(seconds: float) -> str:
  """`42 s`, `3:05 min` or `2:03 h`."""
  if seconds < 60:
    return f"{seconds:.0f} s"
  minutes = round(seconds / 60)
  if seconds < 3600:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"
  return f"{minutes // 60}:{minutes % 60:02} h"
