"""Mean average precision of videos with several classes each: Charades, Charades-Ego."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vfe.data.record import Source
from vfe.evaluate.views import mean_over_views

FILE = "multi_label.csv"


class MultiLabel:
  """A collector (`vfe.evaluate.evaluator`) of the scores of all classes.

  A record's text has `classes`, the numbers of those that it shows. Scores are averaged over the
  views of a record; padding is left out, and a row that comes twice counts once. A record whose
  scores are not finite comes last in all classes; of equal ones the wrong come first.
  """

  def __init__(self, source: Source, classes: tuple[str, ...]):
    """classes: the names of all, by number."""
    self._source, self._classes = source, classes
    self._rows: list[np.ndarray] = []  # int64[n, 2]: record, view
    self._scores: list[np.ndarray] = []  # float64[n, C]

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: scores float[B,C], such as cosines with the classes' texts; higher is likelier.
      batch: valid bool[B]; record and view int32[B].
    """
    valid = np.asarray(batch["valid"])
    rows = np.stack([np.asarray(batch["record"]), np.asarray(batch["view"])], axis=1)
    self._rows.append(rows[valid].astype(np.int64))
    self._scores.append(np.asarray(outputs["scores"], np.float64)[valid])

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`mAP` in [0, 1], the mean over the classes that any record shows; `weighted_mAP`, by how many
    show them; `classes`, how many are shown; `clips` and, where videos could not be read,
    `clips_missing`.

    A folder gets `multi_label.csv`, a line for every class: its name, how many records show it and
    its average precision.
    """
    records, scores = self._averaged()
    labels = np.zeros(scores.shape, bool)
    for row, record in enumerate(records):
      labels[row, list(self._source[int(record)].text["classes"])] = True
    precision, shown = average_precisions(scores, labels), labels.sum(0)
    there = shown > 0
    metrics = {
      "mAP": _mean(precision[there]),
      "weighted_mAP": _mean(np.repeat(precision[there], shown[there])),
      "classes": float(there.sum()),
      "clips": float(len(records)),
    }
    if len(records) < len(self._source):
      metrics["clips_missing"] = float(len(self._source) - len(records))
    if folder is not None:
      folder = pathlib.Path(folder)
      folder.mkdir(parents=True, exist_ok=True)
      with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
        rows = zip(self._classes, shown.tolist(), precision.tolist(), strict=True)
        csv.writer(file).writerows([("class", "clips", "average_precision"), *rows])
    return metrics

  def _averaged(self) -> tuple[np.ndarray, np.ndarray]:
    """(records ascending, float64[records, C])"""
    if not sum(map(len, self._rows)):
      return np.zeros(0, np.int64), np.zeros((0, len(self._classes)))
    return mean_over_views(np.concatenate(self._rows), np.concatenate(self._scores))


def average_precisions(
  scores: Float[np.ndarray, "N C"], labels: Bool[np.ndarray, "N C"]
) -> Float[np.ndarray, "C"]:
  """Of every class, NaN where none shows it: the mean, over those that do, of the precision there.

  Charades' measure (arXiv 1604.01753): a video that shows no class at all comes last, whatever its
  scores.
  """
  last = ~np.isfinite(scores).all(1) | ~labels.any(1)
  scores = np.where(last[:, None], -np.inf, scores)
  order = np.lexsort((labels, -scores), axis=0)
  ranked = np.take_along_axis(labels, order, 0)
  precision = np.cumsum(ranked, axis=0) / np.arange(1, len(ranked) + 1)[:, None]
  with np.errstate(invalid="ignore"):
    return np.sum(precision * ranked, axis=0) / ranked.sum(0)


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else float("nan")
