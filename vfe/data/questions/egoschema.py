"""EgoSchema: five-way questions on three minutes of first-person video, from Ego4D.

    egoschema/questions.json       [{"q_uid", "question", "option 0" .. "option 4"}]
    egoschema/subset_answers.json  {q_uid: 0..4} of the 500 public ones
    egoschema/videos/<q_uid>.mp4   any folders
    egoschema/uid_to_ego4d.json    {q_uid: {"video_uid", "starting_sec", "ending_sec"}}: with it,
                                   Ego4D's own <video_uid>.mp4 do where <q_uid>.mp4 is not there

`subset`: the 500 as the validation split. `full`: all as the test split, with answer -1 but for
those 500; accuracy on it comes from the benchmark's server. The first releases of questions.json
have no questions in them, and `corrent_answer` (so written) in one of them.
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

VARIANTS = ("subset", "full")
QUESTIONS = "questions.json"
ANSWERS = "subset_answers.json"
EGO4D = "uid_to_ego4d.json"
OPTIONS = tuple(f"option {i}" for i in range(5))


def list_egoschema(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of EgoSchema's files; variant subset (default) or full."""
  variant = choose_variant("egoschema", variant, VARIANTS)
  questions = Questions("egoschema", path)
  folder = questions.folder
  needed = [files.needed_file(folder, QUESTIONS)]
  if variant == "subset":
    files.needed_file(folder, ANSWERS)
  answers, places = (_table(files.official_file(folder, name)) for name in (ANSWERS, EGO4D))
  split = "validation" if variant == "subset" else "test"
  for place, row in files.read_rows(needed[0]):
    uid = row.get("q_uid") if isinstance(row, Mapping) else None
    if not isinstance(uid, str):
      questions.leave_out(place, "no q_uid")
    elif variant == "full" or uid in answers:
      answer = answers.get(uid, row.get("corrent_answer"))
      _add(questions, split, place, row, answer, places.get(uid))
  return questions.listing()


def _add(
  questions: Questions, split: str, place: str, row: Mapping[str, Any], answer: Any, ego4d: Any
) -> None:
  uid = row["q_uid"]
  if "question" not in row:
    questions.leave_out(place, "no question, as in the first releases of the file")
    return
  span = _span(ego4d)
  names = [uid] if span is None else [uid, ego4d["video_uid"]]
  file = questions.video(split, *names)
  if file:
    question = Question(place, uid, uid, row["question"])
    cut = None if Path(file).stem == uid else span
    questions.add_choice(split, file, question, [row.get(key) for key in OPTIONS], answer, cut)


def _span(ego4d: Any) -> tuple[float, float] | None:
  """Seconds within the video of Ego4D that a question is about, or None."""
  if not isinstance(ego4d, Mapping) or not isinstance(ego4d.get("video_uid"), str):
    return None
  times = ego4d.get("starting_sec"), ego4d.get("ending_sec")
  if not all(isinstance(time, int | float) for time in times) or not 0 <= times[0] < times[1]:
    return None
  return float(times[0]), float(times[1])


def _table(file: Path | None) -> Mapping[str, Any]:
  table = files.read_json(file) if file else {}
  if not isinstance(table, Mapping):
    raise UserError(f"{file}: not a JSON object with a member a question.")
  return table
