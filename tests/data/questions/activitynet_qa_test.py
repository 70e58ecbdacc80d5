"""ActivityNet-QA from its official files."""

import pytest

from vfe.data import sources
from vfe.data.questions import activitynet_qa
from vfe.errors import UserError

QUESTIONS = [
  {"video_name": "1QIUV7WYKXg", "question": "is it red", "question_id": "v_1QIUV7WYKXg_3"},
  {"video_name": "xx", "question": "how many", "question_id": "v_xx_1"},
  {"video_name": "xx", "question": "where", "question_id": "v_xx_2"},
  {"video_name": 3},
]
ANSWERS = [
  {"answer": "two", "type": 7, "question_id": "v_xx_1"},
  {"answer": "no", "type": 3, "question_id": "v_1QIUV7WYKXg_3"},
]
FILES = {"val_q.json": QUESTIONS, "val_a.json": ANSWERS}


def test_answers_are_joined_by_the_question(make, config, caplog):
  folder = make(FILES, "videos/v_1QIUV7WYKXg.mkv", "xx.mp4")
  source = sources.open_source(config("activitynet_qa", folder), "validation")
  assert [source[i].text for i in range(len(source))] == [
    {
      "id": "v_1QIUV7WYKXg_3", "video": "1QIUV7WYKXg", "question": "is it red", "type": "yes-no",
      "answers": ("no",),
    },
    {"id": "v_xx_1", "video": "xx", "question": "how many", "type": "number", "answers": ("two",)},
  ]  # fmt: skip
  assert "row 3: no answer; left out, as are 1 other rows" in caplog.text


def test_both_files_are_needed(make):
  folder = make({"test_q.json": QUESTIONS}, "xx.mp4")
  with pytest.raises(UserError, match=r"holds no test_a\.json"):
    activitynet_qa.list_activitynet_qa(str(folder))


def test_the_official_files_have_the_published_counts(official):
  folder = official("activitynet_qa")
  splits = activitynet_qa.list_activitynet_qa(str(folder)).splits
  assert {name: len(entries) for name, entries in splits.items()} == {
    "train": 32_000, "test": 8_000
  }  # fmt: skip
  kinds = [entry.text["type"] for entry in splits["test"]]
  assert kinds.count("motion") == kinds.count("temporal") == 800 and kinds.count("yes-no") == 2_094
