"""Runs evaluators: the same number of steps on every process, outputs given to all of them.

Metrics are the same everywhere; the first process writes the files.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from vfe.data import pipeline
from vfe.evaluate.evaluator import Evaluator
from vfe.learn import hosts, sharding
from vfe.learn.batches import to_mesh

KEPT = ("record", "view", "start", "repeated")


class Evaluation:
  """An evaluator with its compiled program, to be run again as the parameters change."""

  def __init__(self, evaluator: Evaluator, mesh: jax.sharding.Mesh):
    """Raises UserError where the evaluator's batches do not divide evenly over the mesh."""
    sharding.check_batch(evaluator.stream.batch, mesh)
    self.name = evaluator.name
    self._evaluator = evaluator
    self._sharding = sharding.batch_sharding(mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    small = (*KEPT, "valid", "label")

    def predict(params, frozen, batch):
      outputs = evaluator.predict(params, frozen, batch)
      return outputs, {name: batch[name] for name in small if name in batch}

    self._predict = jax.jit(predict, out_shardings=everywhere)
    self._compiled: Any = None

  def run(self, params: Any, frozen: Any, folder: pathlib.Path | None = None) -> dict[str, float]:
    """One pass: metrics by `<evaluator>/<metric>`; files are written where a folder is given."""
    stream = self._evaluator.stream
    batches = stream.evaluate(pipeline.local_rows(self._sharding, stream.batch))
    collector = self._evaluator.collector()
    folder = folder / self._evaluator.folder if folder is not None and hosts.first() else None
    for batch in batches:
      given = params, frozen, to_mesh(batch, self._sharding, KEPT)
      if self._compiled is None:
        self._compiled = hosts.compiled(self._predict, *given)
      collector.collect(*jax.tree.map(np.asarray, self._compiled(*given)))
    return {f"{self.name}/{key}": value for key, value in collector.finish(folder).items()}
