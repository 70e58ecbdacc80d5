"""Top-1 and top-5 of every label head over all views of a clip, and the predictions as CSV."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vfe.data.record import Source

FILE = "predictions.csv"
TOP = 5


class Classification:
  """A collector (`vfe.evaluate.evaluator`) of class probabilities.

  Probabilities are averaged over the views of a record, in the order of the views, whatever the
  order and the batches in which they came; padding is left out, and a row that comes twice counts
  once. A row whose probabilities are not finite is wrong, never right by chance.
  """

  def __init__(self, source: Source, heads: Sequence[str] | None = None):
    """heads: those of the source that are predicted; default: all."""
    self._source = source
    self._heads = {head: source.heads[head] for head in heads or source.heads}
    self._rows: list[np.ndarray] = []  # int32[n, 2]: record, view
    self._probabilities: dict[str, list[np.ndarray]] = {head: [] for head in self._heads}
    self._labels: dict[str, list[np.ndarray]] = {head: [] for head in self._heads}

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: by head, float[B,C] probabilities.
      batch: valid bool[B]; record and view int32[B]; label by head, int32[B], -1 where a record
        has none.
    """
    valid = np.asarray(batch["valid"])
    rows = np.stack([np.asarray(batch["record"]), np.asarray(batch["view"])], axis=1)
    self._rows.append(rows[valid])
    for head in self._probabilities:
      self._probabilities[head].append(np.asarray(outputs[head], np.float32)[valid])
      self._labels[head].append(np.asarray(batch["label"][head])[valid])

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Shares in [0, 1] by `<head>/top1`, `<head>/top5` and `<head>/mean_class`.

    Top-5 only where there are more than five classes; `mean_class` is the mean over the classes
    that occur of the share of their records that are right. With several heads `action/top1`
    counts the records that are right in all (EPIC-Kitchens-100). `clips` are the records that
    count and, where videos could not be read, `clips_missing` those that do not.

    A folder gets `predictions.csv`: name, and by head the true class, the predicted one, its
    probability and the five most probable ones, separated by `|`.
    """
    records, first, starts = self._distinct()
    ranks: dict[str, np.ndarray] = {}
    metrics: dict[str, float] = {"clips": float(len(records))}
    if len(records) < len(self._source):
      metrics["clips_missing"] = float(len(self._source) - len(records))
    table: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for head, classes in self._heads.items():
      mean = self._averaged(head, first, starts, len(classes))
      label = _joined(self._labels[head], np.int64)[first][starts]
      ranks[head] = _ranks(mean, label)
      metrics |= {f"{head}/{name}": value for name, value in _shares(mean, label).items()}
      table[head] = (mean, label)
    if len(ranks) > 1:
      known = np.all([label >= 0 for _, label in table.values()], axis=0)
      right = np.all([rank == 0 for rank in ranks.values()], axis=0)
      metrics["action/top1"] = _mean(right[known])
    if folder is not None:
      self._write(pathlib.Path(folder) / FILE, records, table)
    return metrics

  def _distinct(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(records ascending, rows in the order of record and view without repeats, and where in
    those each record starts)."""
    rows = _joined(self._rows, np.int64).reshape(-1, 2)
    distinct, first = np.unique(rows, axis=0, return_index=True)
    records, starts = np.unique(distinct[:, 0], return_index=True)
    return records, first, starts

  def _averaged(self, head: str, first: np.ndarray, starts: np.ndarray, classes: int) -> np.ndarray:
    """float64[records, C]: the mean over each record's views."""
    rows = _joined(self._probabilities[head], np.float64).reshape(-1, classes)[first]
    if not len(rows):
      return rows
    views = np.diff(np.append(starts, len(rows)))
    return np.add.reduceat(rows, starts, axis=0) / views[:, None]

  def _write(
    self, path: pathlib.Path, records: np.ndarray, table: dict[str, tuple[np.ndarray, np.ndarray]]
  ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ("true", "predicted", "probability", f"top{TOP}")
    with path.open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["name", *(f"{head}_{column}" for head in table for column in columns)])
      for i, record in enumerate(records):
        row = [self._source[int(record)].name]
        for head, (mean, label) in table.items():
          row += _columns(mean[i], int(label[i]), self._heads[head])
        writer.writerow(row)


def _columns(probabilities: np.ndarray, label: int, classes: tuple[str, ...]) -> list[str]:
  best = np.argsort(-probabilities, kind="stable")[:TOP]
  return [
    classes[label] if label >= 0 else "",
    classes[best[0]],
    f"{probabilities[best[0]]:.6f}",
    "|".join(classes[i] for i in best),
  ]


def _ranks(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
  """How many classes come before the true one, int64[n]; of equal ones the first comes first.

  Nowhere 0 where there is no label or a probability is not finite.
  """
  count = probabilities.shape[1]
  true = np.take_along_axis(probabilities, np.maximum(label, 0)[:, None], axis=1)
  before = np.arange(count) < label[:, None]
  ranks = np.sum((probabilities > true) | ((probabilities == true) & before), axis=1)
  return np.where((label >= 0) & np.isfinite(probabilities).all(1), ranks, count)


def _shares(probabilities: np.ndarray, label: np.ndarray) -> dict[str, float]:
  known = label >= 0
  ranks, label = _ranks(probabilities, label)[known], label[known]
  shares = {"top1": _mean(ranks == 0)}
  if probabilities.shape[1] > TOP:
    shares[f"top{TOP}"] = _mean(ranks < TOP)
  by_class = [_mean(ranks[label == occurring] == 0) for occurring in np.unique(label)]
  shares["mean_class"] = _mean(np.asarray(by_class))
  return shares


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else float("nan")


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
  return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
