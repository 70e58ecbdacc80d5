"""The laying of what readers serve into the arrays of a batch."""

from __future__ import annotations

from typing import Any

import grain
import numpy as np

from vfe.data.clips import Reader, Served
from vfe.data.stored import Stored
from vfe.errors import UserError

Batch = dict[str, Any]


class Stack(grain.transforms.Map):
  """Reads the slots of a step and lays their rows into arrays."""

  def __init__(self, reader: Reader):
    self._reader = reader
    self._stored = _targets(reader)
    if reader.spec.text:
      reader.spec.text.open()

  def map(self, element: list[tuple[Any, list[tuple[int, int]]]]) -> Batch:
    batch = self._blank(sum(len(rows) for _, rows in element))
    place = 0
    for slot, rows in element:
      served = None if slot is None else self._reader(slot, [view for _, view in rows])
      for i, (row, view) in enumerate(rows):
        batch["row"][place], batch["view"][place] = row, view
        if served is not None:
          self._lay(batch, place, served, i)
        place += 1
    return batch

  def _blank(self, rows: int) -> Batch:
    """A batch of rows that are not valid: zeros, and -1 where 0 is a record or a class."""
    spec, absent = self._reader.spec, np.full(rows, -1, np.int32)
    numbers = ("row", "view", "start", "repeated", "fault")
    batch = {
      **{name: np.zeros(rows, np.int32) for name in numbers},
      "valid": np.zeros(rows, bool),
      "record": absent.copy(),
      "faulty": absent.copy(),
      "label": {head: absent.copy() for head in self._reader.source.heads},
    }
    if spec.frames:
      batch["video"] = np.zeros((rows, spec.frames, spec.size, spec.size, 3), np.uint8)
    if self._stored:
      tokens, channels = self._stored.shape(spec.frames)
      batch["codes"] = np.zeros((rows, tokens, channels), np.uint8)
      batch["importance"] = np.zeros((rows, tokens), np.float32)
    if spec.text:
      arrays = spec.text.arrays(self._reader.training).items()
      batch["text"] = {name: np.zeros((rows, *shape), dtype) for name, (dtype, shape) in arrays}
    return batch

  def _lay(self, batch: Batch, place: int, served: Served, i: int):
    """Row `place` becomes the i-th of the served views."""
    batch["record"][place] = served.record
    batch["fault"][place], batch["faulty"][place] = served.fault, served.faulty
    if not served.clips:
      return
    clip = served.clips[i]
    batch["valid"][place] = True
    if "video" in batch:
      batch["video"][place] = clip.frames
    batch["start"][place], batch["repeated"][place] = clip.start, clip.repeated
    for head, number in served.labels.items():
      batch["label"][head][place] = number
    if self._stored:
      batch["codes"][place], batch["importance"][place] = self._stored.lookup(
        served.record, clip.start, len(clip.frames)
      )
    for name, array in batch.get("text", {}).items():
      array[place] = served.texts[i][name]


def _targets(reader: Reader) -> Stored | None:
  if reader.spec.stored is None:
    return None
  stored = Stored(reader.spec.stored)
  if len(stored) != len(reader.source):
    raise UserError(
      f"{stored.path}: holds the targets of {len(stored)} videos, but {reader.source.name} has "
      f"{len(reader.source)}; make the targets anew."
    )
  return stored
