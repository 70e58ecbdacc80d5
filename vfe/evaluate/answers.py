"""Generated answers to open-ended questions: exact match, as the field counts it.

ActivityNet-QA's eval.py and the code of MSRVTT-QA's authors compare strings as they are. The right
answers of both are `normalised` already, so that what is counted here is what they count in the
answers that are written. NExT-OE has a measure of its own (WUPS), which this is not.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vfe.config import choose
from vfe.data.record import Source
from vfe.evaluate.multiple_choice import wilson
from vfe.evaluate.texts import Texts

TABLE = "predictions.csv"
RESULTS = "answers.json"
AROUND = " .,;:!?'\"`"


def normalised(answer: str) -> str:
  """Lower case, single blanks, and none of `AROUND` before and behind: 'A dog.' is 'a dog'.

  Nothing else: articles count, and '2' is not 'two'.
  """
  return " ".join(answer.lower().split()).strip(AROUND)


def is_right(said: str, answers: Sequence[str]) -> bool:
  """Whether what was said is one of the answers, all of them normalised; never where it is ''."""
  found = normalised(said)
  return bool(found) and found in {normalised(answer) for answer in answers}


class Answers(Texts):
  """A collector (`vfe.evaluate.evaluator`) of generated answers.

  A record's text has `answers`, all that count as right, none where they are not known, and perhaps
  `type`; for a file of results also `id` (`vfe.data.questions`). Of a record's views the first
  counts; padding is left out.
  """

  def __init__(
    self,
    source: Source,
    decode: Callable[[Sequence[int]], str],
    official: str | None = None,
  ):
    """decode: makes an answer of its tokens; official: the benchmark, a name in OFFICIAL."""
    super().__init__(decode)
    self._source = source
    self._official = choose(OFFICIAL, official, "official") if official else Official()

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Shares in [0, 1] of the questions whose answers are known and whose videos could be read.

    `accuracy`, `low` and `high`, the bounds of Wilson's 95 % interval; `questions`; by type of
    question, and by a benchmark's groups of types, `type/<type>/questions` and `/accuracy`.
    `questions_unknown` are those without answers and `questions_missing` those whose videos could
    not be read, where there are any: the benchmarks' own code counts the latter as wrong.

    A folder gets `predictions.csv`, a line for every question, and the benchmark's `answers.json`,
    with normalised answers.
    """
    rows = [
      Answered(self._source[record].name, self._source[record].text, said)
      for record, said in self.by_record.items()
    ]
    known = [row for row in rows if row.text.get("answers")]
    low, high = wilson(sum(row.right for row in known), len(known))
    metrics = _shares(known) | {"low": low, "high": high}
    for name, count in (
      ("questions_unknown", len(rows) - len(known)),
      ("questions_missing", len(self._source) - len(rows)),
    ):
      metrics |= {name: float(count)} if count else {}
    kinds = {kind: (kind,) for row in known if (kind := row.kind)}
    for kind, types in sorted((kinds | dict(self._official.groups)).items()):
      some = [row for row in known if row.kind in types]
      metrics |= {f"type/{kind}/{name}": value for name, value in _shares(some).items() if some}
    if folder is not None:
      self._write(pathlib.Path(folder), rows)
    return metrics

  def _write(self, folder: pathlib.Path, rows: Sequence[Answered]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["name", "id", "type", "question", "answers", "answer", "right"])
      for row in rows:
        right = int(row.right) if row.text.get("answers") else ""
        columns = [row.text.get(key, "") for key in ("id", "type", "question")]
        answers = "|".join(row.text.get("answers", ()))
        writer.writerow([row.name, *columns, answers, row.said, right])
    if self._official.result is None:
      return
    results = [self._official.result(row) for row in rows]
    (folder / RESULTS).write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    if len(rows) < len(self._source):
      logging.warning(
        "%s: %s lacks %d of %d questions, whose videos could not be read.",
        folder, RESULTS, len(self._source) - len(rows), len(self._source),
      )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Answered:
  """A question, its record's name and text, and what was said to it."""

  name: str
  text: Mapping[str, Any]
  said: str

  @property
  def kind(self) -> str:
    return str(self.text.get("type", ""))

  @property
  def right(self) -> bool:
    return is_right(self.said, self.text.get("answers", ()))


@dataclasses.dataclass(frozen=True)
class Official:
  """What a benchmark writes of an answer, and the groups of types that it gives figures of."""

  result: Callable[[Answered], dict[str, Any]] | None = None
  groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def _shares(rows: Sequence[Answered]) -> dict[str, float]:
  right = float(np.mean([row.right for row in rows])) if rows else float("nan")
  return {"questions": float(len(rows)), "accuracy": right}


def _activitynet_qa(row: Answered) -> dict[str, Any]:
  """Of the list that eval.py takes as --pred_json."""
  return {"question_id": row.text["id"], "answer": normalised(row.said)}


def _msrvtt_qa(row: Answered) -> dict[str, Any]:
  """Of the prediction.json that the authors' code leaves."""
  return {"id": int(row.text["id"]), "answer": normalised(row.said)}


# ActivityNet-QA's group of six types. Its eval.py divides by the count of other types, those that
# come fourth to ninth in the file, so that its figure of "Free", and only that one, is another.
FREE = ("yes-no", "color", "object", "location", "number", "other")

# benchmark (the name of its data.source) -> what is official of it.
OFFICIAL: Mapping[str, Official] = {
  "activitynet_qa": Official(_activitynet_qa, {"free": FREE}),
  "msrvtt_qa": Official(_msrvtt_qa),
}
