"""EgoMCQ (arXiv 2206.01670): which of five clips is this narration of? 39,751 questions.

    egomcq.json    {"0": {"answer": 0..4, "types": 1 or 2, "query": {"clip_text", ...},
                          "choices": {"0".."4": {"video_uid", "clip_start", "clip_end", ...}}}}

`types` 1 are inter-video questions, five clips of different videos, 2 intra-video ones, five
moments of one video; two well-known programs print the two accuracies under each other's names.

A clip that several questions have among their choices is one record. Its text `caption` are the
narrations asked for whose right clip it is, and `choices` says of which questions it is a choice:
{"question", "option", "options", "answer", "kind", "caption"}, the last being the number of the
narration in `caption` where it is the right one, and else -1. `asked` are the narrations of all of
them, in that order, right or not: with `data.text.key=asked` each is judged against the clip.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import tidy
from vfe.data.ego4d.egoclip import duration_of, span
from vfe.data.ego4d.footage import Absent, Footage
from vfe.data.ego4d.tally import Tally
from vfe.data.record import VideoRecord
from vfe.errors import UserError

FILE = "egomcq.json"
KINDS = {1: "inter", 2: "intra"}

_Clip = tuple[str, float, float, float]  # uid, start, end, seconds of its video


def read_egomcq(folder: Path, footage: Footage) -> list[VideoRecord]:
  """The clips of egomcq.json whose questions have all their clips there.

  Questions with a clip that is not there are counted and told. Raises UserError, with the
  question, for what cannot be one: leaving it out would be another benchmark.
  """
  file = files.needed_file(folder, FILE)
  rows = ((f"{file}, question {key}", key, row) for key, row in files.read_members(file))
  return choice_records(rows, footage)


def choice_records(
  rows: Iterable[tuple[str, str, Any]], footage: Footage
) -> list[VideoRecord]:
  """The records of questions in EgoMCQ's layout, each with its place and its key."""
  tally, clips, asked, mixed = Tally("questions"), {}, 0, []
  for place, key, row in rows:
    kind, answer, query, choices = _checked(place, row)
    try:
      choices = [(uid, start, footage.check(uid, start, *rest)) for uid, start, *rest in choices]
    except Absent as error:
      tally.absent(place, error)
      continue
    asked += 1
    if kind == "intra" and len({uid for uid, *_ in choices}) > 1:
      mixed.append(place)
    for number, choice in enumerate(choices):
      clip = clips.setdefault(choice, _Asked())
      clip.add(key, number, len(choices), answer, kind, query)
  tally.tell(asked)
  if mixed:
    logging.warning(
      "%s: called intra-video (types 2), but its clips are of several videos, as those of %d of "
      "%d questions are.", mixed[0], len(mixed), asked,
    )  # fmt: skip
  return [footage.record(*clip, text=text.text()) for clip, text in clips.items()]


@dataclasses.dataclass
class _Asked:
  """What is asked of a clip."""

  captions: dict[str, int] = dataclasses.field(default_factory=dict)
  asked: list[str] = dataclasses.field(default_factory=list)
  choices: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def add(
    self, question: str, option: int, options: int, answer: int, kind: str, query: str
  ) -> None:
    right = option == answer
    caption = self.captions.setdefault(query, len(self.captions)) if right else -1
    self.asked.append(query)
    self.choices.append({
      "question": question, "option": option, "options": options, "answer": answer, "kind": kind,
      "caption": caption,
    })  # fmt: skip

  def text(self) -> dict[str, Any]:
    return {
      "caption": tuple(self.captions), "asked": tuple(self.asked), "choices": tuple(self.choices)
    }  # fmt: skip


def _checked(place: str, row: Any) -> tuple[str, int, str, list[_Clip]]:
  """(kind, answer, query, clips) of a question. Raises UserError."""
  row = row if isinstance(row, Mapping) else {}
  kind = row.get("types")
  if isinstance(kind, bool) or kind not in KINDS:
    raise UserError(f"{place}: types {kind!r} is neither 1 (inter-video) nor 2 (intra-video).")
  written = row.get("choices")
  written = written if isinstance(written, Mapping) else {}
  choices = [_clip(written.get(str(i))) for i in range(len(written))]
  if len(choices) < 2 or None in choices:
    raise UserError(
      f"{place}: choices are not clips numbered from 0, each with video_uid and clip_start before "
      f"clip_end; download the file again."
    )
  answer = row.get("answer")
  if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
    raise UserError(
      f"{place}: answer {answer!r} is not one of its {len(choices)} choices, numbered 0 to "
      f"{len(choices) - 1}."
    )
  query = row.get("query")
  words = tidy(query.get("clip_text")) if isinstance(query, Mapping) else ""
  if not words:
    raise UserError(f"{place}: a query without clip_text; download the file again.")
  return KINDS[kind], answer, words, choices


def _clip(row: Any) -> _Clip | None:
  if not isinstance(row, Mapping) or not isinstance(row.get("video_uid"), str):
    return None
  clip = span(row.get("clip_start"), row.get("clip_end"))
  return clip and (row["video_uid"], *clip, duration_of(row.get("video_dur")))
