"""Where the time of a run goes, by name, and what a person sees of it while it goes."""

import collections
import contextlib
import dataclasses
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import jax

# Seconds between two plain lines, and between two redraws of the bar.
PLAIN_EVERY = 20.0
BAR_EVERY = 0.2

STARVED = 0.1  # a larger share of the time in waiting for data is shown beside the progress

# What is not training: left out of the rates.
BESIDE = ("compile", "checkpoint", "eval")


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
  """Seconds of a run by name. Each second goes to one name: the innermost that is open.

      clock = Clock()
      clock.say("pretrain: compiling")
      with clock("compile"):
        ...
      clock.start("pretrain", start, steps, rows=rows, tokens=tokens)
      ...                                # in the loop, at a log line:
      scalars |= clock.rates(done)
      clock.progress(done, scalars)
      ...
      clock.finish()

  stream: where a person reads along, default stderr. now: seconds, from anywhere.
  """

  def __init__(
    self, stream: io.TextIOBase | None = None, now: Callable[[], float] = time.perf_counter
  ):
    self._console = Console(stream)
    self._now = now
    self._started = self._since = now()
    self._open: list[str] = []
    self._spent: dict[str, float] = collections.defaultdict(float)
    self._lap = _Lap(self._started, {}, 0)
    self._rows = self._tokens = 0
    self._data_share = 0.0
    self._progress: Progress | None = None

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Accounts what happens inside to `name`.

    Work on the device is dispatched asynchronously: wait for it inside if it is to be counted.
    """
    self._charge()
    self._open.append(name)
    try:
      yield
    finally:
      self._charge()
      self._open.pop()

  def say(self, text: str) -> None:
    """A line for a person, after the seconds since the start. Say what is slow before it starts."""
    self._console.say(f"[{self.seconds_since_start():7.1f} s] {text}")

  def seconds_since_start(self) -> float:
    """Since the clock was made."""
    return self._now() - self._started

  def spent(self) -> dict[str, float]:
    """Seconds by name since the clock was made; what no name was open for is `other`."""
    self._charge()
    named = dict(self._spent)
    other = self._since - self._started - sum(named.values())
    return {**named, "other": max(other, 0.0)}

  def start(self, label: str, step: int, steps: int, *, rows: int, tokens: int = 0) -> None:
    """A stage goes on from `step` of `steps`, each of `rows` clips of `tokens` tokens."""
    spent = self.spent()
    self._lap = _Lap(self._since, spent, step)
    self._rows, self._tokens = rows, tokens
    self._progress = Progress(self._console, label, steps, now=self._now)

  def rates(self, step: int) -> dict[str, float]:
    """What the log says of the steps since the last call, or since `start`.

    Rates are over the time without compiling, checkpoints and evaluation, but with the wait for
    data, whose share is `time/data_share`; `time/<name>` are seconds.
    """
    spent = self.spent()
    seconds = {name: total - self._lap.spent.get(name, 0.0) for name, total in spent.items()}
    wall = self._since - self._lap.at
    training = max(wall - sum(seconds.get(name, 0.0) for name in BESIDE), 1e-9)
    speed = (step - self._lap.step) / training
    measured = {"rate/steps_per_s": speed, "rate/clips_per_s": speed * self._rows}
    if self._tokens:
      measured["rate/tokens_per_s"] = speed * self._rows * self._tokens
    self._data_share = seconds.get("data", 0.0) / training
    measured["time/data_share"] = self._data_share
    self._lap = _Lap(self._since, spent, step)
    return measured | {f"time/{name}": value for name, value in seconds.items() if value}

  def progress(self, step: int, scalars: Mapping[str, float]) -> None:
    """Shows that `step` steps are done, with the loss where there is one.

    Also the share of the time that was spent waiting for data, as `rates` last found it, where it
    is large.
    """
    notes = [f"loss {scalars['loss']:.4g}"] if "loss" in scalars else []
    if self._data_share >= STARVED:
      notes.append(f"{self._data_share:.0%} of the time waiting for data")
    if self._progress is not None:
      self._progress(step, ", ".join(notes))

  def finish(self) -> None:
    """The stage has taken its last step."""
    self._console.end_bar()
    self._progress = None

  def _charge(self) -> None:
    now = self._now()
    if self._open:
      self._spent[self._open[-1]] += now - self._since
    self._since = now


@dataclasses.dataclass(frozen=True)
class _Lap:
  """Where the rates start: the time, the seconds by name, the step."""

  at: float
  spent: dict[str, float]
  step: int


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
