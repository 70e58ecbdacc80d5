"""Neighbours: of the same scene, not overlapping, and the same for any processes, and start."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data import pipeline
from vfe.data.narration import Narration
from vfe.data.record import VideoRecord
from vfe.data.scenes import Scenes, numbered, scenes_of
from vfe.data.sources import ListedSource
from vfe.data.streams import Stream
from vfe.data.text import train_vocabulary
from vfe.errors import UserError

spans = st.lists(
  st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=12
)


def scenes(clips):
  """Of (scene, start, length) of every clip."""
  scene, start, length = np.array(clips).T
  return Scenes(scene.astype(np.int64), start * 1.0, (start + length) * 1.0)


@settings(max_examples=50, deadline=None)
@given(spans, st.integers(0, 99))
def test_a_neighbour_is_of_the_scene_and_apart_where_one_is(clips, seed):
  found, rng = scenes(clips), np.random.default_rng(seed)
  for i, (scene, start, length) in enumerate(clips):
    same = [j for j, other in enumerate(clips) if other[0] == scene]
    assert found.members(i).tolist() == same
    others = [j for j in same if j != i]
    apart = [
      j for j in others if clips[j][1] >= start + length or clips[j][1] + clips[j][2] <= start
    ]
    assert found.neighbour(i, rng) in (apart or others or [i])


def test_all_that_are_apart_are_as_likely():
  found, rng = scenes([(0, 0, 2), (0, 1, 2), (0, 2, 1), (0, 5, 1), (0, 9, 1), (1, 5, 1)]), None
  rng = np.random.default_rng(0)
  drawn = collections.Counter(found.neighbour(0, rng) for _ in range(3000))
  assert set(drawn) == {2, 3, 4} and min(drawn.values()) > 900


def test_scenes_are_stretches_of_a_video():
  video, time = np.array([0, 0, 0, 1, 1]), np.array([0.0, 59.9, 60.0, 1.0, 200.0])
  assert len(set(numbered(video, time).tolist())) == 4
  assert len(set(numbered(video, time, 30.0).tolist())) == 5
  first = numbered(video, time)
  assert first[0] == first[1]
  assert numbered(video[:0], time[:0]).shape == (0,)


class Narrated:
  """Thirty narrations in scenes of five, without videos."""

  name, heads = "narrated", {}

  def __init__(self):
    index = np.arange(30)
    self.scenes = Scenes(index // 5, index * 1.0, index + 1.0)

  def __len__(self):
    return 30

  def __getitem__(self, index):
    text = {"caption": f"c lifts cup {index}", "nouns": (index % 7,), "verbs": (index % 3,)}
    return VideoRecord(f"clip {index}", path="x", text=text)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
  path = tmp_path_factory.mktemp("words") / "tokenizer.json"
  path.write_text(train_vocabulary((f"c lifts cup {i}" for i in range(30)), 80))
  text = Narration(str(path), length=8, nouns=7, verbs=3)
  return dataclasses.replace(pipeline.ClipSpec.of_text(text), neighbours=True)


def train(spec, batch=8, rows=None, seed=3):
  rows = np.arange(batch) if rows is None else np.asarray(rows)
  return pipeline.train_dataset(Narrated(), spec, seed=seed, batch=batch, rows=rows)


def test_every_second_row_is_a_neighbour_of_the_one_before_it(spec):
  dataset, anchors = train(spec), []
  for step in range(15):
    batch = dataset[step]
    first, second = batch["record"][::2], batch["record"][1::2]
    assert ((first // 5 == second // 5) & (first != second)).all()
    anchors += first.tolist()
    np.testing.assert_array_equal(batch["text"]["nouns"].argmax(1), batch["record"] % 7)
    np.testing.assert_array_equal(batch["text"]["verbs"].argmax(1), batch["record"] % 3)
  assert sorted(anchors[:30]) == sorted(anchors[30:]) == list(range(30))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), step=st.integers(0, 2**40), cut=st.integers(1, 7))
def test_a_row_is_a_function_of_seed_step_and_row(spec, seed, step, cut):
  whole = train(spec, seed=seed)[step]["record"]
  cuts = range(cut), range(cut, 8)
  parts = [train(spec, seed=seed, rows=rows)[step]["record"] for rows in cuts]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  np.testing.assert_array_equal(train(spec, seed=seed)[step:][0]["record"], whole)
  half = [train(spec, batch=4, seed=seed)[2 * step + i]["record"] for i in (0, 1)]
  np.testing.assert_array_equal(np.concatenate(half), whole)


def test_anchors_are_those_without_neighbours(spec):
  plain = dataclasses.replace(spec, neighbours=False)
  np.testing.assert_array_equal(train(spec)[2]["record"][::2], train(plain, batch=4)[2]["record"])


def test_views_come_before_neighbours(spec):
  batch = train(dataclasses.replace(spec, views=2))[0]
  record = batch["record"].reshape(2, 2, 2)  # pair, anchor or neighbour, view
  assert (record[..., 0] == record[..., 1]).all()
  assert ((record[:, 0] // 5 == record[:, 1] // 5) & (record[:, 0] != record[:, 1])).all()


def test_an_epoch_has_two_rows_a_record(spec):
  assert Stream(Narrated(), spec, 8).steps_an_epoch == 8
  assert Stream(Narrated(), dataclasses.replace(spec, neighbours=False), 8).steps_an_epoch == 4


def test_what_cannot_be_is_told(spec):
  with pytest.raises(UserError, match=r"batch=7 is not a multiple of 2 \* data\.views=1, with neigh"
                     r".* use a batch of 8"):  # fmt: skip
    train(spec, batch=7)

  with pytest.raises(UserError, match=r"plain: knows no scenes to draw neighbours from"):
    scenes_of(ListedSource("plain", {}, []))
