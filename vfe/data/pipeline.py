"""Batches of clips: Grain map datasets in which a row is a pure function of (seed, step, row).

    slots     what is to be read, one after the other: in training the records, shuffled anew each
              epoch, each with random words of its own
    steps     this process's rows of every step, grouped by the slot that they are views of
    batches   every slot decoded once, replaced where a video is unreadable, stacked

Each link is random access, so neither processes nor workers change what a row holds, and resuming
at step s is `dataset[s:]`. Global row g = step * batch + row is view g mod R of slot g div R; with
neighbours, slot 2 k + 1 is of the scene of slot 2 k.
Frames leave as uint8; the accelerator normalises them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from vfe.data import decode
from vfe.data.clips import BlockReader, EvalReader, Reader, TrainReader
from vfe.data.faults import FaultError
from vfe.data.record import Source
from vfe.data.rows import Batch, Stack
from vfe.data.scenes import Scenes, scenes_of
from vfe.data.spec import ClipSpec, clip_spec
from vfe.errors import UserError

__all__ = [
  "Batches", "ClipSpec", "block_dataset", "clip_spec", "eval_dataset", "iterate", "local_rows",
  "slots", "train_dataset",
]

SHARED_MEMORY = 2 << 30  # with less of it free, batches leave the workers through pipes


def train_dataset(
  source: Source, spec: ClipSpec, *, seed: int, batch: int, rows: Int[np.ndarray, "b"]
) -> grain.MapDataset:
  """Element s is this process's rows of training step s; endless, reshuffled every epoch.

  Args:
    seed: from 0 on.
    batch: global rows a step, a multiple of spec.together.
    rows: sorted numbers, below `batch`, of the rows that this process wants.

  Returns:
    a dataset of dicts: video uint8[b, T, S, S, 3]; valid bool[b]; and int32[b] each of row (its
    global number), record (index of the record served), view, start (the clip's first frame),
    repeated (how many frames repeat the last one of a short video), fault (0: none) and faulty
    (index of the record that could not be read and was replaced, or -1); label, a dict of int32[b]
    by head; with spec.stored also codes uint8[b, N, d] and importance float32[b, N]; with
    spec.text also text, a dict of the arrays that it says: of a `Text` ids int32[b, L] and mask
    bool[b, L] of one caption. A spec of texts alone gives no video.

  Iterating raises UserError where neither a video nor its replacements can be read, or a video has
  no caption.
  """
  if not len(source):
    raise UserError(f"{source.name}: holds no videos to train on.")
  if batch % spec.together:
    what, how = "a clip's views go", f"data.views={spec.views}"
    if spec.neighbours:
      what, how = "a clip, its neighbour and their views go", f"2 * {how}, with neighbours"
    raise UserError(
      f"batch={batch} is not a multiple of {how}, and {what} into one step; use a batch of "
      f"{-(-batch // spec.together) * spec.together}."
    )
  read = slots(source, seed=seed, neighbours=spec.neighbours)
  return _batches(read, TrainReader(source, spec), batch, rows, spec.views)


def slots(source: Source, *, seed: int, neighbours: bool = False) -> grain.MapDataset:
  """What training reads: endless (record index, four random words), reshuffled every epoch.

  With neighbours every one is followed by another record of its scene, with words of its own; a
  source that knows no scenes is a UserError.
  """
  records = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
  read = records.random_map(_with_words)
  return _WithNeighbours(read, scenes_of(source)) if neighbours else read


def eval_dataset(
  source: Source, spec: ClipSpec, *, batch: int, rows: Int[np.ndarray, "b"]
) -> grain.MapDataset:
  """Every record once, in order, its eval_clips x eval_crops views in consecutive rows.

  Elements are those of `train_dataset`, but for captions: ids int32[b, C, L] and mask
  bool[b, C, L] of the record's first C, all False where it has fewer. The last step is padded with
  rows whose `valid` is False, so every process has the same number of steps. The rows of an
  unreadable video are not valid either and carry its fault: a replacement would be counted as the
  video it stands for.
  """
  records = grain.MapDataset.range(len(source))
  views = spec.eval_clips * spec.eval_crops
  return _batches(records, EvalReader(source, spec), batch, rows, views)


def block_dataset(
  source: Source, spec: ClipSpec, *, batch: int, rows: Int[np.ndarray, "b"]
) -> grain.MapDataset:
  """Every video cut into consecutive blocks of T frames, in record order, for storing targets.

  Elements are those of `eval_dataset`, one row a block; `start` is the block's first frame. The
  last block of a video repeats its last frame, `repeated` times. An unreadable video has one row,
  not valid. Counting the blocks opens every video once.
  """
  blocks = grain.MapDataset.source(_blocks(source, spec))
  silent = dataclasses.replace(spec, text=None)
  return _batches(blocks, BlockReader(source, silent), batch, rows, 1)


def local_rows(sharding: Any, batch: int) -> Int[np.ndarray, "b"]:
  """The global rows, sorted, that this process's devices hold of a batch.

  Args:
    sharding: the jax.sharding.Sharding of an int32[batch].
  """
  indices = sharding.addressable_devices_indices_map((batch,)).values()
  return np.unique(np.concatenate([np.arange(batch)[index] for index in indices]))


class Batches(Iterator[Batch]):
  """Batches in order, read ahead. `close()`, or the end, ends threads and worker processes."""

  def __init__(self, iterator: grain.DatasetIterator):
    self._iterator = iterator
    self._end = weakref.finalize(self, iterator.close)

  def __next__(self) -> Batch:
    return next(self._iterator)

  def close(self):
    self._end()

  def __enter__(self) -> Batches:
    return self

  def __exit__(self, *exception: object):
    self.close()


def iterate(
  dataset: grain.MapDataset, *, start: int = 0, workers: int = 0, buffer: int = 2
) -> Batches:
  """The batches of `dataset` from step `start` on.

  Args:
    workers: processes that decode; 0: threads of this process.
    buffer: batches that are read ahead, by each worker.
  """
  threads = 1 if workers else min(buffer, os.cpu_count() or 1)
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=1 if workers else buffer)
  batches = dataset[start:].to_iter_dataset(ahead)
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain reads its own, which outside of absl nobody parses.
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer)
    batches = _without_small_shared_memory(batches).mp_prefetch(options, _start_worker)
  return Batches(iter(batches))


def _batches(
  slots: grain.MapDataset, reader: Reader, batch: int, rows: np.ndarray, views: int
) -> grain.MapDataset:
  return _StepRows(slots, batch, rows, views).map(Stack(reader))


def _with_words(record: int, rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
  """The record and four random 32-bit words, from which all that is random in its rows comes."""
  return record, tuple(rng.integers(2**32, size=4).tolist())


class _WithNeighbours(grain.MapDataset):
  """Every slot of training, each followed by a neighbour, drawn from the slot's own words."""

  def __init__(self, slots: grain.MapDataset, scenes: Scenes):
    super().__init__(slots)
    self._scenes = scenes

  def __len__(self) -> int:
    return min(2 * len(self._parent), sys.maxsize)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    record, words = self._parent[index // 2]
    if index % 2 == 0:
      return record, words
    rng = np.random.default_rng([*words, 4])  # 0 to 3 are the reader's
    return _with_words(self._scenes.neighbour(record, rng), rng)


class _StepRows(grain.MapDataset):
  """Element s: the slots that this process's rows of step s are of, each with its (row, view)s.

  The slot is None for rows past the last one.
  """

  def __init__(self, slots: grain.MapDataset, batch: int, rows: np.ndarray, views: int):
    super().__init__(slots)
    self._batch, self._rows, self._views = batch, rows.tolist(), views

  def __len__(self) -> int:
    return min(-(-len(self._parent) * self._views // self._batch), sys.maxsize)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for row in self._rows:
      slot, view = divmod(index * self._batch + row, self._views)
      wanted.setdefault(slot, []).append((row, view))
    there = len(self._parent)
    return [(self._parent[slot] if slot < there else None, rows) for slot, rows in wanted.items()]


def _blocks(source: Source, spec: ClipSpec) -> Sequence[tuple[int, int]]:
  """(record, first frame) of every block; one block where a video cannot be read."""

  def starts(record: int) -> list[int]:
    try:
      with decode.open_video(source[record], max_pixels=spec.max_pixels) as video:
        return list(range(0, video.count, spec.frames))
    except FaultError:
      return [0]

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    found = pool.map(starts, range(len(source)))
    return [(record, first) for record, firsts in enumerate(found) for first in firsts]


def _start_worker(number: int, workers: int) -> None:
  """A worker leaves Ctrl-C to the main process, and ends when that was killed."""
  del number, workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  main = os.getppid()

  def watch() -> None:
    while os.getppid() == main:
      time.sleep(1.0)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _without_small_shared_memory(batches: grain.IterDataset) -> grain.IterDataset:
  """Containers often have 64 MB of it, and a batch that does not fit kills the worker (SIGBUS)."""
  folder = "/dev/shm"
  if os.path.isdir(folder) and shutil.disk_usage(folder).free < SHARED_MEMORY:
    logging.warning(
      "%s has less than %d GiB free: batches leave the workers through pipes, which is slower "
      "(docker run --shm-size=8g).", folder, SHARED_MEMORY >> 30,
    )
    options = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    return grain.experimental.WithOptionsIterDataset(batches, options)
  return batches
