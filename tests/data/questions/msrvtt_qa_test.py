"""MSRVTT-QA from its official files."""

import json

import pytest

from vfe.data import sources
from vfe.data.questions import msrvtt_qa
from vfe.errors import UserError

ROWS = [
  {
    "answer": "couch", "category_id": 14, "id": 158581, "question": "what are they on?",
    "video_id": 6513,
  },
  {"answer": "man", "category_id": 14, "id": 158582, "question": "is it?", "video_id": 7},
  {"answer": "x"},
]  # fmt: skip


def test_videos_go_by_their_numbers(make, config, caplog):
  folder = make({"val_qa.json": ROWS}, "all/video6513.mp4", "all/video7.mp4", "6513.mp4")
  source = sources.open_source(config("msrvtt_qa", folder), "validation")
  assert source[0].text == {
    "id": "158581", "video": "video6513", "question": "what are they on?", "type": "what",
    "answers": ("couch",),
  }  # fmt: skip
  assert source[0].path.endswith("video6513.mp4") and source[1].text["type"] == ""
  assert "row 3: no video_id" in caplog.text


def test_lines_with_named_videos_are_read_too(make):
  line = json.dumps({"answer": "couch", "question": "who?", "video_id": "video6513"})
  folder = make({"train.jsonl": f"{line}\n{line}\n"}, "video6513.mp4")
  entries = msrvtt_qa.list_msrvtt_qa(str(folder)).splits["train"]
  assert [(e.text["id"], e.text["video"]) for e in entries] == [
    ("0", "video6513"), ("1", "video6513")
  ]  # fmt: skip
  make({"train.jsonl": f"{line}\n{{"})
  with pytest.raises(UserError, match=r"train\.jsonl, line 2: not JSON"):
    msrvtt_qa.list_msrvtt_qa(str(folder))
