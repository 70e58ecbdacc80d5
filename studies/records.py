"""Results as JSON lines, and the words that a table may use about them."""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# Student's t, two-sided 95 %, by degrees of freedom
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def append(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Adds a row; one write, so that processes may append to the same file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  line = (json.dumps(row) + "\n").encode()
  file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
  try:
    os.write(file, line)
  finally:
    os.close(file)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """All rows; none if there is no file. A line that a stopped run left unfinished is no row."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return rows


def select(rows: Iterable[Mapping[str, Any]], **fields: Any) -> list[Mapping[str, Any]]:
  """The rows that have these values."""
  return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def interval(differences: Iterable[float]) -> tuple[float, float, float]:
  """(mean, low, high): the 95 % interval of the mean of paired differences, by Student's t."""
  values = np.asarray(list(differences), float)
  mean = float(values.mean())
  if len(values) < 2:
    return mean, -math.inf, math.inf
  half = T95.get(len(values) - 1, 2.262) * float(values.std(ddof=1)) / math.sqrt(len(values))
  return mean, mean - half, mean + half


def verdict(better: Mapping[int, float], worse: Mapping[int, float], floor: float | None) -> str:
  """What may be said of "better is more accurate than worse", both accuracies by seed.

  floor is the best baseline that needs no video encoder: where neither passes it, nothing was
  shown.
  """
  seeds = sorted(set(better) & set(worse))
  if not seeds or floor is None:
    return "not run"
  if max(np.mean([better[s] for s in seeds]), np.mean([worse[s] for s in seeds])) <= floor:
    return "not shown at this size"
  _, low, high = interval(better[s] - worse[s] for s in seeds)
  return "held" if low > 0 else "not held" if high < 0 else "within noise"


def spread(values: Iterable[float]) -> str:
  """Mean ± standard deviation over seeds, or "not run"."""
  values = list(values)
  if not values:
    return "not run"
  deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
  return f"{np.mean(values):.3f} ± {deviation:.3f}"
