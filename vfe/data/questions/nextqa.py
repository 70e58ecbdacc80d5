"""NExT-QA: questions of why, how, what before and after, on videos of everyday life.

    nextqa/{train,val,test}.csv  video,frame_count,width,height,question,answer,qid,type,a0..a4
                                 of NExT-QA; of NExT-OE the same without a0..a4
    nextqa/add_reference_answer_test.json  {video: {qid: answer}}: second answers of NExT-OE's test
    nextqa/NExTVideo/1164/<video>.mp4      any folders

`mc`: multiple choice, `answer` is 0 to 4; 34,132 / 4,996 / 8,564. `oe`: open-ended, `answer` is
words; 37,523 / 5,343 / 9,178. Types are CW CH (why, how), TN TC TP (next, current, previous) and
DL DC DO DB (location, count, other, binary).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import choose_variant
from vfe.data.listing import Listing
from vfe.data.questions.collect import Question, Questions
from vfe.errors import UserError

VARIANTS = ("mc", "oe")
FILES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
MORE_ANSWERS = "add_reference_answer_test.json"
COLUMNS = ("video", "question", "answer", "qid", "type")
OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def list_nextqa(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of NExT-QA's files, or of NExT-OE's; variant mc (default) or oe."""
  variant = choose_variant("nextqa", variant, VARIANTS)
  questions = Questions("nextqa", path)
  files.needed_file(questions.folder, *FILES.values())
  more = files.official_file(questions.folder, MORE_ANSWERS) if variant == "oe" else None
  second = files.read_json(more) if more else {}
  for split, name in FILES.items():
    file = files.official_file(questions.folder, name)
    if file:
      _refuse_the_other(file, variant)
      _add_file(questions, split, file, variant, second if split == "test" else {})
  return questions.listing()


def _add_file(
  questions: Questions, split: str, file: Path, variant: str, second: Mapping[str, Any]
) -> None:
  columns = COLUMNS + (OPTIONS if variant == "mc" else ())
  for place, row in files.read_csv(file, columns, questions.leave_out):
    name, number = row["video"].strip(), row["qid"].strip()
    video = questions.video(split, name)
    if not video:
      continue
    question = Question(place, f"{name}_{number}", name, row["question"], row["type"].strip())
    if variant == "mc":
      options = [row[key] for key in OPTIONS]
      questions.add_choice(split, video, question, options, row["answer"].strip() or None)
    else:
      other = second.get(name, {}).get(number)
      questions.add_open(split, video, question, [row["answer"], other])


def _refuse_the_other(file: Path, variant: str) -> None:
  _, header = next(files.read_values(file), (None, ()))
  there = "mc" if OPTIONS[0] in (name.strip() for name in header) else "oe"
  if header and there != variant:
    kind = "multiple choice" if there == "mc" else "open-ended, without options"
    raise UserError(f"{file}: its questions are {kind}; choose data.variant={there}.")
