"""Batches on their way to the mesh: counted, checked for faults, made global."""

import collections
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vfe.data import pipeline
from vfe.data.faults import Fault, reason
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.learn import hosts, sharding
from vfe.learn.batches import to_mesh

PROBE_SECONDS = 5.0  # that a probe of the pipeline takes at most, or one batch if that takes longer


class Faults:
  """Counts unreadable videos: each is named once, and too large a share is an error.

  Of several processes each counts and names its own. What they add up to is an error of all of
  them, at the next line of the log.
  """

  MIN_ROWS = 100  # a share of fewer rows says nothing

  def __init__(self, stream: Stream, limit: float, say: Callable[[str], None]):
    self.stream, self.limit, self.say = stream, limit, say
    self.rows = self.faulty = self.short = 0
    self.named: set[int] = set()

  def count(self, batch: dict[str, np.ndarray]) -> None:
    """Takes in one batch of this process. Raises what `metrics` does, if there is no other."""
    valid = batch["valid"]
    self.rows += int(valid.sum())
    self.short += int((batch["repeated"][valid] > 0).sum())
    bad = valid & (batch["fault"] != Fault.NONE)
    self.faulty += int(bad.sum())
    for record, fault in zip(batch["faulty"][bad], batch["fault"][bad], strict=True):
      if int(record) not in self.named:
        self.named.add(int(record))
        name = self.stream.source[int(record)].name
        self.say(f"unreadable video replaced: {name}: {reason(Fault(int(fault)))}")
    if hosts.client() is None:
      self._check(self.rows, self.faulty)

  def metrics(self) -> dict[str, float]:
    """Shares since the start of this run's processes, which all call this.

    Raises:
      UserError: the share of unreadable videos is above `data.max_fault_share`.
    """
    mine = {"rows": self.rows, "faulty": self.faulty, "short": self.short}
    found = {name: int(count) for name, count in hosts.summed(mine).items()}
    self._check(found["rows"], found["faulty"])
    rows = max(found["rows"], 1)
    return {"data/unreadable": found["faulty"] / rows, "data/short": found["short"] / rows}

  def _check(self, rows: int, faulty: int) -> None:
    if rows >= self.MIN_ROWS and faulty > self.limit * rows:
      raise UserError(
        f"{self.stream.source.name}: {faulty} of {rows} clips were of unreadable videos, more than "
        f"data.max_fault_share={self.limit}; they are named above. Mend or remove them, or raise "
        "the share."
      )


class Feed:
  """An endless iterator of global batches `{stream: {name: jax.Array}}` from step `start`.

  Attributes:
    rows, frames: of a batch, over all processes; no frames where all rows are texts.
    buffered: bytes of this process's buffers once they are full; known after the first batch.
  """

  def __init__(
    self,
    streams: dict[str, Stream],
    mesh: jax.sharding.Mesh,
    *,
    seed: int,
    start: int,
    max_fault_share: float,
    say: Callable[[str], None],
  ):
    self.rows = sum(stream.batch for stream in streams.values())
    self.frames = sum(stream.batch * stream.spec.frames for stream in streams.values())
    self.buffered = 0
    self._streams = streams
    self._drawn: collections.deque[dict[str, Any]] = collections.deque()
    self._sharding = sharding.batch_sharding(mesh)
    self._faults = {n: Faults(s, max_fault_share, say) for n, s in streams.items()}
    self._iterators = {
      name: stream.train(seed, pipeline.local_rows(self._sharding, stream.batch), start)
      for name, stream in streams.items()
    }

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return self

  def __next__(self) -> dict[str, Any]:
    batch = self._drawn.popleft() if self._drawn else self._draw()
    for name, part in batch.items():
      self._faults[name].count(part)
    return {name: to_mesh(part, self._sharding) for name, part in batch.items()}

  def probe(self, now: Callable[[], float] = time.perf_counter) -> float:
    """Batches a second that this process's pipeline gives when nobody is in its way.

    Call it when the first batch has come: the pipeline is warm then and its buffers are empty. The
    batches that it draws are kept for the steps that they are of.
    """
    # As many come at once as are made at once; whole rounds of these are needed to tell the rate.
    at_once = max(
      stream.workers or min(stream.buffer, os.cpu_count() or 1) for stream in self._streams.values()
    )
    began = now()
    while len(self._drawn) < 2 * at_once and (not self._drawn or now() - began < PROBE_SECONDS):
      self._drawn.append(self._draw())
    return len(self._drawn) / max(now() - began, 1e-9)

  def _draw(self) -> dict[str, Any]:
    """The next batch, still of this process alone."""
    batch = {name: next(iterator) for name, iterator in self._iterators.items()}
    if not self.buffered:
      self.buffered = sum(
        max(stream.workers, 1) * stream.buffer * _bytes(batch[name])
        for name, stream in self._streams.items()
      )
    return batch

  def metrics(self) -> dict[str, float]:
    """Shares of unreadable and short clips, over all streams summed by name."""
    total: dict[str, float] = collections.defaultdict(float)
    for faults in self._faults.values():
      for name, value in faults.metrics().items():
        total[name] += value / len(self._faults)
    return dict(total)

  def close(self) -> None:
    """Ends the decoding workers."""
    for iterator in self._iterators.values():
      iterator.close()


def _bytes(batch: dict[str, Any]) -> int:
  return sum(array.nbytes for array in jax.tree.leaves(batch))
