"""An evaluator: predict on padded batches, collect, finish.

The loop jits `predict`, runs the same number of steps on every process, and gives each process
all rows of the outputs; collectors leave out the rows that are padding.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from vfe.data.streams import Stream


class Collector(Protocol):
  """Holds what one pass over the evaluation data has given so far."""

  def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
    """Takes one batch of outputs (numpy, all rows) and the batch's small arrays."""

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Metrics by name; writes predictions and pictures where a folder is given."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """`predict(params, frozen, batch) -> outputs`, a pytree with leading dimension B, pure.

  `folder` is that of its files within the stage's; "", the stage's own.
  """

  name: str
  stream: Stream
  predict: Callable[[Any, Any, Any], Any]
  collector: Callable[[], Collector]
  folder: str = ""


class Means:
  """A collector of weighted means: outputs are {name: (sum [B], weight [B])}."""

  def __init__(self):
    self.sums: dict[str, float] = {}
    self.weights: dict[str, float] = {}

  def collect(self, outputs: Any, batch: dict[str, Any]) -> None:
    """Adds the valid rows."""
    valid = batch["valid"]
    for name, (total, weight) in outputs.items():
      self.sums[name] = self.sums.get(name, 0.0) + float(np.sum(total[valid], dtype=np.float64))
      self.weights[name] = self.weights.get(name, 0.0) + float(np.sum(weight[valid]))

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """sum / weight of every name; NaN where nothing had weight."""
    del folder
    return {n: s / self.weights[n] if self.weights[n] else np.nan for n, s in self.sums.items()}
