"""Open-ended answers are counted as ActivityNet-QA's and MSRVTT-QA's authors count them."""

import csv
import gzip
import json
from collections import Counter

import ml_collections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfe.data.record import VideoRecord
from vfe.data.sources import open_source
from vfe.errors import UserError
from vfe.evaluate.answers import Answers, is_right, normalised
from vfe.evaluate.multiple_choice import wilson

# type, answers
QUESTIONS = [
  ("color", ("red",)),
  ("color", ("dark blue", "blue")),
  ("motion", ("swim",)),
  ("", ("2",)),
  ("yes-no", ()),
]


class Asked:
  """A source of open-ended questions."""

  name, heads = "asked", {}

  def __init__(self, questions=QUESTIONS):
    self.questions = questions

  def __len__(self):
    return len(self.questions)

  def __getitem__(self, index):
    kind, answers = self.questions[index]
    text = {"id": f"{10 + index}", "video": "v", "question": f"what, {index}?", "type": kind}
    return VideoRecord(name="v.mp4", path="v.mp4", text=text | {"answers": answers})


def answered(said, source=None, official=None):
  """The collector after answers {(record, view): words}, in batches of two, the last one padded."""
  words = sorted({"", *said.values()})
  collector = Answers(source or Asked(), lambda ids: words[sum(ids)], official)
  rows = list(said.items())
  for start in range(0, len(rows), 2):
    part = rows[start : start + 2]
    valid, part = np.arange(2) < len(part), (part * 2)[:2]
    ids = np.array([[words.index(text), 9] for _, text in part])
    keys = {"record": np.array([key[0] for key, _ in part]), "valid": valid}
    keys |= {"view": np.array([key[1] for key, _ in part])}
    collector.collect({"ids": ids, "mask": np.array([[True, False]] * 2)}, keys)
  return collector


SAID = {(0, 0): "Red.", (1, 0): " blue", (2, 0): "swims", (3, 0): "two", (4, 0): "yes"}


def test_answers_are_compared_as_a_whole():
  metrics = answered(SAID).finish(None)
  assert metrics["questions"] == 4 and metrics["questions_unknown"] == 1
  assert metrics["accuracy"] == 0.5 and "questions_missing" not in metrics
  assert (metrics["low"], metrics["high"]) == wilson(2, 4)
  assert metrics["type/color/accuracy"] == 1.0 and metrics["type/motion/accuracy"] == 0.0
  assert metrics["type/color/questions"] == 2 and "type/yes-no/questions" not in metrics
  assert not any(key.startswith("type//") for key in metrics)


@pytest.mark.parametrize(
  "said, same", [("A  Dog.", "a dog"), ('"yes"', "yes"), ("3.5 m", "3.5 m"), ("30+", "30+")]
)
def test_what_is_normalised(said, same):
  assert normalised(said) == same


@given(st.text())
def test_normalising_twice_is_normalising_once_and_nothing_is_no_answer(text):
  once = normalised(text)
  assert normalised(once) == once
  assert is_right(text, (text,)) == bool(once)


def test_the_first_view_counts_and_padding_does_not():
  said = {(0, 1): "blue", (0, 0): "red", (2, 0): "swim"}
  metrics = answered(said).finish(None)
  assert metrics["accuracy"] == 1.0 and metrics["questions"] == 2
  assert metrics["questions_missing"] == 3
  assert np.isnan(answered({}).finish(None)["accuracy"])


def test_predictions_are_written(tmp_path):
  answered(SAID).finish(tmp_path)
  rows = list(csv.reader((tmp_path / "predictions.csv").open()))
  assert rows[0] == ["name", "id", "type", "question", "answers", "answer", "right"]
  assert rows[2] == ["v.mp4", "11", "color", "what, 1?", "dark blue|blue", " blue", "1"]
  assert [row[-1] for row in rows[1:]] == ["1", "1", "0", "0", ""]
  assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("name, key, number", [("activitynet_qa", "question_id", str),
                                               ("msrvtt_qa", "id", int)])  # fmt: skip
def test_results_are_as_the_authors_code_has_them(tmp_path, caplog, name, key, number):
  answered({(1, 0): "Blue.", (0, 0): "red"}, official=name).finish(tmp_path)
  assert json.loads((tmp_path / "answers.json").read_text()) == [
    {key: number("10"), "answer": "red"}, {key: number("11"), "answer": "blue"}
  ]  # fmt: skip
  assert "answers.json lacks 3 of 5 questions" in caplog.text


def test_another_benchmark_is_refused():
  with pytest.raises(UserError, match=r"official='activitynetqa' is unknown \(nearest: activityn"):
    answered({}, official="activitynetqa")


def test_the_official_answers_are_normalised(real_data):
  folder = real_data / "annotations"
  rows = json.loads((folder / "activitynet_qa" / "test_a.json").read_text())
  with gzip.open(folder / "activitynet_qa" / "train_a.json.gz", "rt") as file:
    rows += json.load(file)
  answers = [row["answer"] for row in rows]
  answers += json.loads((folder / "msrvtt" / "train_ans2label.json").read_text())
  assert [answer for answer in answers if normalised(answer) != answer] == []


def test_the_official_questions_of_activitynet_qa_are_scored(real_data, tmp_path, monkeypatch):
  """'yes' to everything, and the file of results counted as eval.py counts."""

  class AllVideos(dict):
    __contains__, __missing__ = lambda self, name: True, lambda self, name: f"{name}.mp4"

  monkeypatch.setattr("vfe.data.captioned.collect._video_files", lambda folder: AllVideos())
  official = real_data / "annotations" / "activitynet_qa"
  for name in ("test_q.json", "test_a.json"):
    (tmp_path / name).symlink_to(official / name)
  data = ml_collections.ConfigDict(dict(source="activitynet_qa", path=str(tmp_path), variant=None))
  source = open_source(data, "validation")
  said = dict.fromkeys(((record, 0) for record in range(len(source))), "Yes")
  metrics = answered(said, source, "activitynet_qa").finish(tmp_path / "out")
  right = {row["question_id"]: row for row in json.loads((official / "test_a.json").read_text())}
  results = json.loads((tmp_path / "out" / "answers.json").read_text())
  hits = Counter(right[r["question_id"]]["type"] for r in results
                 if right[r["question_id"]]["answer"] == r["answer"])  # fmt: skip
  assert metrics["questions"] == len(results) == 8_000
  assert metrics["accuracy"] == hits.total() / 8_000
  assert metrics["type/yes-no/accuracy"] == hits[3] / 2_094
  assert metrics["type/free/questions"] == 5_600
  assert metrics["type/free/accuracy"] == (hits.total() - hits[0] - hits[1] - hits[2]) / 5_600
