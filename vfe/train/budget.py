"""The input budget: whether the data come as fast as the training step takes them."""

import time
from collections.abc import Callable
from typing import Any

import jax

from vfe.train.feed import Feed

TIMED = 3  # the step that is timed: those before it warm up


class Budget:
  """Says once, after the first steps, what the step wants of the pipeline and what it gives.

      budget = Budget(feed, say)         # when the first batch is there: draws some more
      ...
      budget.before()
      state, metrics = step_function(state, frozen, batch)
      budget.after(metrics)

  The first steps are waited for, each alone: once they overlap with the wait for data, their own
  time cannot be told. A run that ends before has nothing to say. On several processes it is the
  first one's pipeline that is told of, which makes its share of every batch.
  """

  def __init__(
    self, feed: Feed, say: Callable[[str], None], now: Callable[[], float] = time.perf_counter
  ):
    self._feed, self._say, self._now = feed, say, now
    self._gives = feed.probe(now)  # steps a second
    self._steps = 0
    self._began = 0.0

  def before(self) -> None:
    """Called before a step is started."""
    self._began = self._now()

  def after(self, metrics: Any) -> None:
    """Called after it, with what it returned; waits for that in the first steps."""
    self._steps += 1
    if self._steps <= TIMED:
      jax.block_until_ready(metrics)
    if self._steps == TIMED:
      self._say(self.text(1 / max(self._now() - self._began, 1e-9)))

  def text(self, wants: float) -> str:
    """The line, where the step could be taken `wants` times a second."""
    frames = self._feed.frames
    of, unit = (frames, "frames") if frames else (self._feed.rows, "texts")
    line = (
      f"input budget: the step wants {of * wants:,.0f} {unit}/s, the pipeline gives about "
      f"{of * self._gives:,.0f}; its buffers take up to {size(self._feed.buffered)} of memory"
    )
    if self._gives >= wants:
      return line
    prepare = ", or prepare the videos" if frames else ""
    return f"{line}. Training will wait for data: raise data.workers{prepare}"


def size(count: int) -> str:
  """Bytes for a person."""
  return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
