"""What the readers of questions share: a question, checked, for every video that is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from vfe.data.captioned.collect import Clips, tidy
from vfe.data.listing import Entry
from vfe.errors import UserError


@dataclasses.dataclass(frozen=True)
class Question:
  """A question as it is written down; `place` is where: "val.csv, line 12"."""

  place: str
  id: str
  video: str  # as the data set names it
  words: Any
  kind: str = ""  # of the data set's types of questions


class Questions(Clips):
  """The questions of a data set as they are read; see `Clips` for what is counted.

  A question without words is left out and counted. Options and answers that cannot be are errors:
  leaving them out would be another benchmark.
  """

  def add_choice(
    self,
    split: str,
    file: str,
    question: Question,
    options: Sequence[Any],
    answer: Any,
    span: tuple[float, float] | None = None,
  ) -> None:
    """A multiple-choice question on the video in `file`; `answer` from 0, None or -1: unknown."""
    choices = tuple(tidy(option) for option in options)
    if len(choices) < 2 or not all(choices):
      raise UserError(
        f"{question.place}: a question without options, or with an empty one ({list(choices)}); "
        f"download the file again, or take the question out."
      )
    number = -1 if answer is None else _integer(answer)
    if number is None or not -1 <= number < len(choices):
      raise UserError(
        f"{question.place}: answer {answer!r} is not one of its {len(choices)} options, numbered "
        f"0 to {len(choices) - 1}."
      )
    answers = choices[number : number + 1] if number >= 0 else ()
    rest = {"options": choices, "answer": number, "answers": answers}
    self._add(split, file, question, rest, span)

  def add_open(self, split: str, file: str, question: Question, answers: Sequence[Any]) -> None:
    """An open-ended question; one without any answer is left out and counted."""
    said = tuple(dict.fromkeys(words for answer in answers if (words := tidy(answer))))
    if not said:
      self.leave_out(question.place, "no answer")
    else:
      self._add(split, file, question, {"answers": said}, None)

  def _add(
    self,
    split: str,
    file: str,
    question: Question,
    rest: dict[str, Any],
    span: tuple[float, float] | None,
  ) -> None:
    words = tidy(question.words)
    if not words:
      self.leave_out(question.place, "no question")
      return
    text = {
      "id": question.id, "video": question.video, "question": words, "type": question.kind, **rest
    }  # fmt: skip
    entry = Entry(question.place, file, *(span or (None, None)), text=text)
    self._splits.setdefault(split, []).append(entry)


def _integer(written: Any) -> int | None:
  try:
    number = float(written)
  except (TypeError, ValueError):
    return None
  return int(number) if number.is_integer() else None
