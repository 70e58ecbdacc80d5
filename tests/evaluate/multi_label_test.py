"""Mean average precision of several classes a video, by hand."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.evaluate.multi_label import MultiLabel, average_precisions

NAMES = ("hold", "open", "sit", "never")


def videos(labels):
  texts = [{"classes": tuple(np.flatnonzero(row).tolist())} for row in labels]
  return ListedSource("videos", {}, [VideoRecord(f"v{i}", path="x", text=t)
                                     for i, t in enumerate(texts)])  # fmt: skip


def by_hand(scores, labels):
  """The average precision of each class, walking down its list; None where nothing shows it."""
  found = []
  for c in range(scores.shape[1]):
    def place(i, c=c):
      return -scores[i, c] if labels[i].any() else np.inf, labels[i, c]

    hits, total = 0, 0.0
    for rank, i in enumerate(sorted(range(len(scores)), key=place), start=1):
      if labels[i, c]:
        hits += 1
        total += hits / rank
    found.append(total / hits if hits else np.nan)
  return np.array(found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 9))
def test_average_precisions_are_those_by_hand(seed, count):
  rng = np.random.default_rng(seed)
  scores = rng.choice([0.1, 0.2, 0.3, 0.9], (count, 4))
  labels = rng.random((count, 4)) < 0.3
  np.testing.assert_allclose(average_precisions(scores, labels), by_hand(scores, labels))


def test_a_known_list():
  scores = np.array([[0.9], [0.8], [0.7], [0.6]])
  labels = np.array([[True], [False], [True], [False]])
  # Those that show nothing come last, so that both hits are at the top.
  assert average_precisions(scores, labels) == 1.0
  both = np.concatenate([labels, ~labels], axis=1)
  found = average_precisions(np.repeat(scores, 2, 1), both)
  assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2])


def drawn(seed=0, count=11):
  rng = np.random.default_rng(seed)
  labels = rng.random((count, 4)) < 0.4
  labels[:, 3] = False
  return rng.normal(size=(count, 4)), labels


def measure(scores, labels, size=4, folder=None, views=1, left_out=()):
  collector = MultiLabel(videos(labels), NAMES)
  rows = [(i, v) for i in range(len(scores)) if i not in left_out for v in range(views)]
  for start in range(0, len(rows), size):
    part = (rows[start : start + size] * size)[:size]
    record, view = np.array(part).T
    shift = (view - (views - 1) / 2)[:, None]  # views differ, and their mean is the score
    valid = np.arange(size) < len(rows) - start
    collector.collect(
      {"scores": scores[record] + shift}, {"valid": valid, "record": record, "view": view}
    )
  return collector.finish(folder)


@pytest.mark.parametrize("size", [1, 4, 32])
@pytest.mark.parametrize("views", [1, 3])
def test_the_collector_averages_views_and_classes(size, views, tmp_path):
  scores, labels = drawn()
  found = measure(scores, labels, size, tmp_path, views)
  precision, shown = by_hand(scores, labels), labels.sum(0)
  assert found["mAP"] == pytest.approx(np.nanmean(precision))
  weighted = np.nansum(precision * shown) / shown.sum()
  assert found["weighted_mAP"] == pytest.approx(weighted)
  assert found["classes"] == 3 and found["clips"] == 11 and "clips_missing" not in found
  rows = list(csv.DictReader((tmp_path / "multi_label.csv").open()))
  assert [row["class"] for row in rows] == list(NAMES)
  assert [int(row["clips"]) for row in rows] == shown.tolist()
  assert rows[3]["average_precision"] == "nan"
  assert float(rows[0]["average_precision"]) == pytest.approx(precision[0])


def test_what_is_not_finite_is_last_and_what_is_missing_is_counted():
  scores, labels = drawn()
  labels[0, 0] = True
  labels[~labels.any(1), 1] = True
  lost = scores.copy()
  lost[0] = np.nan
  lowest = np.where(np.arange(11)[:, None] == 0, -99.0, scores)
  assert measure(lost, labels)["mAP"] == pytest.approx(measure(lowest, labels)["mAP"])
  assert measure(scores, labels, left_out=(0, 4))["clips_missing"] == 2
  nothing = MultiLabel(videos(labels), NAMES).finish(None)
  assert np.isnan(nothing["mAP"]) and nothing["clips_missing"] == 11
