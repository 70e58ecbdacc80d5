"""Open-ended questions as a choice among the answers that are frequent in training."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from vfe.data.record import Source, VideoRecord
from vfe.errors import UserError


def with_options(source: Source, training: Source, count: int) -> Source:
  """Open-ended questions as multiple choice: every one with the same options.

  The options are the `count` answers that most questions of `training` have, the most frequent
  first and equals by the alphabet: MSRVTT-QA's authors choose among 1,000. A text gains them as
  `options` and as `answer` the number of the first of its answers that is one of them; where none
  is, the number after the last, which is known and always wrong; -1 where no answer is known. All
  records of `training` are looked at, once.

  Raises:
    UserError: fewer than two options, or `training` has fewer than two answers.
  """
  if count < 2:
    raise UserError(f"options={count}: a choice is among two or more answers.")
  frequent = frequent_answers(training, count)
  if len(frequent) < 2:
    raise UserError(
      f"{training.name}: its questions have {len(frequent)} different answers, so that there is no "
      f"choice among them; use a source of open-ended questions."
    )
  return _Choosing(source, frequent)


def frequent_answers(training: Source, count: int) -> tuple[str, ...]:
  """The `count` most frequent answers, or all; see `with_options`."""
  found: collections.Counter[str] = collections.Counter()
  for index in range(len(training)):
    found.update(set(training[index].text.get("answers", ())))
  return tuple(sorted(found, key=lambda answer: (-found[answer], answer))[:count])


class _Choosing:
  """The records of a source with options."""

  def __init__(self, source: Source, options: tuple[str, ...]):
    self._source, self._options = source, options
    self._numbers = {answer: number for number, answer in enumerate(options)}

  @property
  def name(self) -> str:
    return self._source.name

  @property
  def heads(self) -> Mapping[str, tuple[str, ...]]:
    return self._source.heads

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> VideoRecord:
    record = self._source[index]
    answers = record.text.get("answers", ())
    there = (self._numbers[answer] for answer in answers if answer in self._numbers)
    number = next(there, len(self._options)) if answers else -1
    text = {**record.text, "options": self._options, "answer": number}
    return dataclasses.replace(record, text=text)
