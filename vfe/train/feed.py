"""Batches on their way to the mesh: counted, checked for faults, made global."""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vfe.data import pipeline
from vfe.data.faults import Fault, reason
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.learn import hosts, sharding

# What a batch carries for the host only: it would cost a transfer and is never computed on.
HOST_ONLY = ("record", "view", "start", "repeated", "fault", "faulty")


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
  """An endless iterator of global batches `{stream: {name: jax.Array}}` from step `start`."""

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
    self._sharding = sharding.batch_sharding(mesh)
    self._faults = {n: Faults(s, max_fault_share, say) for n, s in streams.items()}
    self._iterators = {
      name: stream.train(seed, pipeline.local_rows(self._sharding, stream.batch), start)
      for name, stream in streams.items()
    }

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return self

  def __next__(self) -> dict[str, Any]:
    batch = {name: next(iterator) for name, iterator in self._iterators.items()}
    for name, part in batch.items():
      self._faults[name].count(part)
    return {name: to_mesh(part, self._sharding) for name, part in batch.items()}

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


def to_mesh(batch: dict[str, Any], where: jax.sharding.Sharding, keep: tuple[str, ...] = ()) -> Any:
  """The arrays that are computed on, as global arrays over the mesh."""
  batch = {k: v for k, v in batch.items() if k not in HOST_ONLY or k in keep}
  return sharding.to_global(batch, where)
