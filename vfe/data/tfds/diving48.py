"""Diving48 V2 as a TFDS data set, from the files that its authors publish."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

from vfe.data.diving48 import list_diving48
from vfe.data.record import VideoRecord
from vfe.data.tfds.base import Items, VideoBuilder

log = logging.getLogger(__name__)

CLASSES = 48


def read(record: VideoRecord) -> VideoRecord:
  """Runs on a worker: the record with the bytes of its file."""
  path = Path(record.path)
  return dataclasses.replace(record, name=path.name, path=None, data=path.read_bytes())


class VfeDiving48(VideoBuilder):
  """Diving48 V2 (https://www.svcl.ucsd.edu/projects/resound/dataset.html).

  manual_dir holds Diving48_vocab.json, Diving48_V2_train.json, Diving48_V2_test.json and the videos
  in rgb/ (see `vfe.data.diving48`). Videos that are not there are left out, counted in the log and
  named in the metadata (`missing`).
  """

  MANUAL_DOWNLOAD_INSTRUCTIONS = "Download annotations and videos of Diving48 V2 into one folder."

  read = staticmethod(read)

  def heads(self):
    return {"label": CLASSES}

  def items(self, manual_dir: Callable[[], Path]) -> Items:
    folder = manual_dir()
    listing = list_diving48(str(folder))
    heads = listing.heads()
    self.info.features["labels"]["label"].names = list(heads["label"].names)
    found, missing = {}, {}
    for split, entries in listing.splits.items():
      records = [entry.record(heads) for entry in entries]
      there = [Path(record.path).is_file() for record in records]
      found[split] = list(itertools.compress(records, there))
      missing[split] = [r.name for r, is_there in zip(records, there, strict=True) if not is_there]
    self.info.metadata["missing"] = missing
    for split, names in missing.items():
      if names:
        total = len(names) + len(found[split])
        log.warning("%d of %d %s videos are missing: %s ...", len(names), total, split, names[0])
    return {split: records for split, records in found.items() if records}
