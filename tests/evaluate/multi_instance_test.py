"""Multi-instance retrieval: relevancy, mAP and nDCG by hand, and of the official captions."""

import ast
import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.evaluate import multi_instance
from vfe.evaluate.multi_instance import MultiInstance, measures, relevancies


def clips(tags, captions):
  """A source of clips with (verbs, nouns), those of `captions` with a query."""
  records = [
    VideoRecord(
      f"clip {i}", path="x",
      text={"verbs": verbs, "nouns": nouns, "caption": f"say {i}", "query": i in captions},
    )
    for i, (verbs, nouns) in enumerate(tags)
  ]  # fmt: skip
  return ListedSource("clips", {}, records)


def by_hand(similarity, relevancy):
  """(mAP, nDCG, mAP_binary) of queries in rows, item by item."""
  found = []
  for near, grades in zip(similarity, relevancy, strict=True):
    order = sorted(range(len(near)), key=lambda i: (-near[i], grades[i]))
    ranked, ideal = [grades[i] for i in order], sorted(grades, reverse=True)
    most = sum(grade > 0 for grade in grades)
    gain = lambda items, most=most: sum(g / np.log2(k + 2) for k, g in enumerate(items[:most]))
    whole = [k for k, grade in enumerate(ranked) if grade == 1]
    graded = np.mean([sum(ranked[: k + 1]) / (k + 1) for k in whole]) if whole else np.nan
    binary = np.mean([(n + 1) / (k + 1) for n, k in enumerate(whole)]) if whole else np.nan
    found.append((graded, gain(ranked) / gain(ideal) if most else np.nan, binary))
  return np.nanmean(np.array(found), axis=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(1, 7), st.sampled_from([1, 9, 1 << 20]))
def test_measures_are_those_by_hand(seed, queries, items, cells):
  rng = np.random.default_rng(seed)
  relevancy = rng.choice([0, 0.25, 0.5, 1.0], (queries, items))
  relevancy[:, 0] = 1.0
  similarity = rng.choice([-0.5, 0.1, 0.2, 0.7], (queries, items))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(multi_instance, "CELLS", cells)
    found = measures(similarity, relevancy)
  expected = by_hand(similarity.tolist(), relevancy.tolist())
  assert [found[name] for name in ("mAP", "nDCG", "mAP_binary")] == pytest.approx(expected.tolist())


def test_measures_of_known_rankings():
  perfect = measures(np.array([[0.9, 0.5, 0.1]]), np.array([[1.0, 0.5, 0.0]]))
  assert perfect == {"mAP": 1.0, "nDCG": 1.0, "mAP_binary": 1.0}
  turned = measures(np.array([[0.5, 0.9, 0.1]]), np.array([[1.0, 0.5, 0.0]]))
  # The half relevant item before the right one is counted by half in the benchmark's precision.
  assert turned["mAP"] == 0.75 and turned["mAP_binary"] == 0.5
  assert turned["nDCG"] == pytest.approx((0.5 + 1 / np.log2(3)) / (1 + 0.5 / np.log2(3)))
  # Items beyond as many as are relevant gain nothing.
  assert measures(np.array([[0.1, 0.9]]), np.array([[1.0, 0.0]]))["nDCG"] == 0.0
  nothing = measures(np.array([[0.1, 0.9]]), np.array([[0.5, 0.0]]))
  assert np.isnan(nothing["mAP"]) and nothing["nDCG"] == 0.0


some = lambda count, most: st.frozensets(st.integers(0, count), max_size=most)
tag_sets = st.lists(st.tuples(some(3, 2), some(5, 3)), min_size=1, max_size=6)


@given(tag_sets, tag_sets)
def test_relevancy_is_the_mean_overlap_of_verbs_and_nouns(clips, captions):
  sides = [tuple(map(list, zip(*side, strict=True))) for side in (clips, captions)]
  share = lambda a, b: len(a & b) / len(a | b) if a | b else 0.0
  expected = [
    [(share(verbs, v) + share(nouns, n)) / 2 for v, n in captions] for verbs, nouns in clips
  ]
  np.testing.assert_allclose(relevancies(*sides), expected)


def measure(source, video, text, size=4, folder=None, left_out=()):
  """Collects all records; text by record, of those with a caption."""
  collector = MultiInstance(source, "caption")
  records = [i for i in range(len(source)) if i not in left_out]
  for start in range(0, len(records), size):
    part = (records[start : start + size] * size)[:size]
    outputs = {
      "video": video[part], "text": text[part][:, None],
      "mask": np.array([[bool(source[i].text["caption"])] for i in part]),
    }  # fmt: skip
    valid, where = np.arange(size) < len(records) - start, np.array(part, np.int32)
    collector.collect(outputs, {"valid": valid, "record": where, "view": 0 * where})
  return collector.finish(folder)


TAGS = [((0,), (1,)), ((0,), (1,)), ((1,), (1, 2)), ((1,), (2,)), ((2,), (5,)), ((0,), (1,))]
QUERIES = (0, 2, 3, 4)


def drawn(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(2, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_the_collector_gives_both_ways_and_their_mean(size, tmp_path):
  video, text = drawn()
  found = measure(clips(TAGS, QUERIES), video, text, size, tmp_path)
  unit = lambda rows: np.float64(rows) / np.linalg.norm(np.float64(rows), axis=1, keepdims=True)
  table = unit(video) @ unit(text[list(QUERIES)]).T
  share = lambda a, b: len({*a} & {*b}) / len({*a} | {*b})
  grades = np.array([
    [sum(share(*pair) for pair in zip(one, TAGS[q], strict=True)) / 2 for q in QUERIES]
    for one in TAGS
  ])  # fmt: skip
  ways = by_hand(table.tolist(), grades.tolist()), by_hand(table.T.tolist(), grades.T.tolist())
  for place, name in enumerate(("mAP", "nDCG", "mAP_binary")):
    assert found[f"video_to_text/{name}"] == pytest.approx(ways[0][place])
    assert found[f"text_to_video/{name}"] == pytest.approx(ways[1][place])
    assert found[f"mean/{name}"] == pytest.approx((ways[0][place] + ways[1][place]) / 2)
  assert found["clips"] == 6 and found["captions"] == 4 and "clips_missing" not in found
  assert json.loads((tmp_path / "multi_instance.json").read_text()) == found


def test_what_is_not_finite_is_last_and_what_is_missing_is_counted():
  source, (video, text) = clips(TAGS, QUERIES), drawn()
  same = np.stack([np.eye(6, dtype=np.float32)[:, :5], np.eye(6, dtype=np.float32)[:, :5]])
  best = measure(source, *same)
  same[0][2] = np.nan
  assert measure(source, *same)["mean/nDCG"] < best["mean/nDCG"]
  found = measure(source, video, text, left_out=(1, 4))
  assert found["clips"] == 4 and found["captions"] == 3 and found["clips_missing"] == 2


def test_of_what_is_alike_the_least_relevant_comes_first():
  video = np.ones((6, 5), np.float32)
  found = measure(clips(TAGS, QUERIES), video, video)
  worst = measures(np.zeros((1, 4)), np.array([[1.0, 0.25, 0.0, 0.0]]))
  assert worst["mAP_binary"] == 0.25 and found["mean/mAP_binary"] < 0.5


def test_official_clips_are_relevant_to_their_own_captions(real_data):
  """EPIC-Kitchens-100: the first clip of some words is their query, and is wholly relevant."""
  folder = real_data / "annotations" / "epic_kitchens_100"
  with gzip.open(folder / "EPIC_100_retrieval_train_sentence.csv.gz", "rt") as file:
    rows = list(csv.DictReader(file))[:400]
  tags = [((int(row["verb_class"]),), tuple(ast.literal_eval(row["noun_classes"]))) for row in rows]
  verbs, nouns = ([frozenset(tag[i]) for tag in tags] for i in (0, 1))
  grades = relevancies((verbs, nouns), (verbs, nouns))
  assert (np.diag(grades) == 1).all() and (grades == grades.T).all()
  take = [i for i, row in enumerate(rows) if row["narration"] in ("open door", "open drawer")]
  assert grades[take[0], take[1]] == 0.5  # the verb, not the noun
  best = measures(grades + 0.0, grades)
  assert best["nDCG"] == 1.0 and best["mAP"] == best["mAP_binary"] == 1.0
