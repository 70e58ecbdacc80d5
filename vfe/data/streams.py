"""Streams: the named parts of a batch, each with its own source and its own fixed size.

A mixture is a fixed count of each stream in a step, never a coin per row.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np

from vfe.data.prompt import Prompt
from vfe.data.record import Source
from vfe.data.spec import ClipSpec, clip_spec
from vfe.data.text import Text


@dataclasses.dataclass(frozen=True)
class Stream:
  """`batch` rows a step (over all processes) of clips of `source`, made as `spec` says.

  targets is the shape (N, d) of a clip's codes where `spec.stored` gives it stored targets.
  """

  source: Source
  spec: ClipSpec
  batch: int
  workers: int = 0
  buffer: int = 2
  targets: tuple[int, int] | None = None

  @classmethod
  def of(
    cls,
    source: Source,
    data: ml_collections.ConfigDict,
    batch: int,
    *,
    targets: tuple[int, int] | None = None,
    **changes: Any,
  ) -> "Stream":
    """The stream that a stage's data config describes; `changes` replace fields of its spec."""
    spec = dataclasses.replace(clip_spec(data), **changes)
    return cls(source, spec, batch, data.workers, data.buffer, targets)

  @classmethod
  def of_text(
    cls, source: Source, data: ml_collections.ConfigDict, batch: int, text: Text | Prompt
  ) -> "Stream":
    """Of texts alone: batches have no video, and none is opened."""
    return cls(source, ClipSpec.of_text(text), batch, data.workers, data.buffer)

  @property
  def steps_an_epoch(self) -> int:
    """Steps until every record has been decoded once, and its neighbour if asked; rounded up."""
    return math.ceil(len(self.source) * self.spec.together / self.batch)

  def train(self, seed: int, rows: np.ndarray, start: int) -> Iterator[dict[str, Any]]:
    """This process's rows of step `start`, `start + 1`, ... without end."""
    from vfe.data import pipeline  # Grain and PyAV, which those who only plan need not have

    dataset = pipeline.train_dataset(
      self.source, self.spec, seed=seed, batch=self.batch, rows=rows
    )
    return pipeline.iterate(dataset, start=start, workers=self.workers, buffer=self.buffer)

  def evaluate(self, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """This process's rows of every evaluation batch, in order, padded with `valid` False."""
    from vfe.data import pipeline

    dataset = pipeline.eval_dataset(self.source, self.spec, batch=self.batch, rows=rows)
    return pipeline.iterate(dataset, start=0, workers=self.workers, buffer=self.buffer)

  def shapes(self) -> dict[str, Any]:
    """What a step of training is given of this stream, over all processes, in arrays of no size."""
    rows = (self.batch,)
    of = lambda dtype, *more: np.broadcast_to(np.zeros((), dtype), (*rows, *more))
    size = self.spec.size
    batch = {
      "valid": of(bool),
      "row": of(np.int32),
      "label": {head: of(np.int32) for head in self.source.heads},
    }
    if self.spec.frames:
      batch["video"] = of(np.uint8, self.spec.frames, size, size, 3)
    if self.targets:
      tokens, channels = self.targets
      batch |= {"codes": of(np.uint8, tokens, channels), "importance": of(np.float32, tokens)}
    if self.spec.text:
      arrays = self.spec.text.arrays(training=True).items()
      batch["text"] = {name: of(dtype, *shape) for name, (dtype, shape) in arrays}
    return batch
