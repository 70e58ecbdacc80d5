"""Results at the end of a run: results.json, and the same as a table."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def write(
  workdir: pathlib.Path, names: Sequence[str], done: str, replaced: Mapping[str, Any]
) -> None:
  """Gathers the stages that are complete (or measured again: `replaced`) and prints them."""
  stages = {}
  for name in names:
    file = workdir / name / done
    if name in replaced:
      stages[name] = replaced[name]
    elif file.is_file():
      stages[name] = json.loads(file.read_text())["result"]
  path = workdir / ("results-eval.json" if replaced else "results.json")
  path.write_text(json.dumps({"stages": stages}, indent=2) + "\n")
  print(f"\n{table(stages)}\n\n{path}")


def table(stages: Mapping[str, Mapping[str, Any]]) -> str:
  """Markdown: a row a metric, the stage's steps and seconds beside its first."""
  rows = [("stage", "steps", "seconds", "metric", "value")]
  for name, result in stages.items():
    metrics = result["metrics"] or {"": None}
    for i, (metric, value) in enumerate(sorted(metrics.items())):
      shown = "" if value is None else f"{value:.4g}"
      first = (name, f"{result['steps']}", f"{result['seconds']:.0f}") if i == 0 else ("", "", "")
      rows.append((*first, metric, shown))
  widths = [max(len(row[i]) for row in rows) for i in range(5)]
  padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows]
  lines = ["| " + " | ".join(row) + " |" for row in padded]
  lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
  return "\n".join(lines)
