"""A row is a pure function of (seed, step, row): for any processes, workers and start."""

import dataclasses
import os
import pathlib
import pickle
import subprocess
import sys
import time

import av
import grain
import jax
import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data import pipeline, stored
from vfe.data.faults import Fault
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.sources import ListedSource
from vfe.data.spec import Augment
from vfe.data.streams import Stream
from vfe.data.text import Text, Tokenizer, train_vocabulary
from vfe.errors import UserError

FRAMES, SIZE = 8, 16
COUNTS = (24, 24, 24, 24, 24, 5, 24, 19, 24, 24)  # frames of each video; one is short


def write_video(path, frames, level):
  """Frame i is grey `level` with a bar at column 2 i, so that records and frames can be told."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=10, options={"crf": "10", "g": "8"})
    stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
    stream.codec_context.thread_count = 1
    for i in range(frames):
      picture = np.full((32, 48, 3), level, np.uint8)
      picture[:, 2 * i : 2 * i + 2] = 255
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  records = []
  for i, frames in enumerate(COUNTS):
    write_video(folder / f"{i}.mp4", frames, level=20 * i)
    path = str(folder / f"{i}.mp4")
    records.append(VideoRecord(path, path=path, labels={"label": i % 3, "noun": i}))
  heads = {"label": ("a", "b", "c"), "noun": tuple("0123456789")}
  return ListedSource("videos", heads, records)


@pytest.fixture
def faulty(source, tmp_path):
  """The same with records 2 and 5 broken."""
  records = list(source.records)
  records[2] = VideoRecord("gone.mp4", path=str(tmp_path / "gone.mp4"))
  records[5] = VideoRecord("text.mp4", data=b"<html>404</html>")
  return ListedSource("faulty", source.heads, records)


SPEC = pipeline.ClipSpec(frames=FRAMES, size=SIZE)


def train(source, spec=SPEC, seed=3, batch=4, rows=None):
  rows = np.arange(batch) if rows is None else np.asarray(rows)
  return pipeline.train_dataset(source, spec, seed=seed, batch=batch, rows=rows)


def assert_equal(left, right):
  assert left.keys() == right.keys()
  jax.tree.map(np.testing.assert_array_equal, left, right)


def merged(parts):
  """The rows of several processes as one batch, in the order of their global numbers."""
  whole = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
  order = np.argsort(whole["row"])
  return jax.tree.map(lambda array: array[order], whole)


@pytest.fixture(scope="module")
def told(source, tmp_path_factory):
  """The source with captions, record i having i % 4 + 1 of them, and its vocabulary."""
  texts = [[f"{word} {i}" for word in "abcd"[: i % 4 + 1]] for i in range(len(source))]
  records = [
    dataclasses.replace(record, text={"captions": captions})
    for record, captions in zip(source.records, texts, strict=True)
  ]
  path = tmp_path_factory.mktemp("words") / "tokenizer.json"
  path.write_text(train_vocabulary((text for captions in texts for text in captions), 100))
  return ListedSource("told", source.heads, records), str(path)


def worded(vocabulary, **changes):
  text = Text(vocabulary, length=5, key="captions", captions=3)
  return dataclasses.replace(SPEC, text=text, **changes)


def test_a_batch_holds_what_it_says(source):
  batch = train(source)[0]
  assert batch["video"].shape == (4, FRAMES, SIZE, SIZE, 3) and batch["video"].dtype == np.uint8
  assert batch["valid"].all() and (batch["fault"] == 0).all() and (batch["faulty"] == -1).all()
  np.testing.assert_array_equal(batch["row"], np.arange(4))
  np.testing.assert_array_equal(batch["label"]["noun"], batch["record"])
  np.testing.assert_array_equal(batch["label"]["label"], batch["record"] % 3)
  for record, video in zip(batch["record"], batch["video"], strict=True):
    assert abs(float(np.median(video)) - 20 * record) < 6


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_out_the_same_rows(source, processes):
  spec = dataclasses.replace(SPEC, views=2)
  for step in (0, 5):
    whole = train(source, spec, batch=8)[step]
    parts = [
      train(source, spec, batch=8, rows=np.arange(8).reshape(processes, -1)[p])[step]
      for p in range(processes)
    ]
    assert_equal(merged(parts), whole)


def test_workers_do_not_change_the_order(told):
  source, vocabulary = told
  dataset = train(source, worded(vocabulary))
  expected = [dataset[step] for step in range(2, 6)]
  for workers in (0, 1, 2):
    with pipeline.iterate(dataset, start=2, workers=workers, buffer=1) as batches:
      for batch in expected:
        assert_equal(next(batches), batch)


MAIN = """
import sys
import numpy as np
from vfe.data import pipeline, sources
from vfe.data.record import VideoRecord
if __name__ == "__main__":
  source = sources.ListedSource("one", {}, [VideoRecord(sys.argv[1], path=sys.argv[1])])
  spec = pipeline.ClipSpec(frames=8, size=16)
  dataset = pipeline.train_dataset(source, spec, seed=0, batch=1, rows=np.arange(1))
  batches = pipeline.iterate(dataset, workers=2)
  next(batches)
  import multiprocessing
  print(*(child.pid for child in multiprocessing.active_children()), flush=True)
  sys.stdin.read()
"""


@pytest.mark.slow
def test_workers_end_with_a_main_process_that_is_killed(source, tmp_path):
  (tmp_path / "main.py").write_text(MAIN)
  command = [sys.executable, str(tmp_path / "main.py"), source[0].path]
  root = pathlib.Path(__file__).parents[2]
  main = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    env={**os.environ, "PYTHONPATH": str(root)},
  )
  workers = [int(pid) for pid in main.stdout.readline().split()]
  assert len(workers) == 2 and all(running(pid) for pid in workers)
  main.kill()
  main.wait()
  for _ in range(100):
    if not any(running(pid) for pid in workers):
      return
    time.sleep(0.1)
  pytest.fail("workers outlive the main process")


def running(pid):
  """Whether the process is there and not only waiting to be reaped."""
  status = pathlib.Path(f"/proc/{pid}/stat")
  try:
    return status.read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


def test_an_error_in_a_worker_is_the_same_error_here(faulty):
  broken = ListedSource("broken", faulty.heads, [faulty.records[2], faulty.records[5]])
  messages = []
  for workers in (0, 1):
    with pipeline.iterate(train(broken), workers=workers) as batches:
      with pytest.raises(UserError, match=r"404|gone\.mp4: the file is missing") as caught:
        next(batches)
      messages.append(str(caught.value))
  assert messages[0] == messages[1] and "\n" not in messages[0]


@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 2**32 - 1),
  step=st.integers(0, 2**40),
  views=st.integers(1, 3),
  data=st.data(),
)
def test_a_row_depends_on_seed_step_and_row_only(source, seed, step, views, data):
  spec, batch = dataclasses.replace(SPEC, views=views), 6
  rows = sorted(data.draw(st.sets(st.integers(0, batch - 1), min_size=1)))
  some = pickle.loads(pickle.dumps(train(source, spec, seed, batch, rows)))[step:][0]
  whole = train(source, spec, seed, batch)[step]
  assert_equal(some, jax.tree.map(lambda array: array[rows], whole))


def test_an_epoch_serves_every_record_once_and_the_next_in_another_order(source):
  dataset = train(source, batch=5)
  epochs = [
    np.concatenate([dataset[step]["record"] for step in steps]) for steps in ((0, 1), (2, 3))
  ]
  assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
  assert list(epochs[0]) != list(epochs[1])
  assert list(epochs[0]) != list(np.concatenate([train(source, seed=4, batch=10)[0]["record"]]))


def test_the_clips_of_a_record_differ_between_epochs(source):
  one = ListedSource("one", source.heads, source.records[:1])
  starts = {int(train(one, batch=1)[step]["start"][0]) for step in range(12)}
  assert len(starts) > 3


def test_views_are_different_crops_of_the_same_frames(source):
  batch = train(source, dataclasses.replace(SPEC, views=2))[0]
  np.testing.assert_array_equal(batch["view"], [0, 1, 0, 1])
  for name in ("record", "start"):
    assert batch[name][0] == batch[name][1] and batch[name][2] == batch[name][3]
  assert (batch["video"][0] != batch["video"][1]).any()


def test_the_views_of_a_record_are_decoded_once(source, monkeypatch):
  calls = []
  read = pipeline.decode.read_views
  monkeypatch.setattr(
    pipeline.decode, "read_views", lambda *args, **kw: calls.append(args[0]) or read(*args, **kw)
  )
  train(source, dataclasses.replace(SPEC, views=2), batch=6, rows=[0, 1, 3])[0]
  assert len(calls) == 2


def test_a_batch_that_splits_views_is_refused(source):
  with pytest.raises(UserError, match=r"batch=5 is not a multiple of data\.views=2.*batch of 6"):
    train(source, dataclasses.replace(SPEC, views=2), batch=5)


def test_an_unreadable_video_is_named_and_replaced_by_a_rule(faulty):
  dataset = train(faulty, batch=10)
  batch = dataset[0]
  assert batch["valid"].all()
  assert dict(zip(batch["faulty"].tolist(), batch["fault"].tolist(), strict=True)) == {
    -1: Fault.NONE, 2: Fault.MISSING, 5: Fault.UNOPENABLE
  }
  replaced = batch["record"][batch["faulty"] >= 0]
  assert len(replaced) == 2 and not {2, 5} & set(replaced.tolist())
  assert_equal(train(faulty, batch=10)[0], batch)
  others = {tuple(dataset[step]["record"][dataset[step]["faulty"] == 2]) for step in range(6)}
  assert len(others) > 1


def test_a_short_video_repeats_its_last_frame(source):
  short = ListedSource("short", source.heads, source.records[5:6])
  center = dataclasses.replace(SPEC, augment=Augment(kind="center"))
  batch = train(short, center, batch=1)[0]
  assert batch["repeated"][0] == FRAMES - 5 and batch["fault"][0] == 0
  video = batch["video"][0]
  assert (video[5:] == video[4]).all() and (video[4] != video[3]).any()


def evaluate(source, spec, batch, rows):
  dataset = pipeline.eval_dataset(source, spec, batch=batch, rows=np.asarray(rows))
  with pipeline.iterate(dataset) as batches:
    return list(batches)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_serves_all_views_in_order_and_pads(source, processes):
  spec = dataclasses.replace(SPEC, eval_clips=2, eval_crops=3)
  rows = np.arange(8).reshape(processes, -1)
  by_process = [evaluate(source, spec, 8, rows[p]) for p in range(processes)]
  assert {len(batches) for batches in by_process} == {8}  # 60 rows in steps of 8
  steps = [merged(parts) for parts in zip(*by_process, strict=True)]
  whole = jax.tree.map(lambda *arrays: np.concatenate(arrays), *steps)
  assert whole["valid"].tolist() == [True] * 60 + [False] * 4
  np.testing.assert_array_equal(whole["record"][:60], np.repeat(np.arange(10), 6))
  np.testing.assert_array_equal(whole["view"][:60], np.tile(np.arange(6), 10))
  np.testing.assert_array_equal(whole["start"][:6], [0, 0, 0, 16, 16, 16])
  assert (whole["record"][60:] == -1).all() and not whole["video"][60:].any()
  assert (whole["label"]["noun"][60:] == -1).all()


def test_evaluation_does_not_replace(faulty):
  batches = evaluate(faulty, SPEC, 10, range(10))
  assert np.flatnonzero(~batches[0]["valid"]).tolist() == [2, 5]
  assert batches[0]["faulty"][[2, 5]].tolist() == [2, 5]
  assert batches[0]["record"].tolist() == list(range(10))


def blocks_of(source, batch=4):
  dataset = pipeline.block_dataset(source, SPEC, batch=batch, rows=np.arange(batch))
  steps = [dataset[i] for i in range(len(dataset))]
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *steps)


def test_blocks_cover_every_frame_in_record_order(source):
  blocks = blocks_of(source)
  real = blocks["valid"]
  expected = [(i, start) for i, count in enumerate(COUNTS) for start in range(0, count, FRAMES)]
  assert list(zip(blocks["record"][real], blocks["start"][real], strict=True)) == expected
  assert blocks["repeated"][real].tolist() == [
    max(0, start + FRAMES - COUNTS[record]) for record, start in expected
  ]


def test_an_unreadable_video_has_one_block_that_is_not_valid(faulty):
  blocks = blocks_of(faulty)
  assert (blocks["record"] == 2).sum() == 1
  assert not blocks["valid"][blocks["record"] == 2].any()
  assert blocks["fault"][blocks["record"] == 2] == Fault.MISSING


def test_stored_targets_are_those_of_the_clip(source, tmp_path):
  """The 'codes' of a window are its pixels' means, so a clip can be checked against them."""
  window, center = 4, dataclasses.replace(SPEC, augment=Augment(kind="center"))

  def codes(video):  # [T, S, S, 3] -> uint8[N = windows x 1, 3]
    return video.reshape(-1, window * SIZE * SIZE, 3).mean(1).astype(np.uint8)

  blocks = blocks_of(source)
  rows = (
    (int(blocks["record"][i]), codes(video), codes(video)[:, 0] / 7, bool(blocks["valid"][i]))
    for i, video in enumerate(blocks["video"]) if blocks["record"][i] >= 0
  )
  stored.write(tmp_path / "targets", stored.by_record(rows, tokens=1), {"window": window})
  spec = dataclasses.replace(
    center, sampling=Sampling(align=window), stored=str(tmp_path / "targets")
  )
  starts = set()
  for step in range(4):
    batch = train(source, spec, batch=5)[step]
    starts |= set(batch["start"].tolist())
    for i, video in enumerate(batch["video"]):
      np.testing.assert_array_equal(batch["codes"][i], codes(video))
      np.testing.assert_allclose(batch["importance"][i], codes(video)[:, 0] / 7, rtol=1e-6)
  assert {4, 12} & starts
  few = ListedSource("few", source.heads, source.records[:3])
  with pytest.raises(UserError, match="targets of 10 videos, but few has 3"):
    train(few, spec)


# Text.


def test_a_training_row_carries_one_caption_of_its_record(told):
  source, vocabulary = told
  spec, words = worded(vocabulary, views=2), Tokenizer(vocabulary, 5)
  seen, differ = set(), False
  for step in range(16):
    batch = train(source, spec, batch=6)[step]
    ids, mask = batch["text"]["ids"], batch["text"]["mask"]
    assert ids.shape == mask.shape == (6, 5) and ids.dtype == np.int32 and mask.dtype == bool
    for record, row, there in zip(batch["record"].tolist(), ids, mask, strict=True):
      every_ids, every_mask = words(source[record].text["captions"])
      number = [row.tolist() for row in every_ids].index(row.tolist())
      np.testing.assert_array_equal(there, every_mask[number])
      seen.add((record % 4, number))
    differ |= bool((ids[::2] != ids[1::2]).any())
  assert differ and seen == {(r, n) for r in range(4) for n in range(r + 1)}


def test_text_changes_nothing_else_of_a_row(told):
  source, vocabulary = told
  with_text, without = train(source, worded(vocabulary))[3], train(source)[3]
  text = with_text.pop("text")
  assert_equal(with_text, without)
  parts = [train(source, worded(vocabulary), rows=[row])[3]["text"] for row in range(4)]
  assert_equal(text, jax.tree.map(lambda *rows: np.concatenate(rows), *parts))


def test_evaluation_rows_carry_the_first_captions(told, faulty):
  source, vocabulary = told
  [batch] = evaluate(source, worded(vocabulary, eval_crops=2), 20, range(20))
  ids, _ = Tokenizer(vocabulary, 5)([f"{word} {i}" for i in range(10) for word in "abc"])
  expected = ids.reshape(10, 3, 5) * (np.arange(3) < np.arange(10)[:, None] % 4 + 1)[..., None]
  np.testing.assert_array_equal(batch["text"]["ids"], np.repeat(expected, 2, axis=0))
  np.testing.assert_array_equal(batch["text"]["mask"], batch["text"]["ids"] != 0)
  silent = evaluate(faulty, worded(vocabulary), 10, range(10))[0]["text"]
  assert silent["ids"].shape == (10, 3, 5) and not silent["mask"].any()


def test_a_record_without_a_caption_cannot_be_trained_on(source, told):
  with pytest.raises(UserError, match=r"\.mp4: no 'captions' to train on"):
    train(source, worded(told[1]))[0]


def test_blocks_carry_no_text(told):
  source, vocabulary = told
  rows = np.arange(4)
  assert "text" not in pipeline.block_dataset(source, worded(vocabulary), batch=4, rows=rows)[0]


def test_a_stream_says_the_shapes_of_its_text(told):
  source, vocabulary = told
  stream = Stream(source, worded(vocabulary), batch=4)
  batch, shapes = next(stream.train(0, np.arange(4), 0)), stream.shapes()
  for name in ("ids", "mask"):
    assert batch["text"][name].shape == shapes["text"][name].shape
    assert batch["text"][name].dtype == shapes["text"][name].dtype


def test_local_rows_are_those_of_this_process():
  mesh = jax.make_mesh((4, 2), ("data", "tensor"))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  np.testing.assert_array_equal(pipeline.local_rows(sharding, 8), np.arange(8))

  class SecondProcess:
    def addressable_devices_indices_map(self, shape):
      return {2: (slice(6, 8, None),), 0: (slice(2, 4, None),), 1: (slice(2, 4, None),)}

  np.testing.assert_array_equal(pipeline.local_rows(SecondProcess(), 8), [2, 3, 6, 7])


def test_the_spec_is_read_from_the_config():
  data = ml_collections.ConfigDict(
    dict(
      frames=16, size=32, views=2, eval_clips=2, eval_crops=3, max_pixels=10_000,
      sampling=dict(kind="strided", stride=2, align=1),
      augment=dict(kind="resized_crop", scale=(0.3, 1), ratio=(0.75, 1.3333), flip=False),
    )
  )
  spec = pipeline.clip_spec(data)
  assert spec.sampling == Sampling("strided", 2, 1)
  assert spec.views == 2 and spec.max_pixels == 10_000
  assert spec.augment == Augment("resized_crop", (0.3, 1.0), (0.75, 1.3333), False)
  data.sampling.update(kind="first", stride=1)
  with pytest.raises(UserError, match=r"eval_clips=2: data.sampling.kind='first' has one clip"):
    pipeline.clip_spec(data)
  data.sampling.kind = "strided"
  data.augment.kind = "centre"
  with pytest.raises(UserError, match=r"data\.augment\.kind='centre' is unknown"):
    pipeline.clip_spec(data)


def test_small_shared_memory_is_not_used(source, monkeypatch, caplog):
  monkeypatch.setattr(pipeline, "SHARED_MEMORY", 1 << 60)
  batches = pipeline._without_small_shared_memory(train(source).to_iter_dataset())
  assert isinstance(batches, grain.IterDataset) and "--shm-size" in caplog.text
