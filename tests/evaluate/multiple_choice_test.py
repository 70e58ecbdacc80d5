import csv
import json
import math

import ml_collections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfe.data.record import VideoRecord
from vfe.data.sources import open_source
from vfe.errors import UserError
from vfe.evaluate import multiple_choice
from vfe.evaluate.multiple_choice import MultipleChoice, best_option, correct, wilson

# answer, options, type, id, video
QUESTIONS = [
  (0, 3, "CW", "10", "v1"),
  (2, 3, "CW", "11", "v1"),
  (1, 2, "TN", "12", "v2"),
  (-1, 3, "", "13", "v2"),
]


class Asked:
  """A source of questions."""

  name, heads = "asked", {}

  def __init__(self, questions=QUESTIONS):
    self.questions = questions

  def __len__(self):
    return len(self.questions)

  def __getitem__(self, index):
    answer, count, kind, number, video = self.questions[index]
    text = {
      "id": number, "video": video, "question": f"why {index}, then?", "type": kind,
      "options": tuple(f"option {i}" for i in range(count)), "answer": answer,
    }  # fmt: skip
    return VideoRecord(name=f"{video}.mp4", path=f"{video}.mp4", text=text)


def collect(collector, rows, size=3, options=3):
  """Rows are (record, view, sums, tokens, blind); batches are padded with rows not valid."""
  for start in range(0, len(rows), size):
    part = rows[start : start + size]
    valid, part = np.arange(size) < len(part), (part * size)[:size]
    shape = (size, options)
    outputs = {
      "sum": np.full(shape, 7.0, np.float32), "tokens": np.zeros(shape, int),
      "blind": np.full(shape, np.nan, np.float32), "mask": np.zeros(shape, bool),
    }  # fmt: skip
    for i, (_, _, *columns) in enumerate(part):
      for name, column in zip(("sum", "tokens", "blind"), columns, strict=True):
        outputs[name][i, : len(column)] = column
      outputs["mask"][i, : len(columns[0])] = True
    whole = lambda column, part=part: np.array([row[column] for row in part], np.int32)
    collector.collect(outputs, {"valid": valid, "record": whole(0), "view": whole(1)})
  return collector


ROWS = [
  (0, 0, [-4, -5, -6], [4, 10, 6], [-9, -9, -9]),  # the sum is right, the mean is option 1's
  (1, 0, [-4, -9, -5], [4, 9, 10], [-9, -9, -1]),  # the mean is right, and blind
  (2, 0, [-3, -2], [1, 1], [-1, -2]),  # right, not blind
  (3, 0, [-1, -2, -3], [1, 1, 1], [-3, -2, -1]),
]


def test_accuracies_by_sum_and_mean_with_video_and_blind(tmp_path):
  metrics = collect(MultipleChoice(Asked()), ROWS).finish(None)
  assert metrics["questions"] == 3 and metrics["questions_unknown"] == 1
  assert "questions_missing" not in metrics
  assert metrics["chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)
  found = {name: metrics[f"{name}/accuracy"] for name in multiple_choice.SCORES}
  assert found == pytest.approx(
    {"sum": 2 / 3, "mean": 2 / 3, "blind_sum": 1 / 3, "blind_mean": 1 / 3}
  )
  assert (metrics["sum/low"], metrics["sum/high"]) == wilson(2, 3)
  assert metrics["type/CW/questions"] == 2 and metrics["type/TN/questions"] == 1
  assert metrics["type/CW/sum"] == 0.5 and metrics["type/TN/blind_sum"] == 0.0
  assert not any(key.startswith("type//") for key in metrics)


def test_ties_and_what_is_not_finite_are_wrong():
  nan, inf = math.nan, math.inf
  rows = [
    (0, 0, [-4, -4, -6], [1, 1, 1], [-1, nan, -9]), (1, 0, [-4, -9, inf], [1, 1, 1], [-1, -2, nan]),
    (2, 0, [-3, -2], [0, 1], [-inf, -2]),
  ]  # fmt: skip
  metrics = collect(MultipleChoice(Asked()), rows).finish(None)
  assert [metrics[f"{name}/accuracy"] for name in multiple_choice.SCORES] == [0.0] * 4
  alike = [(i, 0, [-2.5] * n, [5] * n, [0.0] * n) for i, n in ((0, 3), (1, 3), (2, 2))]
  metrics = collect(MultipleChoice(Asked()), alike).finish(None)
  assert metrics["sum/accuracy"] == metrics["blind_mean/accuracy"] == 0.0


def test_views_are_averaged_whatever_the_batches_and_repeats_count_once():
  views = [(i, view, [s + (view - 0.5) * 8 * (k == 0) for k, s in enumerate(row[0])], *row[1:])
           for i, _, *row in ROWS for view in (0, 1)]  # fmt: skip
  expected = collect(MultipleChoice(Asked()), ROWS).finish(None)
  for size, rows in ((1, views), (3, views[::-1]), (5, views + views[:3])):
    assert collect(MultipleChoice(Asked()), rows, size).finish(None) == pytest.approx(expected)


def test_videos_that_could_not_be_read_are_counted(tmp_path, caplog):
  metrics = collect(MultipleChoice(Asked(), "egoschema"), ROWS[1:3]).finish(tmp_path)
  assert metrics["questions"] == 2 and metrics["questions_missing"] == 2
  assert "the submission lacks 2 of 4 questions" in caplog.text
  assert np.isnan(MultipleChoice(Asked()).finish(tmp_path)["sum/accuracy"])


def test_predictions_are_written(tmp_path):
  collect(MultipleChoice(Asked()), ROWS).finish(tmp_path)
  rows = list(csv.reader((tmp_path / "predictions.csv").open()))
  assert rows[0] == [
    "name", "id", "type", "question", "options", "answer", "sum", "mean", "blind_sum",
    "blind_mean", "scores",
  ]  # fmt: skip
  assert rows[3] == [
    "v2.mp4", "12", "TN", "why 2, then?", "option 0|option 1", "1", "1", "1", "0", "0",
    "-3.000000|-2.000000",
  ]  # fmt: skip
  assert len(rows) == 5 and sorted(file.name for file in tmp_path.iterdir()) == ["predictions.csv"]


def test_the_submission_of_egoschema_is_what_its_servers_want(tmp_path):
  collect(MultipleChoice(Asked(), "egoschema"), ROWS).finish(tmp_path)
  assert json.loads((tmp_path / "submission.json").read_text()) == {
    "10": 0, "11": 0, "12": 1, "13": 0
  }  # fmt: skip
  lines = (tmp_path / "submission.csv").read_text().splitlines()
  assert lines == ["q_uid,answer", "10,0", "11,0", "12,1", "13,0"]


def test_the_submission_of_perception_test_is_what_its_server_wants(tmp_path):
  collect(MultipleChoice(Asked(), "perception_test"), ROWS).finish(tmp_path)
  assert json.loads((tmp_path / "submission.json").read_text()) == {
    "v1": [
      {"id": 10, "answer_id": 0, "answer": "option 0"},
      {"id": 11, "answer_id": 0, "answer": "option 0"},
    ],
    "v2": [
      {"id": 12, "answer_id": 1, "answer": "option 1"},
      {"id": 13, "answer_id": 0, "answer": "option 0"},
    ],
  }


def test_another_benchmark_has_no_submission():
  with pytest.raises(UserError, match=r"official='egoshema' is unknown \(nearest: egoschema"):
    MultipleChoice(Asked(), "egoshema")


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_its_equation(drawn):
  """Its bounds are the shares p for which (hits / n - p)^2 = z^2 p (1 - p) / n."""
  hits, count = drawn
  low, high = wilson(hits, count)
  assert 0 <= low <= hits / count + 1e-15 and hits / count - 1e-15 <= high <= 1
  for p in (low, high):
    expected = multiple_choice.Z**2 * p * (1 - p) / count
    assert (hits / count - p) ** 2 == pytest.approx(expected, abs=1e-12)


def test_wilson_of_known_counts():
  assert wilson(0, 10) == pytest.approx((0.0, 0.2775327998628892), abs=1e-12)
  assert wilson(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-7)
  assert all(math.isnan(bound) for bound in wilson(0, 0))


scores = st.lists(
  st.lists(st.sampled_from([-3.0, -2.0, -1.0, math.nan, -math.inf]), min_size=4, max_size=4),
  min_size=1, max_size=6,
)  # fmt: skip


@given(scores, st.integers(0, 3))
def test_what_is_correct_is_chosen_and_above_all(table, answer):
  table, answers = np.array(table), np.full(len(table), answer)
  for row, right, best in zip(table, correct(table, answers), best_option(table), strict=True):
    others = np.delete(row, answer)
    assert right == (np.isfinite(row[answer]) and all(other < row[answer] for other in others))
    assert best == answer or not right
  assert not correct(table, np.full(len(table), -1)).any()


def test_the_official_questions_of_egoschema_are_scored(real_data, tmp_path, monkeypatch):
  """Scored by the published answers, the submission is the published file of answers."""

  class AllVideos(dict):
    __contains__, __missing__ = lambda self, name: True, lambda self, name: f"{name}.mp4"

  monkeypatch.setattr("vfe.data.captioned.collect._video_files", lambda folder: AllVideos())
  official = real_data / "annotations" / "egoschema"
  (tmp_path / "questions.json").symlink_to(official / "questions_subset500.json")
  (tmp_path / "subset_answers.json").symlink_to(official / "subset_answers.json")
  data = ml_collections.ConfigDict(dict(source="egoschema", path=str(tmp_path), variant=None))
  source = open_source(data, "validation")
  one_hot = lambda i: np.eye(5)[source[i].text["answer"]].tolist()
  rows = [(i, 0, one_hot(i), [3] * 5, [-1.0] * 5) for i in range(len(source))]
  metrics = collect(MultipleChoice(source, "egoschema"), rows, 64, 5).finish(tmp_path / "out")
  assert metrics["questions"] == 500 and metrics["chance"] == pytest.approx(0.2)
  assert metrics["sum/accuracy"] == 1.0 and metrics["blind_sum/accuracy"] == 0.0
  answers = json.loads((tmp_path / "out" / "submission.json").read_text())
  assert answers == json.loads((official / "subset_answers.json").read_text())
