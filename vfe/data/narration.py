"""Narrations in a batch: the words, and the nouns and verbs that they are about."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from vfe.data.record import VideoRecord
from vfe.data.text import Arrays, Text
from vfe.errors import UserError

NOUNS, VERBS = 582, 118  # classes of EgoClip's taxonomy


@dataclasses.dataclass(frozen=True)
class Narration(Text):
  """Also the classes of a record's `nouns` and `verbs`, numbers from 0, as multi-hot rows.

  A row has `nouns` bool[N] and `verbs` bool[V] beside `ids` and `mask`; a record that names none,
  as at evaluation, has rows of False. `clip`, int32, is made from the record's name: rows of one
  clip are known by it on the device, where EgoNCE must not take them for each other's negatives.

  Attributes:
    nouns, verbs: N and V, the classes of the taxonomy.
  """

  nouns: int = NOUNS
  verbs: int = VERBS

  def arrays(self, training: bool) -> Arrays:
    tags = {name: (np.bool_, (getattr(self, name),)) for name in ("nouns", "verbs")}
    return {**super().arrays(training), **tags, "clip": (np.int32, ())}

  def row(self, record: VideoRecord, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    row = super().row(record, rng)
    row["clip"][...] = zlib.crc32(record.name.encode()) >> 1
    for name in ("nouns", "verbs"):
      numbers = [int(number) for number in record.text.get(name) or ()]
      count = getattr(self, name)
      if numbers and not 0 <= min(numbers) <= max(numbers) < count:
        raise UserError(
          f"{record.name}: {name} {numbers} are not all below {count}, the classes of the taxonomy."
        )
      row[name][numbers] = True
    return row
