"""ArrayRecord shards of short mp4 files with their labels, as `vfe.tools.prepare` writes them.

    out/dataset.json                           heads, splits, counts, encoding, what was skipped
    out/train-00000-of-00002.array_record      videos in source order, without those skipped
    out/train-scenes.npz                       of narrated clips: scene, start and end of each

A record is the length of its header (uint32, little-endian), the header (JSON: name, labels, text)
and the bytes of an mp4 file. One record a chunk, so that any of them is read without its
neighbours. Shards are written to a local folder or to a bucket, and read from a local (or mounted)
folder.
"""

from __future__ import annotations

import bisect
import io
import itertools
import json
import os
import secrets
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from vfe.data.record import VideoRecord, is_url
from vfe.data.scenes import Narrated, Scenes
from vfe.data.sources import required_path
from vfe.errors import UserError

DESCRIPTION, SCENES = "dataset.json", "{}-scenes.npz"
UNFINISHED = ".tmp"
_LENGTH = struct.Struct("<I")


class ShardSource:
  """One split of a folder of shards. Pickles as paths; safe to use from several threads."""

  def __init__(
    self,
    name: str,
    heads: Mapping[str, tuple[str, ...]],
    paths: Sequence[str],
    counts: Sequence[int],
  ):
    self.name, self.heads = name, heads
    self._paths, self._ends = paths, list(itertools.accumulate(counts))
    self._data = ArrayRecordDataSource(paths)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> VideoRecord:
    shard = bisect.bisect_right(self._ends, index)
    within = index - (self._ends[shard - 1] if shard else 0)
    return decode_record(self._data[index], f"{self._paths[shard]}:{within}")


class NarratedShards(ShardSource):
  """Shards of narrated clips, whose scenes are known, and the classes of nouns and verbs."""

  def __init__(self, *shards: Any, scenes: Scenes, taxonomy: Mapping[str, int]):
    super().__init__(*shards)
    self.scenes, self.taxonomy = scenes, taxonomy


def open_shards(data: ConfigDict, split: str) -> ShardSource | None:
  """A split of the shards at data.path; validation from data.eval_path where that is set."""
  folder = Path(required_path(data))
  described = read_description(folder)
  heads = {head: tuple(names) for head, names in described["heads"].items()}
  if split == "validation" and data.get("eval_path"):
    folder = Path(data.eval_path)
    described = read_description(folder)
    if {head: tuple(names) for head, names in described["heads"].items()} != heads:
      raise UserError(
        f"{folder}: its classes are not those of data.path={data.path}; prepare both in one run, "
        f"from one manifest with a split column."
      )
    split = next(name for name in ("validation", "test", "train") if name in described["splits"])
  if split not in described["splits"]:
    return None
  about = described["splits"][split]
  shards = about["shards"]
  narrated = [SCENES.format(split)] if "taxonomy" in about else []
  paths = [str(folder / name) for name in shards]
  needed = paths + [str(folder / name) for name in narrated]
  missing = next((path for path in needed if not Path(path).is_file()), None)
  if missing:
    raise UserError(f"{missing}: is named in {DESCRIPTION} but does not exist; prepare anew.")
  of = f"{folder} ({split})", heads, paths, list(shards.values())
  if not narrated:
    return ShardSource(*of)
  with np.load(needed[-1]) as arrays:
    scenes = Scenes(**arrays)
  return NarratedShards(*of, scenes=scenes, taxonomy=about["taxonomy"])


def read_description(folder: Path) -> Mapping[str, Any]:
  """dataset.json of a folder of shards."""
  try:
    return json.loads((folder / DESCRIPTION).read_text())
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(
      f"{folder}: holds no {DESCRIPTION}; write shards with python -m vfe.tools.prepare (run the "
      f"same command again if it was stopped)."
    ) from error
  except json.JSONDecodeError as error:
    place = f"{folder / DESCRIPTION}, line {error.lineno}"
    raise UserError(f"{place}: not JSON ({error.msg}).") from error


def write_narrated(
  folder: epath.Path, split: str, source: Narrated, kept: Int64[np.ndarray, "n"]
) -> dict[str, Any]:
  """Writes the scenes of the records of a split that its shards hold; returns what dataset.json
  says of the split."""
  path, file = folder / SCENES.format(split), io.BytesIO()
  np.savez(file, **source.scenes.of(kept).arrays)
  other = beside(path)
  other.write_bytes(file.getvalue())
  other.replace(path)
  return {"taxonomy": dict(source.taxonomy)}


def write_shard(path: str | Path, records: Iterable[VideoRecord]) -> int:
  """Writes records that hold bytes. Returns how many; 0 leaves no file.

  The shard appears whole: it is written beside (for a bucket, to this machine's disk) and then
  moved, so that a worker that dies, or two that write the same, leave nothing half done.
  """
  target = epath.Path(path)
  if not is_url(str(path)):
    return _write(beside(target), target, records)
  with tempfile.TemporaryDirectory(prefix="vfe-shard-") as folder:
    return _write(epath.Path(folder) / target.name, target, records)


def _write(local: epath.Path, target: epath.Path, records: Iterable[VideoRecord]) -> int:
  writer, count = ArrayRecordWriter(os.fspath(local), "group_size:1,uncompressed"), 0
  try:
    for record in records:
      writer.write(encode_record(record))
      count += 1
    writer.close()
    if count and is_url(os.fspath(target)):
      local.copy(target, overwrite=True)
    elif count:
      local.replace(target)
  finally:
    local.unlink(missing_ok=True)
  return count


def beside(path: epath.Path) -> epath.Path:
  """A name of its own for what is moved to `path` when all of it is there."""
  return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{UNFINISHED}")


def encode_record(record: VideoRecord) -> bytes:
  """The record's header and its bytes."""
  header = json.dumps(
    {"name": record.name, "labels": dict(record.labels), "text": dict(record.text)}
  ).encode()
  return _LENGTH.pack(len(header)) + header + record.data


def decode_record(data: bytes, place: str) -> VideoRecord:
  """The record of which `data` are the bytes; `place` (shard:index) goes into its name."""
  (length,) = _LENGTH.unpack_from(data)
  header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
  return VideoRecord(
    name=f"{place} ({header['name']})",
    data=data[_LENGTH.size + length :],
    labels=header["labels"],
    text=header["text"],
  )
