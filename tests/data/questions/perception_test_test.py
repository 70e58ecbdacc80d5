"""Perception Test in its official format."""

import pytest

from vfe.data import sources
from vfe.data.questions import perception_test
from vfe.errors import UserError


def question(number, **changes):
  return {
    "id": number, "question": "What falls?", "options": ["a cup", "a pen", "none"], "answer_id": 1,
    "area": "Physics", "reasoning": "Predictive", "tag": ["motion"], **changes,
  }  # fmt: skip


def video(*questions):
  return {"metadata": {"split": "valid", "video_id": "x"}, "mc_question": list(questions)}


def test_questions_and_their_areas(make, config, caplog):
  hidden = {key: value for key, value in question(8).items() if key != "answer_id"}
  content = {"video_1": video(question(7), hidden, {"id": None}), "video_2": {"mc_question": 3}}
  folder = make({"mc_question_valid.json": content}, "videos/video_1.mp4")
  source = sources.open_source(config("perception_test", folder), "validation")
  assert [source[i].text["answer"] for i in range(len(source))] == [1, -1]
  assert source[0].text == {
    "id": "7", "video": "video_1", "question": "What falls?", "type": "physics", "answer": 1,
    "options": ("a cup", "a pen", "none"), "answers": ("a pen",),
  }  # fmt: skip
  assert "question 2: no id; left out, as are 1 other rows" in caplog.text


@pytest.mark.parametrize(
  ("changes", "match"),
  [({"options": None}, "a question without options"), ({"answer_id": 3}, "answer 3 is not one of")],
)
def test_a_wrong_question_is_told_with_its_place(make, changes, match):
  content = {"video_1": video(question(0, **changes))}
  folder = make({"mc_question_train.json": content}, "video_1.mp4")
  with pytest.raises(UserError, match=rf"train\.json, video video_1, question 0: {match}"):
    perception_test.list_perception_test(str(folder))
