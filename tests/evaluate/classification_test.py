import csv

import numpy as np
import pytest

from vfe.data.record import VideoRecord
from vfe.evaluate.classification import Classification

VERBS = ("cut", "open", "wash")
NOUNS = ("cup", "knife", "lid", "pan", "plate", "tap", "towel")


class Videos:
  """A source of so many videos."""

  name = "videos"

  def __init__(self, count, heads):
    self.heads, self._count = heads, count

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    return VideoRecord(name=f"video {index}, take 1", path="x")


@pytest.fixture
def kitchen():
  return Videos(5, {"verb": VERBS, "noun": NOUNS})


def results(source, seed=0, views=3):
  """Rows of random probabilities and labels: record, view, label and probabilities by head."""
  rng = np.random.default_rng(seed)
  rows = []
  for record in range(len(source)):
    label = {head: int(rng.integers(len(names))) for head, names in source.heads.items()}
    for view in range(views):
      given = {h: rng.dirichlet(np.ones(len(c))).astype("f4") for h, c in source.heads.items()}
      rows.append((record, view, label, given))
  return rows


def measure(source, rows, size=4, folder=None):
  """Collects the rows in batches of `size`, the last one padded with rows that are not valid."""
  collector = Classification(source)
  for start in range(0, len(rows), size):
    part = rows[start : start + size]
    valid = np.arange(size) < len(part)
    part = part + [rows[0]] * (size - len(part))
    batch = {
      "valid": valid,
      "record": np.array([row[0] for row in part], np.int32),
      "view": np.array([row[1] for row in part], np.int32),
      "label": {h: np.array([row[2][h] for row in part], np.int32) for h in source.heads},
    }
    outputs = {h: np.stack([row[3][h] for row in part]) for h in source.heads}
    collector.collect(outputs, batch)
  return collector.finish(folder)


def test_measures_are_those_of_the_averaged_views(kitchen):
  rows = results(kitchen)
  found = measure(kitchen, rows)
  right = np.zeros((5, 2), bool)
  for column, head in enumerate(("verb", "noun")):
    for record in range(5):
      own = [row for row in rows if row[0] == record]
      mean = np.mean([row[3][head] for row in own], axis=0)
      order = np.argsort(-mean)
      right[record, column] = order[0] == own[0][2][head]
      if head == "noun":
        found["noun/top5"] -= (own[0][2][head] in order[:5]) / 5
    assert found[f"{head}/top1"] == right[:, column].mean()
  assert found["action/top1"] == right.all(1).mean()
  assert abs(found["noun/top5"]) < 1e-12
  assert "verb/top5" not in found  # three classes
  assert found["clips"] == 5 and "clips_missing" not in found


@pytest.mark.parametrize("size", [1, 4, 7, 16])
def test_padding_order_and_repeats_change_nothing(kitchen, size, tmp_path):
  rows = results(kitchen)
  expected = measure(kitchen, rows, 5, tmp_path / "a")
  shuffled = [rows[i] for i in np.random.default_rng(size).permutation(len(rows))]
  assert measure(kitchen, shuffled + shuffled[:3], size, tmp_path / "b") == expected
  one, other = ((tmp_path / f / "predictions.csv").read_bytes() for f in ("a", "b"))
  assert one == other


def test_a_video_that_was_not_measured_is_missing(kitchen):
  rows = [row for row in results(kitchen) if row[0] != 2]
  found = measure(kitchen, rows)
  assert found["clips"] == 4 and found["clips_missing"] == 1


def test_records_without_a_label_count_for_the_other_heads(kitchen):
  rows = results(kitchen, views=1)
  rows = [
    (record, view, {**label, "noun": -1 if record == 0 else label["noun"]}, given)
    for record, view, label, given in rows
  ]
  found = measure(kitchen, rows)
  rights = lambda head: [np.argmax(row[3][head]) == row[2][head] for row in rows]
  assert found["noun/top1"] == np.mean(rights("noun")[1:])
  assert found["verb/top1"] == np.mean(rights("verb"))
  assert found["action/top1"] == np.mean(np.all([rights("noun"), rights("verb")], axis=0)[1:])


def test_mean_class_weighs_every_class_that_occurs_alike():
  source = Videos(4, {"label": ("a", "b", "c")})
  hot = np.eye(3, dtype="f4")
  told = [(0, 0), (0, 0), (0, 0), (1, 0)]  # three of a are right, the only b is taken for an a
  rows = [(i, 0, {"label": true}, {"label": hot[said]}) for i, (true, said) in enumerate(told)]
  found = measure(source, rows)
  assert found == {"clips": 4, "label/top1": 0.75, "label/mean_class": 0.5}


def test_what_is_not_finite_or_undecided_is_not_right_by_chance():
  source = Videos(3, {"label": ("a", "b")})
  nan, even = np.full(2, np.nan, "f4"), np.full(2, 0.5, "f4")
  rows = [(0, 0, {"label": 0}, {"label": nan}), (1, 0, {"label": 1}, {"label": even})]
  rows.append((2, 0, {"label": 0}, {"label": even}))
  assert measure(source, rows)["label/top1"] == pytest.approx(1 / 3)


def test_nothing_measured_is_nan_not_an_error(kitchen):
  found = Classification(kitchen).finish(None)
  assert np.isnan(found["verb/top1"]) and found["clips_missing"] == 5


def test_predictions_say_what_was_thought_of_each_video(kitchen, tmp_path):
  rows = results(kitchen, views=1)
  measure(kitchen, rows, folder=tmp_path)
  with (tmp_path / "predictions.csv").open(newline="") as file:
    lines = list(csv.DictReader(file))
  assert [line["name"] for line in lines] == [f"video {i}, take 1" for i in range(5)]
  for line, (_, _, label, given) in zip(lines, rows, strict=True):
    assert line["noun_true"] == NOUNS[label["noun"]]
    assert line["noun_predicted"] == NOUNS[np.argmax(given["noun"])]
    assert float(line["noun_probability"]) == pytest.approx(given["noun"].max(), abs=1e-6)
    best = [NOUNS[i] for i in np.argsort(-given["noun"])[:5]]
    assert line["noun_top5"].split("|") == best
    assert len(line["verb_top5"].split("|")) == 3
