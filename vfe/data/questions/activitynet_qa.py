"""ActivityNet-QA: ten open-ended questions on each of 5,800 videos of activities.

    activitynet_qa/{train,val,test}_q.json  [{"video_name", "question", "question_id"}]
    activitynet_qa/{train,val,test}_a.json  [{"answer", "type", "question_id"}]
    activitynet_qa/videos/v_<video_name>.mp4, or without the v_; any folders

32,000 / 18,000 / 8,000 questions. Types 0 to 8 are named as the data set's README names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import choose_variant
from vfe.data.listing import Listing
from vfe.data.questions.collect import Question, Questions

SPLITS = {"train": "train", "validation": "val", "test": "test"}
TYPES = (
  "motion", "spatial", "temporal", "yes-no", "color", "object", "location", "number", "other"
)  # fmt: skip


def list_activitynet_qa(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of ActivityNet-QA's files. It has no variants."""
  choose_variant("activitynet_qa", variant)
  questions = Questions("activitynet_qa", path)
  files.needed_file(questions.folder, *(f"{name}_q.json" for name in SPLITS.values()))
  for split, name in SPLITS.items():
    file = files.official_file(questions.folder, f"{name}_q.json")
    if file:
      answers = files.needed_file(questions.folder, f"{name}_a.json")
      _add_file(questions, split, file, answers)
  return questions.listing()


def _add_file(questions: Questions, split: str, file: Path, answers: Path) -> None:
  said: dict[Any, Mapping[str, Any]] = {}
  for place, row in files.read_rows(answers):
    if isinstance(row, Mapping) and isinstance(row.get("question_id"), str):
      said[row["question_id"]] = row
    else:
      questions.leave_out(place, "no question_id")
  for place, row in files.read_rows(file):
    keys = ("video_name", "question_id")
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) for key in keys):
      questions.leave_out(place, "no video_name or question_id")
      continue
    name, number = (row[key] for key in keys)
    video = questions.video(split, f"v_{name}", name)
    if video:
      found = said.get(number, {})
      kind = found.get("type")
      words = TYPES[kind] if isinstance(kind, int) and 0 <= kind < len(TYPES) else ""
      question = Question(place, number, name, row.get("question"), words)
      questions.add_open(split, video, question, [found.get("answer")])
