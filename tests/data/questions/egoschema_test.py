"""EgoSchema from its official files."""

import json

import pytest

from vfe.data import sources
from vfe.data.questions import egoschema
from vfe.errors import UserError


def row(uid, **changes):
  options = {f"option {i}": f"C does {i} ." for i in range(5)}
  return {"q_uid": uid, "google_drive_id": "x", "question": f"What of {uid}?", **options, **changes}


FILES = {
  egoschema.QUESTIONS: [row("u-1"), row("u-2"), row("u-3")],
  egoschema.ANSWERS: {"u-1": 3, "u-3": 0},
}


def answers(source):
  return [source[i].text["answer"] for i in range(len(source))]


def test_the_subset_is_validation_and_all_are_test(make, config):
  folder = make(FILES, "videos/u-1.mp4", "videos/u-2.mp4", "u-3.mp4")
  subset = sources.open_source(config("egoschema", folder), "validation")
  assert answers(subset) == [3, 0]
  assert subset[0].text == {
    "id": "u-1", "video": "u-1", "question": "What of u-1?", "type": "", "answer": 3,
    "options": tuple(f"C does {i} ." for i in range(5)), "answers": ("C does 3 .",),
  }  # fmt: skip
  everything = sources.open_source(config("egoschema", folder, "full"), "validation")
  assert answers(everything) == [3, -1, 0]
  with pytest.raises(UserError, match="holds no train split"):
    sources.open_source(config("egoschema", folder), "train")


def test_videos_of_ego4d_do_where_clips_are_missing(make, config):
  places = {u: {"video_uid": "whole", "starting_sec": 240, "ending_sec": 420} for u in FILES}
  places |= {"u-1": {"video_uid": "whole", "starting_sec": 240, "ending_sec": 420}, "u-3": {}}
  folder = make(FILES | {egoschema.EGO4D: places}, "ego4d/whole.mp4", "u-3.mp4")
  first, third = (sources.open_source(config("egoschema", folder), "validation")[i] for i in (0, 1))
  assert first.path.endswith("whole.mp4") and (first.start, first.end) == (240.0, 420.0)
  assert third.path.endswith("u-3.mp4") and (third.start, third.end) == (None, None)


def test_the_first_releases_of_the_questions_are_told(make, caplog):
  early = [{key: value for key, value in row("u-1").items() if key != "question"}]
  folder = make(FILES | {egoschema.QUESTIONS: early}, "u-1.mp4")
  with pytest.raises(UserError, match="row 1: no question, as in the first releases of the file;"):
    egoschema.list_egoschema(str(folder))
  sic = [row("u-2", corrent_answer=4), row("u-1", corrent_answer=1), *early, {"q_uid": 3}]
  folder = make({egoschema.QUESTIONS: sic}, "u-2.mp4")
  entries = egoschema.list_egoschema(str(folder), "full").splits["test"]
  assert [entry.text["answer"] for entry in entries] == [4, 3]
  assert "row 3: no question" in caplog.text and "as are 1 other rows" in caplog.text


def test_files_that_are_wrong_are_told_with_the_row(make):
  folder = make(FILES | {egoschema.ANSWERS: {"u-2": 5}}, "u-2.mp4")
  with pytest.raises(UserError, match=r"questions\.json, row 2: answer 5 is not one of its 5 opt"):
    egoschema.list_egoschema(str(folder))
  make({egoschema.ANSWERS: {"u-2": 0}, egoschema.QUESTIONS: [row("u-2", **{"option 4": ""})]})
  with pytest.raises(UserError, match=r"questions\.json, row 1: a question without options"):
    egoschema.list_egoschema(str(folder))
  make({egoschema.ANSWERS: [1]})
  with pytest.raises(UserError, match=r"subset_answers\.json: not a JSON object"):
    egoschema.list_egoschema(str(folder))


def test_the_official_files_have_the_published_counts(official):
  folder = official("egoschema")
  (folder / egoschema.QUESTIONS).symlink_to(folder / "questions_subset500.json")
  entries = egoschema.list_egoschema(str(folder)).splits["validation"]
  right = json.loads((folder / egoschema.ANSWERS).read_text())
  assert len(entries) == len(right) == 500
  assert {entry.text["id"]: entry.text["answer"] for entry in entries} == right
  (folder / egoschema.QUESTIONS).unlink()
  (folder / egoschema.QUESTIONS).symlink_to(folder / "questions_first20.json")
  entries = egoschema.list_egoschema(str(folder), "full").splits["test"]
  assert [entry.text["answer"] for entry in entries] == [-1] * 20
