import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data.record import VideoRecord
from vfe.evaluate import retrieval
from vfe.evaluate.retrieval import Retrieval, ranks


class Videos:
  """A source of so many videos, each with so many captions."""

  name, heads = "videos", {}

  def __init__(self, counts):
    self.counts = counts

  def __len__(self):
    return len(self.counts)

  def __getitem__(self, index):
    said = [f"caption {i} of {index}" for i in range(self.counts[index])]
    return VideoRecord(name=f"video {index}, take 1", path="x", text={"caption": said})


def rows_of(video, text, views=1):
  """(record, view, video, captions' embeddings) of every view."""
  return [
    (record, view, video[record], text[record]) for record in range(len(video))
    for view in range(views)
  ]  # fmt: skip


def measure(source, rows, size=4, folder=None, **changes):
  """Collects the rows in batches of `size`, the last one padded with rows that are not valid."""
  collector, most = Retrieval(source, **changes), max(map(len, (row[3] for row in rows)), default=1)
  for start in range(0, len(rows), size):
    part = rows[start : start + size]
    valid = np.arange(size) < len(part)
    part = part + [rows[0]] * (size - len(part))
    text = np.full((size, max(1, most), len(part[0][2])), 9.0, np.float32)
    mask = np.zeros(text.shape[:2], bool)
    for i, row in enumerate(part):
      text[i, : len(row[3])], mask[i, : len(row[3])] = row[3], True
    outputs = {"video": np.stack([row[2] for row in part]), "text": text, "mask": mask}
    whole = lambda column, part=part: np.array([row[column] for row in part], np.int32)
    collector.collect(outputs, {"valid": valid, "record": whole(0), "view": whole(1)})
  return collector.finish(folder)


def unit(rows):
  rows = np.asarray(rows, np.float64)
  return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


def sorted_out(video, text):
  """The ranks by sorting whole lists in float64, the right ones behind their equals."""
  of_text, of_video = [], []
  captions = [(owner, row) for owner, rows in enumerate(text) for row in rows]
  like = lambda a, b: round(float(unit(a) @ unit(b)), 9)
  for owner, row in captions:
    order = sorted((-like(row, other), i == owner, i) for i, other in enumerate(video))
    of_text.append(1 + [i for *_, i in order].index(owner))
  for i, row in enumerate(video):
    order = sorted((-like(row, other), owner == i) for owner, other in captions)
    if len(text[i]):
      of_video.append(1 + [own for _, own in order].index(True))
  return np.array(of_text), np.array(of_video)


def means(way, found):
  recalls = {f"{way}/R@{k}": np.mean(found <= k) for k in (1, 5, 10)}
  return recalls | {f"{way}/median_rank": np.median(found), f"{way}/mean_rank": np.mean(found)}


whole_rows = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)


@settings(max_examples=60, deadline=None)
@given(
  clips=st.lists(
    st.tuples(whole_rows, st.lists(whole_rows, min_size=0, max_size=4)), min_size=1, max_size=14
  ).filter(lambda clips: any(texts for _, texts in clips)),
  size=st.integers(1, 5),
  cells=st.sampled_from([1, 20, 1 << 20]),
)
def test_measures_are_those_of_whole_sorted_lists_with_ties_and_several_captions(
  clips, size, cells
):
  video = [np.float32(row) for row, _ in clips]
  text = [np.float32(texts).reshape(-1, 3) for _, texts in clips]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(retrieval, "CELLS", cells)
    found = measure(Videos([len(rows) for rows in text]), rows_of(video, text), size)
  of_text, of_video = sorted_out(video, text)
  expected = means("text_to_video", of_text) | means("video_to_text", of_video)
  expected |= {"clips": len(clips), "captions": len(of_text)}
  assert found == pytest.approx(expected, abs=1e-12)


def test_an_example_counted_by_hand():
  """Four videos along the axes, so the similarities are the captions' own numbers."""
  video = np.eye(4, dtype=np.float32)
  similar = [
    [[0.8, 0.6, 0.0, 0.0]],  # first
    [[0.8, 0.0, 0.6, 0.0], [0.0, 1.0, 0.0, 0.0]],  # not at all: last of four; and first
    [[0.0, 0.0, 0.7071, 0.7071]],  # undecided: second
    [[0.6, 0.5, 0.48, 0.4]],  # last
  ]
  text = [np.float32(rows) for rows in similar]
  found = measure(Videos([1, 2, 1, 1]), rows_of(video, text))
  assert found["text_to_video/R@1"] == 2 / 5 and found["text_to_video/R@5"] == 1
  assert found["text_to_video/median_rank"] == 2
  assert found["text_to_video/mean_rank"] == pytest.approx((1 + 4 + 1 + 2 + 4) / 5)
  # Video 0: its caption is as close as another's, so second; 1: first; 2: first; 3: second.
  assert found["video_to_text/R@1"] == 0.5 and found["video_to_text/mean_rank"] == 1.5


@pytest.mark.parametrize("width", [7, 64, 768])
def test_embeddings_that_are_all_alike_score_nothing(width):
  """Also where the rounding of a product depends on its place in the matrix."""
  one = np.random.default_rng(width).normal(size=width).astype(np.float32)
  rows = rows_of([one] * 37, [one[None]] * 37)
  found = measure(Videos([1] * 37), rows)
  assert found["text_to_video/mean_rank"] == found["video_to_text/mean_rank"] == 37
  assert found["text_to_video/R@10"] == 0


def drawn(seed=0, clips=9, views=3, width=16):
  rng = np.random.default_rng(seed)
  counts = [int(n) for n in rng.integers(1, 4, clips)]
  text = [rng.normal(size=(n, width)).astype(np.float32) for n in counts]
  rows = [
    (record, view, (text[record].mean(0) + rng.normal(size=width)).astype(np.float32), text[record])
    for record in range(clips)
    for view in range(views)
  ]
  return Videos(counts), rows


@pytest.mark.parametrize("size", [1, 4, 7, 32])
def test_padding_order_and_repeats_change_nothing(size, tmp_path):
  source, rows = drawn()
  expected = measure(source, rows, 5, tmp_path / "a")
  shuffled = [rows[i] for i in np.random.default_rng(size).permutation(len(rows))]
  assert measure(source, shuffled + shuffled[:3], size, tmp_path / "b") == expected
  one, other = ((tmp_path / f / "retrieval.csv").read_bytes() for f in ("a", "b"))
  assert one == other


def test_views_are_averaged_as_directions():
  source, rows = drawn()
  mean = [
    np.sum([unit(row[2]) for row in rows if row[0] == record], axis=0) for record in range(9)
  ]
  text = [rows[3 * record][3] for record in range(9)]
  found = measure(source, [(r, v, 5.0**v * video, text) for r, v, video, text in rows])
  of_text, of_video = sorted_out(mean, text)
  expected = means("text_to_video", of_text) | means("video_to_text", of_video)
  assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_what_is_not_finite_is_last_and_comes_before_nothing():
  source, rows = drawn(views=1)
  clean = measure(source, rows)
  lost = [(r, v, video * np.nan if r == 2 else video, text) for r, v, video, text in rows]
  found = measure(source, lost)
  without = [row for row in rows if row[0] != 2]
  of_text, of_video = sorted_out([row[2] for row in without], [row[3] for row in without])
  others = sum(source.counts) - source.counts[2]
  # Without video 2 its captions still stand among the texts.
  mean = (of_text.sum() + 9 * source.counts[2]) / sum(source.counts)
  assert found["text_to_video/mean_rank"] == pytest.approx(mean)
  assert found["video_to_text/mean_rank"] >= (of_video.sum() + 1 + others) / 9
  assert found["clips"] == clean["clips"] == 9
  texts = [(r, v, video, text * (np.nan if r == 2 else 1)) for r, v, video, text in rows]
  found = measure(source, texts)
  assert found["video_to_text/mean_rank"] == pytest.approx((of_video.sum() + 1 + others) / 9)


def test_a_video_that_was_not_measured_is_missing_and_one_without_captions_is_no_query():
  video, text = np.eye(3, dtype=np.float32), [np.eye(3, dtype=np.float32)[:1]] * 2 + [[]]
  text = [np.float32(rows).reshape(-1, 3) for rows in text]
  found = measure(Videos([1, 1, 0, 1]), rows_of(video, text))
  assert found["clips"] == 3 and found["clips_missing"] == 1 and found["captions"] == 2
  assert found["video_to_text/mean_rank"] == (2 + 2) / 2
  assert found["text_to_video/mean_rank"] == (1 + 3) / 2


def test_nothing_measured_is_nan_not_an_error(tmp_path):
  found = Retrieval(Videos([1])).finish(tmp_path)
  assert np.isnan(found["text_to_video/R@1"]) and np.isnan(found["video_to_text/median_rank"])
  assert found["clips"] == found["captions"] == 0 and found["clips_missing"] == 1


def test_the_files_tell_what_was_found_and_keep_the_videos_embeddings(tmp_path):
  source, rows = drawn()
  found = measure(source, rows, folder=tmp_path, key="caption")
  with (tmp_path / "retrieval.csv").open(newline="") as file:
    lines = list(csv.DictReader(file))
  assert len(lines) == sum(source.counts) == found["captions"]
  assert np.mean([int(line["rank"]) for line in lines]) == found["text_to_video/mean_rank"]
  for line in lines:
    top = line["top5"].split("|")
    assert len(set(top)) == 5 and (line["name"] in top) == (int(line["rank"]) <= 5)
    record = int(line["name"].split()[1].rstrip(","))
    assert line["words"] == f"caption {line['caption']} of {record}"
  with np.load(tmp_path / "embeddings.npz") as kept:
    assert kept["names"].tolist() == [f"video {i}, take 1" for i in range(9)]
    np.testing.assert_allclose(np.linalg.norm(kept["video"], axis=1), 1, rtol=1e-6)
    best = np.argmax(kept["video"] @ unit(rows[0][3][0]).astype("f4"))
    assert kept["names"][best] == lines[0]["top5"].split("|")[0]


def test_ranks_of_many_are_those_of_the_whole_matrix():
  rng = np.random.default_rng(0)
  video = unit(rng.normal(size=(300, 32))).astype(np.float32)
  owner = rng.integers(0, 300, 900)
  text = unit(video[owner] + 0.3 * rng.normal(size=(900, 32))).astype(np.float32)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(retrieval, "CELLS", 10_000)
    found = ranks(video, text, owner)
  table = text @ video.T
  own = table[np.arange(900), owner]
  np.testing.assert_array_equal(found.text, (table >= own[:, None] - 1e-6).sum(1))
  assert ((found.nearest[:, 0] == owner) == (found.text == 1)).all()
  assert (found.video > 0).sum() == len(set(owner.tolist()))
