"""EgoMCQ: which of five clips is this narration of?

`EgoMCQ` goes by the embeddings of a dual encoder, `JudgedMCQ` by a score of each narration with
each clip, such as that of video-text matching.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vfe.data.record import Source
from vfe.evaluate.multiple_choice import best_option, correct, wilson
from vfe.evaluate.retrieval import TIE, Retrieval
from vfe.evaluate.views import mean_over_views

FILE = "egomcq.csv"
KINDS = ("inter", "intra")


@dataclasses.dataclass
class Question:
  """`clips` are the records of its choices in order, and `places` where it stands in the `choices`
  of each; `caption` is the number of the narration among those of the right clip."""

  id: str
  kind: str
  answer: int
  clips: list[int]
  places: list[int]
  caption: int = -1


class EgoMCQ(Retrieval):
  """A collector (`vfe.evaluate.evaluator`) of embeddings of clips and of the narrations asked for.

  Records are those of `vfe.data.ego4d.egomcq`: their texts say of which questions they are choices.
  `collect` is that of `Retrieval`, and so are the averaging of views and what is left out. A
  question is wrong where another clip is as close, and where an embedding is not finite.
  """

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`inter/` and `intra/` `accuracy` (shares in [0, 1]), `low` and `high`, the bounds of Wilson's
    95 % interval, and `questions`; `chance`, and, where clips could not be read,
    `questions_missing`.

    A folder gets `egomcq.csv`, a line for every question: its id, its kind, the narration, the
    answer, the choice, and the scores, here cosines.
    """
    records, video = self._averaged()
    captions, text = self._distinct_captions()
    clip = {int(record): row for row, record in enumerate(records)}
    said = {(int(record), int(caption)): row for row, (record, caption) in enumerate(captions)}
    asked = questions_of(self._source)
    there = [
      q for q in asked
      if all(c in clip for c in q.clips) and (q.clips[q.answer], q.caption) in said
    ]  # fmt: skip
    scores = _blank(there)
    for row, q in enumerate(there):
      words = text[said[q.clips[q.answer], q.caption]]
      scores[row, : len(q.clips)] = video[[clip[c] for c in q.clips]] @ words
    return _finish(self._source, asked, there, scores, folder)


class JudgedMCQ:
  """A collector of scores of narrations with clips: rows carry the texts `asked` of a record.

  Scores are averaged over the views of a record; padding is left out, and a row that comes twice
  counts once. A question is wrong as with `EgoMCQ`.
  """

  def __init__(self, source: Source):
    self._source = source
    self._rows: list[np.ndarray] = []  # int64[n, 2]: record, view
    self._scores: list[np.ndarray] = []  # float64[n, C]

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: scores float[B,C] of the clip with its first C texts `asked`; higher is likelier.
      batch: valid bool[B]; record and view int32[B].
    """
    valid = np.asarray(batch["valid"])
    rows = np.stack([np.asarray(batch["record"]), np.asarray(batch["view"])], axis=1)
    self._rows.append(rows[valid].astype(np.int64))
    self._scores.append(np.asarray(outputs["scores"], np.float64)[valid])

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """The metrics and the file of `EgoMCQ.finish`, by these scores."""
    found = self._averaged()
    asked = questions_of(self._source)
    there = [
      q for q in asked
      if all(c in found and p < len(found[c]) for c, p in zip(q.clips, q.places, strict=True))
    ]  # fmt: skip
    scores = _blank(there)
    for row, q in enumerate(there):
      scores[row, : len(q.clips)] = [found[c][p] for c, p in zip(q.clips, q.places, strict=True)]
    return _finish(self._source, asked, there, scores, folder)

  def _averaged(self) -> dict[int, np.ndarray]:
    """record -> float64[C], the mean over its views"""
    if not sum(map(len, self._rows)):
      return {}
    means = mean_over_views(np.concatenate(self._rows), np.concatenate(self._scores))
    return dict(zip(means[0].tolist(), means[1], strict=True))


def _blank(there: Sequence[Question]) -> np.ndarray:
  return np.full((len(there), max((len(q.clips) for q in there), default=1)), -np.inf)


def _finish(
  source: Source,
  asked: Sequence[Question],
  there: Sequence[Question],
  scores: np.ndarray,
  folder: pathlib.Path | None,
) -> dict[str, float]:
  metrics = accuracies(scores, np.array([q.answer for q in there], int), [q.kind for q in there])
  if len(there) < len(asked):
    metrics["questions_missing"] = float(len(asked) - len(there))
  if folder is not None:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    with (pathlib.Path(folder) / FILE).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["id", "kind", "narration", "answer", "choice", "scores"])
      for q, row, choice in zip(there, scores, best_option(scores), strict=True):
        words = source[q.clips[q.answer]].text["caption"][q.caption]
        written = "|".join(f"{value:.6f}" for value in row[: len(q.clips)])
        writer.writerow([q.id, q.kind, words, q.answer, int(choice), written])
  return metrics


def questions_of(source: Source) -> list[Question]:
  """The questions that the records of a source are choices of, in the order in which they come."""
  found: dict[str, Question] = {}
  for record in range(len(source)):
    for place, row in enumerate(source[record].text.get("choices", ())):
      none = [-1] * row["options"], [-1] * row["options"]
      question = found.setdefault(
        row["question"], Question(row["question"], row["kind"], row["answer"], *none)
      )
      question.clips[row["option"]], question.places[row["option"]] = record, place
      if row["option"] == row["answer"]:
        question.caption = row["caption"]
  return list(found.values())


def accuracies(
  scores: Float[np.ndarray, "n O"], answer: Int[np.ndarray, "n"], kinds: Sequence[str]
) -> dict[str, float]:
  """The metrics of `EgoMCQ` from any scores, such as those of video-text matching; -inf where there
  is no option. A right one that is not above the others by 1e-6 is wrong."""
  options = np.sum(scores > -np.inf, axis=1)
  lowered = scores.copy()
  lowered[np.arange(len(answer)), answer] -= TIE
  right, kind = correct(lowered, answer), np.array(kinds, str)
  metrics: dict[str, Any] = {"chance": _mean(1 / np.maximum(options, 1))}
  for name in KINDS:
    hits = right[kind == name]
    low, high = wilson(int(hits.sum()), len(hits))
    metrics |= {
      f"{name}/accuracy": _mean(hits), f"{name}/low": low, f"{name}/high": high,
      f"{name}/questions": float(len(hits)),
    }  # fmt: skip
  return metrics


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else float("nan")
