"""EgoMCQ by a dual encoder: the clip, of five, whose embedding is closest to the narration's."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vfe.data.record import Source
from vfe.evaluate.multiple_choice import best_option, correct, wilson
from vfe.evaluate.retrieval import TIE, Retrieval

FILE = "egomcq.csv"
KINDS = ("inter", "intra")


@dataclasses.dataclass
class Question:
  """`clips` are the records of its choices in order, -1 until one is found; `caption` is the number
  of the narration among those of the right clip."""

  id: str
  kind: str
  answer: int
  clips: list[int]
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
    answer, the choice, and the cosines.
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
    scores = np.full((len(there), max((len(q.clips) for q in there), default=1)), -np.inf)
    for row, q in enumerate(there):
      words = text[said[q.clips[q.answer], q.caption]]
      scores[row, : len(q.clips)] = video[[clip[c] for c in q.clips]] @ words
    metrics = accuracies(scores, np.array([q.answer for q in there], int), [q.kind for q in there])
    if len(there) < len(asked):
      metrics["questions_missing"] = float(len(asked) - len(there))
    if folder is not None:
      self._write_choices(pathlib.Path(folder), there, scores)
    return metrics

  def _write_choices(
    self, folder: pathlib.Path, there: Sequence[Question], scores: np.ndarray
  ) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["id", "kind", "narration", "answer", "choice", "cosines"])
      for q, row, choice in zip(there, scores, best_option(scores), strict=True):
        words = self._source[q.clips[q.answer]].text["caption"][q.caption]
        cosines = "|".join(f"{value:.6f}" for value in row[: len(q.clips)])
        writer.writerow([q.id, q.kind, words, q.answer, int(choice), cosines])


def questions_of(source: Source) -> list[Question]:
  """The questions that the records of a source are choices of, in the order in which they come."""
  found: dict[str, Question] = {}
  for record in range(len(source)):
    for row in source[record].text.get("choices", ()):
      question = found.setdefault(
        row["question"],
        Question(row["question"], row["kind"], row["answer"], [-1] * row["options"]),
      )
      question.clips[row["option"]] = record
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
