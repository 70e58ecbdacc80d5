"""The log of a training stage: the one place where its loop reads from the devices."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vfe.errors import UserError
from vfe.learn.state import Guard
from vfe.stages.stage import Stage
from vfe.train.clock import Clock
from vfe.train.writers import Writer


class Log:
  """Keeps the metrics of every step on the devices, and reads them for a line of the log."""

  def __init__(self, stage: Stage, writer: Writer, clock: Clock, say: Callable[[str], None]):
    self._stage, self._writer, self._clock, self._say = stage, writer, clock, say
    self._unread: list[dict[str, tuple[Any, Any]]] = []

  def add(self, metrics: dict[str, tuple[Any, Any]]) -> None:
    """Takes the metrics of one step: (sum, weight) by name. Waits for nothing."""
    self._unread.append(metrics)

  def line(self, done: int, guard: Guard, beside: Callable[[], dict[str, float]]) -> None:
    """Writes the means since the last line, learning rates, rates, and what `beside` gives.

    `beside` may ask other processes: it is called when no step is under way. (On the CPU nothing
    keeps two computations that need other processes in the same order on all of them.)

    Raises:
      UserError: too many updates in a row were skipped.
    """
    found = means(self._unread)
    guard = jax.device_get(guard)
    found |= learning_rates(self._stage, done - 1) | beside()
    if guard.step >= done - len(self._unread):
      limit = self._stage.setting.config.guard.steps_in_a_row
      report_skipped(self._stage.name, guard, done, self._say, limit)
    self._writer.scalars(done, found | self._clock.rates(done))
    self._clock.progress(done, found)
    self._unread.clear()


def means(unread: list[dict[str, tuple[Any, Any]]]) -> dict[str, float]:
  """sum / weight of every metric over some steps, where it has weight. Reads the device."""
  totals: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(2))
  for metrics in jax.device_get(unread):
    for name, pair in metrics.items():
      totals[name] += np.asarray(pair, np.float64)
  return {name: float(total / weight) for name, (total, weight) in totals.items() if weight}


def learning_rates(stage: Stage, step: int) -> dict[str, float]:
  """Of every group, at an update counted from 0."""
  return {
    f"learning_rate/{name}": float(update.schedule(step)) for name, update in stage.updates.items()
  }


def report_skipped(name: str, guard: Guard, done: int, say: Callable, limit: int) -> None:
  """Tells of updates that were skipped because something was not finite.

  Raises:
    UserError: `limit` steps in a row, up to the last of `done`, were skipped.
  """
  what = f"step {guard.step}: loss {guard.loss:g}, gradient norm {guard.norm:g}"
  if guard.step == done - 1 and guard.in_a_row >= limit:
    raise UserError(
      f"{name}: {guard.in_a_row} updates in a row were not finite, the last at {what}; lower "
      f"config.{name}.optimizer.base_lr, set its clip_norm, or look at the data."
    )
  say(f"updates skipped so far, because not finite: {guard.skipped}; the last at {what}")
