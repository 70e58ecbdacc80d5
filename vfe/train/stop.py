"""SIGTERM and Ctrl-C: a stage that trains saves after the step it is at, all else ends at once.

Either way the process ends with EXIT_STOPPED, and the same command goes on from what is there. A
second signal ends it as signals do, without saving.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax

from vfe.learn import hosts

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be tried again
SIGNALS = (signal.SIGTERM, signal.SIGINT)

_loops = itertools.count()


@contextlib.contextmanager
def at_once(say: Callable[[str], None]) -> Iterator[None]:
  """What runs inside ends with EXIT_STOPPED when it is told to stop."""

  told: list[str] = []

  def end(number: int, frame: FrameType | None) -> None:
    del frame
    _handle(signal.SIG_DFL)
    told.append(signal.Signals(number).name)
    raise SystemExit(EXIT_STOPPED)

  before = _handle(end)
  try:
    yield
  except SystemExit:
    if told:
      say(f"stopped by {told[0]}; the same command goes on")
    raise
  finally:
    _restore(before)


class Stop:
  """A training loop that can be told to stop: at the same step on every process.

      with Stop() as stop:
        for done in range(start + 1, steps + 1):
          ...
          if stop.after(done):
            ...  # save, and leave with EXIT_STOPPED

  A process that has been told tells the others through their common store. Each of them then holds
  its loop back for a moment, and says how far it is; the last step is one more than the furthest.
  Steps that are already under way on the devices are not waited for, as they may need others.
  """

  def __init__(self):
    self.signal = "a signal of another process"
    self._asked = self._passed_on = False
    self._done = 0
    self._last: int | None = None
    self._held = threading.Lock()
    self._store = hosts.client()
    self._key = f"vfe/stop/{next(_loops)}"

  def __enter__(self) -> "Stop":
    self._before = _handle(self._ask)
    if self._store is not None:
      threading.Thread(target=self._agree, daemon=True).start()
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    _restore(self._before)
    self._tell("over")
    if self._asked and kind is None:  # after the last step: whoever comes next is to know
      signal.raise_signal(signal.SIGTERM)

  def after(self, done: int) -> bool:
    """Whether step `done` is the last. To be called after every step, by every process."""
    with self._held:
      self._done = done
      if self._store is None:
        return self._asked
      if self._asked and not self._passed_on:
        self._passed_on = True
        self._tell("stop")
      return self._last is not None and done >= self._last

  def _ask(self, number: int, frame: FrameType | None) -> None:
    del frame
    _handle(signal.SIG_DFL)  # the second one ends the process
    self.signal = signal.Signals(number).name
    self._asked = True

  def _tell(self, what: str) -> None:
    if self._store is not None:
      with contextlib.suppress(Exception):  # told already
        self._store.key_value_set(self._key, what)

  def _agree(self) -> None:
    with contextlib.suppress(Exception):  # the store is closed at the end of the process
      if self._store.blocking_key_value_get(self._key, hosts.FOREVER) == "over":
        return
      with self._held:
        self._store.key_value_set(f"{self._key}/{jax.process_index()}", str(self._done))
        steps = [
          int(self._store.blocking_key_value_get(f"{self._key}/{process}", hosts.FOREVER))
          for process in range(jax.process_count())
        ]
        self._last = max(steps) + 1


def _handle(action: Any) -> dict[int, Any]:
  """Gives both signals an action and returns what they had; only the main thread may."""
  if threading.current_thread() is not threading.main_thread():
    return {}
  return {number: signal.signal(number, action) for number in SIGNALS}


def _restore(before: dict[int, Any]) -> None:
  for number, action in before.items():
    # None: it was not set from Python (JAX's own, which waits for calls that we do not make).
    signal.signal(number, signal.SIG_DFL if action is None else action)
