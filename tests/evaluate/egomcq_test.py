"""EgoMCQ: accuracies under their own names, by hand and from the file."""

import csv
import json

import ml_collections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfe.data import sources
from vfe.data.ego4d import source as ego4d
from vfe.data.sources import ListedSource
from vfe.evaluate.egomcq import EgoMCQ, JudgedMCQ, accuracies, questions_of
from vfe.evaluate.multiple_choice import wilson

OPTIONS = 5


def item(answer, types, clips, words):
  row = lambda uid, start: {
    "video_uid": uid, "clip_start": start, "clip_end": start + 1.0, "clip_text": f"in {uid}"
  }  # fmt: skip
  choices = {str(i): row(*clip) for i, clip in enumerate(clips)}
  return {
    "answer": answer, "types": types, "query": {"clip_text": words}, "choices": choices
  }  # fmt: skip


@pytest.fixture
def opened(tmp_path):
  """A source of these questions, every video of which is there, by the reader itself."""
  ego4d._open.cache_clear()

  def of(items):
    uids = {row["video_uid"] for x in items for row in x["choices"].values()}
    for uid in uids:
      (tmp_path / f"{uid}.mp4").touch()
    (tmp_path / "egomcq.json").write_text(json.dumps({str(i): x for i, x in enumerate(items)}))
    data = ml_collections.ConfigDict(
      dict(source="egoclip", path=str(tmp_path), eval_path=None, variant=None)
    )
    return sources.open_source(data, "validation")

  return of


def questions(seed=0, count=12, videos=6):
  """Inter-video questions first, then intra-video ones; clips come several times."""
  rng = np.random.default_rng(seed)
  items = []
  for i in range(count):
    if i < count // 2:
      clips = [(f"v{v}", float(rng.integers(3))) for v in rng.permutation(videos)[:OPTIONS]]
    else:
      video = f"v{rng.integers(videos)}"
      clips = [(video, float(t)) for t in rng.permutation(9)[:OPTIONS]]
    items.append(item(int(rng.integers(OPTIONS)), 1 + (i >= count // 2), clips, f"words {i}"))
  return items


def measure(source, video, text, size=4, folder=None, left_out=()):
  """Collects all records; video [N, D], text by (record, caption)."""
  collector, most = EgoMCQ(source, "caption"), 3
  records = [i for i in range(len(source)) if i not in left_out]
  for start in range(0, len(records), size):
    part = records[start : start + size]
    valid = np.arange(size) < len(part)
    part = (part * size)[:size]
    words = np.full((size, most, video.shape[1]), 9.0, np.float32)
    mask = np.zeros((size, most), bool)
    for row, record in enumerate(part):
      for number in range(len(source[record].text["caption"])):
        words[row, number], mask[row, number] = text[record, number], True
    outputs = {"video": video[part], "text": words, "mask": mask}
    where = np.array(part, np.int32)
    collector.collect(outputs, {"valid": valid, "record": where, "view": 0 * where})
  return collector.finish(folder)


def embedded(source, seed=0, width=8):
  rng = np.random.default_rng(seed)
  video = rng.normal(size=(len(source), width)).astype(np.float32)
  text = {
    (record, number): (video[record] + 2 * rng.normal(size=width)).astype(np.float32)
    for record in range(len(source))
    for number in range(len(source[record].text["caption"]))
  }
  return video, text


def by_hand(items, source, video, text):
  """Accuracies from the file's own questions: clips found again by name, cosines in float64."""
  place = {source[i].name: i for i in range(len(source))}
  hits = {1: [], 2: []}
  for x in items:
    rows = [
      place[f"{row['video_uid']} [{row['clip_start']:g}, {row['clip_end']:g}) s"]
      for row in x["choices"].values()
    ]
    right = rows[x["answer"]]
    number = source[right].text["caption"].index(x["query"]["clip_text"])
    unit = lambda row: np.float64(row) / np.linalg.norm(np.float64(row))
    cosines = [unit(video[row]) @ unit(text[right, number]) for row in rows]
    hits[x["types"]].append(int(np.argmax(cosines)) == x["answer"])
  return np.mean(hits[1]), np.mean(hits[2])


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_those_by_hand_each_under_its_name(opened, seed):
  items = questions(seed)
  source = opened(items)
  video, text = embedded(source, seed)
  found = measure(source, video, text)
  assert (found["inter/accuracy"], found["intra/accuracy"]) == by_hand(items, source, video, text)
  assert found["inter/questions"] == found["intra/questions"] == 6
  assert found["chance"] == pytest.approx(0.2) and "questions_missing" not in found


def test_the_kinds_are_told_by_their_videos(opened):
  """Types 1 are inter-video. What knows the video and not the moment answers those alone."""
  source = opened(questions(count=40))
  kinds = {q.kind: set() for q in questions_of(source)}
  for q in questions_of(source):
    kinds[q.kind].add(len({source[clip].name.split()[0] for clip in q.clips}))
  assert kinds == {"inter": {5}, "intra": {1}}
  names = [source[i].name.split()[0] for i in range(len(source))]
  video = np.eye(6, dtype=np.float32)[[int(name[1]) for name in names]]
  text = {(i, number): video[i] for i in range(len(source)) for number in range(3)}
  found = measure(source, video, text)
  assert found["inter/accuracy"] == 1.0 and found["intra/accuracy"] == 0.0
  assert (found["inter/low"], found["inter/high"]) == wilson(20, 20)


def test_batches_order_and_repeats_change_nothing(opened, tmp_path):
  source = opened(questions())
  video, text = embedded(source)
  expected = measure(source, video, text, 4, tmp_path / "a")
  for size in (1, 7, 64):
    assert measure(source, video, text, size, tmp_path / "b") == expected
    assert (tmp_path / "a/egomcq.csv").read_bytes() == (tmp_path / "b/egomcq.csv").read_bytes()


def test_a_question_of_which_a_clip_could_not_be_read_is_missing(opened):
  source = opened(questions())
  video, text = embedded(source)
  lost = next(iter(questions_of(source))).clips[1]
  hurt = sum(lost in q.clips for q in questions_of(source))
  found = measure(source, video, text, left_out=(lost,))
  assert found["questions_missing"] == hurt
  assert found["inter/questions"] + found["intra/questions"] == 12 - hurt
  none = EgoMCQ(source).finish(None)
  assert np.isnan(none["inter/accuracy"]) and none["questions_missing"] == 12


def test_what_tells_nothing_apart_and_what_is_not_finite_is_wrong(opened):
  source = opened(questions())
  video, text = embedded(source)
  alike = np.repeat(video[:1], len(source), 0)
  found = measure(source, alike, dict.fromkeys(text, video[0]))
  assert found["inter/accuracy"] == found["intra/accuracy"] == 0.0
  found = measure(source, video, dict.fromkeys(text, video[0] * np.nan))
  assert found["inter/accuracy"] == found["intra/accuracy"] == 0.0


def test_the_file_tells_what_was_chosen(opened, tmp_path):
  items = questions()
  source = opened(items)
  video, text = embedded(source)
  found = measure(source, video, text, folder=tmp_path / "out")
  rows = list(csv.DictReader((tmp_path / "out/egomcq.csv").open()))
  assert sorted(row["id"] for row in rows) == sorted(str(i) for i in range(12))
  for row in rows:
    x = items[int(row["id"])]
    assert row["narration"] == x["query"]["clip_text"] and int(row["answer"]) == x["answer"]
    assert row["kind"] == ("inter", "intra")[x["types"] - 1]
    cosines = [float(value) for value in row["scores"].split("|")]
    assert len(cosines) == 5 and int(row["choice"]) == int(np.argmax(cosines))
  right = [row["choice"] == row["answer"] for row in rows if row["kind"] == "inter"]
  assert np.mean(right) == found["inter/accuracy"]


@pytest.mark.parametrize("views", [1, 2])
def test_scores_of_pairs_are_measured_as_cosines_are(opened, views, tmp_path):
  source = opened(questions())
  video, text = embedded(source)
  expected = measure(source, video, text, folder=tmp_path / "a")
  said = {
    q.id: text[q.clips[q.answer], q.caption] / np.linalg.norm(text[q.clips[q.answer], q.caption])
    for q in questions_of(source)
  }  # fmt: skip
  collector, most = JudgedMCQ(source), max(len(source[i].text["asked"]) for i in range(len(source)))
  for record in range(len(source)):
    unit = video[record] / np.linalg.norm(video[record])
    cosines = [float(unit @ said[row["question"]]) for row in source[record].text["choices"]]
    row = np.array([cosines + [9.0] * (most - len(cosines))])
    for view in range(views):
      for valid in (True, False):  # padding repeats a row
        batch = {"valid": [valid], "record": [record], "view": [view]}
        collector.collect({"scores": row + view - (views - 1) / 2}, batch)
  assert collector.finish(tmp_path / "b") == expected
  one, other = (
    [line.rpartition(",")[0] for line in (tmp_path / f / "egomcq.csv").read_text().splitlines()]
    for f in ("a", "b")
  )
  assert one == other
  assert JudgedMCQ(source).finish(None)["questions_missing"] == 12


@given(st.lists(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=3, max_size=3), min_size=1,
                max_size=8), st.data())  # fmt: skip
def test_any_scores_are_measured_alike(table, data):
  scores = np.array(table)
  answer = np.array([data.draw(st.integers(0, 2)) for _ in table])
  kinds = [data.draw(st.sampled_from(["inter", "intra"])) for _ in table]
  found = accuracies(scores, answer, kinds)
  for kind in ("inter", "intra"):
    hits = [
      all(row[a] > other for i, other in enumerate(row) if i != a)
      for row, a, k in zip(scores, answer, kinds, strict=True) if k == kind
    ]  # fmt: skip
    expected = np.mean(hits) if hits else np.nan
    assert found[f"{kind}/accuracy"] == pytest.approx(expected, nan_ok=True)


def test_a_source_without_questions_has_none():
  assert questions_of(ListedSource("plain", {}, [])) == []
