"""What all our TFDS data sets share: the features of an example, and how Beam's workers make them.

Videos are stored as the files that they are. (`tfds.features.Video` would decode them and store
every frame as an image.)
"""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vfe.data.record import VideoRecord

Items = Mapping[str, Sequence[Any]]


class VideoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS data set of mp4 files, generated on Apache Beam, in ArrayRecord files.

  A data set says which label heads it has (`heads`), what its splits are made of (`items`, small
  things that are sent to workers) and how a worker makes a record of one (`read`).

  An example is
    video: the bytes of the file.
    name: what a person can find it by; no two of a split are the same.
    start, end: seconds of the clip within the video, float64; NaN: from its first, to its last
      frame.
    labels: a class number for each head.
    text: JSON of all else that is known of the clip.
  """

  VERSION = tfds.core.Version("1.0.0")

  # VideoRecord (with bytes) of an item; a module's function, so that it travels by name.
  read: Callable[[Any], VideoRecord]

  @abc.abstractmethod
  def heads(self) -> Mapping[str, Sequence[str] | int]:
    """Class names of each label head, or their number where the names are in downloaded files."""

  @abc.abstractmethod
  def items(self, manual_dir: Callable[[], Path]) -> Items:
    """What each split is made of. `manual_dir()` is the user's folder of downloaded files."""

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict({
      "video": tfds.features.Tensor(shape=(), dtype=np.object_),
      "name": tfds.features.Text(),
      "start": _seconds(),
      "end": _seconds(),
      "labels": {head: _class_label(classes) for head, classes in self.heads().items()},
      "text": tfds.features.Text(),
    })
    return self.dataset_info_from_configs(
      features=features, metadata=tfds.core.MetadataDict()
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    items = self.items(lambda: Path(dl_manager.manual_dir))
    return {split: self._generate_examples(of_split) for split, of_split in items.items()}

  def _generate_examples(self, items: Sequence[Any]) -> Any:
    beam = tfds.core.lazy_imports.apache_beam
    return beam.Create(items) | beam.Map(example, read=type(self).read)


def _seconds() -> tfds.features.Tensor:
  """As bytes, because tf.Example holds floats as float32, and a clip would gain or lose a frame."""
  return tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes")


def _class_label(classes: Sequence[str] | int) -> tfds.features.ClassLabel:
  if isinstance(classes, int):
    return tfds.features.ClassLabel(num_classes=classes)
  return tfds.features.ClassLabel(names=list(classes))


def example(item: Any, read: Callable[[Any], VideoRecord]) -> tuple[str, dict[str, Any]]:
  """Runs on a worker: the key and the features of one video."""
  record = read(item)
  return record.name, {
    "video": record.data,
    "name": record.name,
    "start": math.nan if record.start is None else record.start,
    "end": math.nan if record.end is None else record.end,
    "labels": dict(record.labels),
    "text": json.dumps(dict(record.text)),
  }
