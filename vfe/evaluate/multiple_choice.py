"""Multiple choice: the option that a language model finds most likely, with video and without."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vfe.config import choose
from vfe.data.record import Source
from vfe.evaluate.views import mean_over_views

FILE = "predictions.csv"
SCORES = ("sum", "mean", "blind_sum", "blind_mean")
Z = 1.959963984540054  # of the normal distribution, two-sided 95 %


class MultipleChoice:
  """A collector (`vfe.evaluate.evaluator`) of the log-likelihoods of options.

  A record's text has `options`, `answer` (the right one's number, -1 where it is not known) and
  perhaps `type`; for a submission also `id` and `video` (`vfe.data.questions`). The option with the
  largest sum over its tokens is chosen, or that with the largest mean per token; the same without
  the video is the blind score. Log-likelihoods are averaged over a record's views; padding is left
  out, and a row that comes twice counts once. An answer is wrong where another option is as likely,
  and where any of them is not finite or has no tokens, so that knowing nothing gives nothing.
  """

  def __init__(self, source: Source, official: str | None = None):
    """official: the benchmark to write the submission of, a name in SUBMISSIONS."""
    self._source = source
    self._submit = choose(SUBMISSIONS, official, "official") if official else None
    self._rows: list[np.ndarray] = []  # int64[n, 2]: record, view
    self._options: list[np.ndarray] = []  # float64[n, 4, O] in the order of SCORES

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: sum and blind float[B,O], log-likelihoods of whole options with and without the
        video; tokens int[B,O], lengths of the options; mask bool[B,O], which options there are.
      batch: valid bool[B]; record and view int32[B].
    """
    valid = np.asarray(batch["valid"])
    names = ("sum", "tokens", "blind", "mask")
    total, tokens, blind, mask = (np.asarray(outputs[name])[valid] for name in names)
    length = np.where(tokens > 0, tokens, np.nan).astype(np.float64)
    one = length / length
    table = np.stack([total * one, total / length, blind * one, blind / length], axis=1)
    # NaN is an option whose score is none, minus infinity an option that is not there.
    table = np.where(np.isfinite(table), table, np.nan)
    self._options.append(np.where(mask[:, None], table, -np.inf))
    rows = np.stack([np.asarray(batch["record"]), np.asarray(batch["view"])], axis=1)
    self._rows.append(rows[valid].astype(np.int64))

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Shares in [0, 1] of the questions whose answer is known.

    `<score>/accuracy`, `/low` and `/high`, the bounds of Wilson's 95 % interval, where score is
    `sum`, `mean`, `blind_sum` or `blind_mean`; `chance`; `questions`; by type of question
    `type/<type>/questions` and `type/<type>/<score>`. `questions_unknown` are those without an
    answer and `questions_missing` those whose videos could not be read, where there are any.

    A folder gets `predictions.csv`, a line for every question, and the submission of a benchmark.
    """
    records, table = self._averaged()
    texts = [self._source[int(record)].text for record in records]
    answer = np.array([text.get("answer", -1) for text in texts], np.int64)
    known = answer >= 0
    right = {name: correct(table[:, i], answer)[known] for i, name in enumerate(SCORES)}
    options = np.sum(table[:, 0] != -np.inf, axis=1)
    metrics = {"questions": float(known.sum()), "chance": _mean(1 / np.maximum(options, 1)[known])}
    for name, count in (
      ("questions_unknown", len(known) - known.sum()),
      ("questions_missing", len(self._source) - len(records)),
    ):
      metrics |= {name: float(count)} if count else {}
    for name, hits in right.items():
      low, high = wilson(int(hits.sum()), len(hits))
      metrics |= {f"{name}/accuracy": _mean(hits), f"{name}/low": low, f"{name}/high": high}
    types = np.array([str(text.get("type", "")) for text in texts])[known]
    for kind in sorted(set(types) - {""}):
      metrics[f"type/{kind}/questions"] = float(np.sum(types == kind))
      metrics |= {f"type/{kind}/{name}": _mean(hits[types == kind]) for name, hits in right.items()}
    if folder is not None:
      self._write(pathlib.Path(folder), records, texts, table, answer)
    return metrics

  def _averaged(self) -> tuple[np.ndarray, np.ndarray]:
    """(records ascending, float64[records, 4, O]: the mean over each record's views)"""
    if not self._rows:
      return np.zeros(0, np.int64), np.zeros((0, len(SCORES), 1))
    return mean_over_views(np.concatenate(self._rows), np.concatenate(self._options))

  def _write(
    self,
    folder: pathlib.Path,
    records: np.ndarray,
    texts: Sequence[Mapping[str, Any]],
    table: np.ndarray,
    answer: np.ndarray,
  ) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    best = best_option(table)
    with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["name", "id", "type", "question", "options", "answer", *SCORES, "scores"])
      for row, record in enumerate(records):
        text, there = texts[row], table[row, 0] != -np.inf
        writer.writerow(
          [self._source[int(record)].name]
          + [text.get(key, "") for key in ("id", "type", "question")]
          + ["|".join(text["options"]), answer[row], *best[row].tolist()]
          + ["|".join(f"{value:.6f}" for value in table[row, 0, there])]
        )
    if self._submit is not None:
      self._submit(folder, [Chosen(t, int(b)) for t, b in zip(texts, best[:, 0], strict=True)])
      if len(records) < len(self._source):
        logging.warning(
          "%s: the submission lacks %d of %d questions, whose videos could not be read.",
          folder, len(self._source) - len(records), len(self._source),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chosen:
  """A question (a record's text) and the number of the option with the largest sum."""

  text: Mapping[str, Any]
  option: int


def correct(
  scores: Float[np.ndarray, "n O"], answer: Int[np.ndarray, "n"]
) -> Bool[np.ndarray, "n"]:
  """Whether the right option is above every other; -inf where there is no option.

  Never where the answer is not known (-1) or a score is NaN or +inf.
  """
  if not scores.size:
    return np.zeros(len(answer), bool)
  column = np.clip(answer, 0, scores.shape[1] - 1)[:, None]
  own = np.take_along_axis(scores, column, axis=1)
  others = np.arange(scores.shape[1]) != column
  above = np.all((own > scores) | ~others, axis=1)  # not above what is NaN
  return above & np.isfinite(own[:, 0]) & (answer >= 0) & (answer < scores.shape[1])


def best_option(scores: Float[np.ndarray, "*n O"]) -> Int[np.ndarray, "*n"]:
  """The number of the largest score, of equal ones the first; NaN is below all that are there."""
  lowest = np.finfo(np.float64).min
  return np.argmax(np.where(np.isnan(scores), lowest, scores), axis=-1)


def wilson(hits: int, count: int) -> tuple[float, float]:
  """The bounds of Wilson's 95 % interval of a share; NaN of nothing. Wilson 1927, JASA 22."""
  if not count:
    return math.nan, math.nan
  share, spread = hits / count, Z * Z / count
  middle = (share + spread / 2) / (1 + spread)
  half = Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
  return max(0.0, middle - half), min(1.0, middle + half)


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else float("nan")


def submit_egoschema(folder: pathlib.Path, chosen: Sequence[Chosen]) -> None:
  """What EgoSchema's validate.py sends, {q_uid: 0..4}, and its Kaggle page's q_uid,answer."""
  answers = {c.text["id"]: c.option for c in chosen}
  (folder / "submission.json").write_text(json.dumps(answers))
  with (folder / "submission.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("q_uid", "answer"), *answers.items()])


def submit_perception_test(folder: pathlib.Path, chosen: Sequence[Chosen]) -> None:
  """Perception Test's {video: [{"id", "answer_id", "answer"}]}, the ids those of the questions."""
  videos: dict[str, list[dict[str, Any]]] = {}
  for c in chosen:
    said = {"id": int(c.text["id"]), "answer_id": c.option, "answer": c.text["options"][c.option]}
    videos.setdefault(c.text["video"], []).append(said)
  (folder / "submission.json").write_text(json.dumps(videos, ensure_ascii=False), encoding="utf-8")


# benchmark (the name of its data.source) -> writer of its submission into a folder.
SUBMISSIONS: Mapping[str, Callable[[pathlib.Path, Sequence[Chosen]], None]] = {
  "egoschema": submit_egoschema,
  "perception_test": submit_perception_test,
}
