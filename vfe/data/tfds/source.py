"""TFDS data sets of encoded videos, read at random through `tfds.data_source`.

    data.path=<data_dir>/<name>                    its newest version, where it has one config
    data.path=<data_dir>/<name>/<config>           the newest of this config
    data.path=<data_dir>/<name>/<config>/<version>

Any data set will do, ours or not, that is in ArrayRecord files and has a feature `video` with the
bytes of a video file. Its ClassLabel features, at the top or in `labels`, are the label heads;
`name`, `start`, `end` and `text` are used where they are there (see `vfe.data.tfds.base`). The
folder is local (or mounted). Reading does not import TensorFlow.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from vfe.data.record import VideoRecord
from vfe.data.sources import required_path
from vfe.errors import UserError

DESCRIPTION = "dataset_info.json"
_VIDEO = "video"


class TfdsSource:
  """One split of a TFDS data set. Pickles as its folder; safe to use from several threads."""

  def __init__(self, folder: str, split: str):
    self._arguments = folder, split
    self.name = f"{folder} ({split})"
    builder = _builder(folder)
    self._heads = _label_features(folder, builder.info.features)
    self.heads = {head: tuple(feature.names) for head, (_, feature) in self._heads.items()}
    try:
      self._data = builder.as_data_source(split)
    except (NotImplementedError, ValueError) as error:
      raise UserError(
        f"{folder}: is in {builder.info.file_format.value} files, which cannot be read at random; "
        f"make it with file_format=array_record."
      ) from error

  def __reduce__(self):
    return TfdsSource, self._arguments

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, index: int) -> VideoRecord:
    example = self._data[index]
    name = _string(example.get("name", b""))
    return VideoRecord(
      name=f"{self.name}[{index}]" + (f" ({name})" if name else ""),
      data=example[_VIDEO],
      start=_seconds(example.get("start")),
      end=_seconds(example.get("end")),
      labels={head: _at(example, place) for head, (place, _) in self._heads.items()},
      text=text_of(example.get("text", b"")),
    )


def open_tfds(data: ConfigDict, split: str) -> TfdsSource | None:
  """A split of the data set at data.path; validation from data.eval_path where that is set."""
  folder = find_version(required_path(data))
  if split == "validation" and data.get("eval_path"):
    other = find_version(data.eval_path)
    there = _builder(other).info.splits
    split = next((name for name in ("validation", "test", "train") if name in there), None)
    if split is None:
      raise UserError(f"{other}: has none of the splits validation, test and train.")
    source = TfdsSource(other, split)
    if source.heads != TfdsSource(folder, "train").heads:
      raise UserError(f"{other}: its classes are not those of data.path={data.path}.")
    return source
  if split not in _builder(folder).info.splits:
    return None
  return TfdsSource(folder, split)


def find_version(path: str) -> str:
  """The folder with the files of the newest version of the one data set below a path."""
  root = Path(path)
  depths = ("", "*/", "*/*/", "*/*/*/")
  for depth in depths:
    found = [file.parent for file in root.glob(depth + DESCRIPTION)]
    kinds = sorted({str(folder.parent) for folder in found})
    if len(kinds) > 1 and depth:
      raise UserError(f"{path}: holds several data sets; name one: {', '.join(kinds)}.")
    if found:
      return str(max(found, key=_version))
  raise UserError(
    f"{path}: holds no TFDS data set ({DESCRIPTION}); make one with python -m vfe.tools.build."
  )


def _version(folder: Path) -> tuple[int, ...]:
  return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


@functools.lru_cache(maxsize=4)
def _builder(folder: str) -> Any:
  """Knows the data set from its files alone."""
  return tfds.builder_from_directory(folder)


def _label_features(folder: str, features: Any) -> dict[str, tuple[tuple[str, ...], Any]]:
  """head -> where it is in an example, and its feature."""
  known = dict(features.items())
  video = known.get(_VIDEO)
  if video is None or video.shape != () or np.dtype(video.np_dtype) != np.dtype(object):
    raise UserError(
      f"{folder}: its feature '{_VIDEO}' is {video or 'not there'}; wanted are the bytes of a "
      f"video file, tfds.features.Tensor(shape=(), dtype=np.object_) (see docs/data-at-scale.md)."
    )
  places = {(name,): feature for name, feature in known.items()}
  if isinstance(known.get("labels"), tfds.features.FeaturesDict):
    places |= {("labels", name): feature for name, feature in known["labels"].items()}
  is_label = lambda feature: isinstance(feature, tfds.features.ClassLabel)
  return {place[-1]: (place, feature) for place, feature in places.items() if is_label(feature)}


def text_of(value: bytes | str) -> Mapping[str, Any]:
  """The feature `text`: a JSON object, or in data sets of others any text, then as "text"."""
  text = _string(value)
  try:
    known = json.loads(text)
  except json.JSONDecodeError:
    known = text
  if isinstance(known, dict):
    return known
  return {"text": text} if text else {}


def _string(value: Any) -> str:
  return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _at(example: Mapping[str, Any], place: tuple[str, ...]) -> int:
  return int(functools.reduce(lambda part, key: part[key], place, example))


def _seconds(value: Any) -> float | None:
  return None if value is None or math.isnan(value) else float(value)
