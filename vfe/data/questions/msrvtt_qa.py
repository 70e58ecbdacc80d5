"""MSRVTT-QA: open-ended questions made of the captions of MSR-VTT, with answers of a word.

    msrvtt_qa/{train,val,test}_qa.json  [{"answer", "category_id", "id", "question", "video_id"}]
    msrvtt_qa/{train,val,test}.jsonl    ClipBERT's: the same a line, "video6513" for 6513
    msrvtt_qa/videos/video0.mp4         any folders

158,581 / 12,278 / 72,821 questions. A question's type is its first word: what, who, how, when or
where. MSVD-QA has files of the same names with other numbers of videos: it is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import choose_variant
from vfe.data.listing import Listing
from vfe.data.questions.collect import Question, Questions
from vfe.errors import UserError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
FORMS = ("{}_qa.json", "{}.jsonl")
TYPES = ("what", "who", "how", "when", "where")


def list_msrvtt_qa(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of MSRVTT-QA's files. It has no variants."""
  choose_variant("msrvtt_qa", variant)
  questions = Questions("msrvtt_qa", path)
  names = {split: [form.format(name) for form in FORMS] for split, name in SPLITS.items()}
  files.needed_file(questions.folder, *(name for some in names.values() for name in some))
  for split, some in names.items():
    found = (file for name in some if (file := files.official_file(questions.folder, name)))
    file = next(found, None)
    for number, (place, row) in enumerate(_rows(file) if file else ()):
      _add(questions, split, place, number, row)
  return questions.listing()


def _add(questions: Questions, split: str, place: str, number: int, row: Any) -> None:
  name = row.get("video_id") if isinstance(row, Mapping) else None
  if not isinstance(name, int | str):
    questions.leave_out(place, "no video_id")
    return
  name = name if str(name).startswith("video") else f"video{name}"
  video = questions.video(split, name)
  if video:
    words = row.get("question")
    first = words.split()[0].lower() if isinstance(words, str) and words.strip() else ""
    kind = first if first in TYPES else ""
    question = Question(place, str(row.get("id", number)), name, words, kind)
    questions.add_open(split, video, question, [row.get("answer")])


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
  if ".jsonl" not in file.suffixes:
    yield from files.read_rows(file)
    return
  for place, line in files.read_lines(file):
    try:
      yield place, json.loads(line)
    except json.JSONDecodeError as error:
      raise UserError(f"{place}: not JSON ({error.msg}); download it again.") from error
