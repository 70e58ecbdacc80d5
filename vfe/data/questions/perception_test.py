"""Perception Test: three-way questions on videos made to be asked about.

    perception_test/mc_question_{train,valid,test}.json
        {video: {"metadata": {..}, "mc_question": [{"id", "question", "options", "answer_id",
                                                   "area", "reasoning", "tag"}]}}
    perception_test/videos/video_0.mp4  any folders

7,392 / 19,140 / 11,528 questions; those of the test split have no answers, which the benchmark's
server knows. A question's type is its area: memory, abstraction, physics or semantics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import choose_variant
from vfe.data.listing import Listing
from vfe.data.questions.collect import Question, Questions

FILES = {
  "train": "mc_question_train.json",
  "validation": "mc_question_valid.json",
  "test": "mc_question_test.json",
}


def list_perception_test(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of Perception Test's multiple-choice files. It has no variants."""
  choose_variant("perception_test", variant)
  questions = Questions("perception_test", path)
  files.needed_file(questions.folder, *FILES.values())
  for split, name in FILES.items():
    file = files.official_file(questions.folder, name)
    for video, row in files.read_members(file) if file else ():
      place = f"{file}, video {video}"
      asked = row.get("mc_question") if isinstance(row, Mapping) else None
      if not isinstance(asked, list):
        questions.leave_out(place, "no mc_question")
        continue
      path_of_video = questions.video(split, video)
      for number, question in enumerate(asked if path_of_video else ()):
        _add(questions, split, f"{place}, question {number}", video, path_of_video, question)
  return questions.listing()


def _add(
  questions: Questions, split: str, place: str, name: str, video: str, row: Any
) -> None:
  if not isinstance(row, Mapping) or not isinstance(row.get("id"), int):
    questions.leave_out(place, "no id")
    return
  options = row.get("options")
  area = row.get("area")
  question = Question(
    place, str(row["id"]), name, row.get("question"), area.lower() if isinstance(area, str) else ""
  )
  choices = options if isinstance(options, list) else ()
  questions.add_choice(split, video, question, choices, row.get("answer_id"))
