"""Tokenizer targets computed once: codes and importance of every window of every video.

A folder with meta.json and one ArrayRecord whose record i holds the W windows of video i:
codes uint8[W, n, d] (level numbers), then importance float32[W, n], both little-endian.
Clips find theirs by (video, first frame), which is why stored targets need deterministic crops and
first frames that are multiples of the window.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float32, UInt8

from vfe.errors import UserError

_RECORDS, _META = "targets.array_record", "meta.json"

Windows = tuple[np.ndarray, np.ndarray]  # codes uint8[W, n, d], importance float32[W, n]
Block = tuple[int, np.ndarray, np.ndarray, bool]  # record, uint8[N, d], float[N], valid


def write(path: str | Path, items: Iterable[Windows], meta: Mapping[str, Any]) -> None:
  """Writes the windows of every video, in record order; beside `path`, then renamed to it.

  Args:
    items: for each video codes uint8[W, n, d] and importance float32[W, n]. W differs from video
      to video and is 0 for one that could not be read; n and d do not.
    meta: what the reader should know; needs "window", the frames of one. n, d and the number of
      videos are added as "tokens", "channels" and "videos".
  """
  path = Path(path)
  beside = path.with_name(path.name + ".tmp")
  shutil.rmtree(beside, ignore_errors=True)
  beside.mkdir(parents=True)
  writer = ArrayRecordWriter(str(beside / _RECORDS), "group_size:1")
  shapes, videos = set(), 0
  for codes, importance in items:
    if codes.shape[:2] != importance.shape or codes.dtype != np.uint8:
      raise ValueError(f"codes {codes.dtype}{codes.shape} and importance {importance.shape}")
    shapes.add(codes.shape[1:])
    writer.write(codes.tobytes() + importance.astype("<f4").tobytes())
    videos += 1
  writer.close()
  if len(shapes) != 1:
    raise ValueError(f"{path}: tokens and channels differ between videos: {sorted(shapes)}")
  tokens, channels = shapes.pop()
  described = {**meta, "tokens": tokens, "channels": channels, "videos": videos}
  (beside / _META).write_text(json.dumps(described, indent=2) + "\n")
  shutil.rmtree(path, ignore_errors=True)
  beside.rename(path)


def by_record(blocks: Iterable[Block], tokens: int) -> Iterator[Windows]:
  """Joins the consecutive blocks of each video (`pipeline.block_dataset`) into items to write.

  Args:
    blocks: record, codes uint8[N, d], importance float[N] and valid of every block, in order; N is
      a multiple of `tokens`.
    tokens: n, tokens of a window.
  """
  for _, group in itertools.groupby(blocks, key=lambda block: block[0]):
    group = list(group)
    channels = group[0][1].shape[-1]
    valid = [block for block in group if block[3]]
    codes = [block[1].reshape(-1, tokens, channels) for block in valid]
    importance = [block[2].reshape(-1, tokens).astype(np.float32) for block in valid]
    none = np.zeros((0, tokens, channels), np.uint8), np.zeros((0, tokens), np.float32)
    yield np.concatenate([none[0], *codes]), np.concatenate([none[1], *importance])


class Stored:
  """Stored targets, read at random. Pickles as its path; safe to use from several threads.

  Attributes:
    meta: what was written, with "window", "tokens", "channels", "videos".
  """

  def __init__(self, path: str | Path):
    self.path = str(path)
    try:
      self.meta = json.loads((Path(path) / _META).read_text())
    except (OSError, json.JSONDecodeError) as error:
      raise UserError(f"{path}: holds no stored targets; run the targets stage first.") from error
    self._videos = ArrayRecordDataSource([str(Path(path) / _RECORDS)])

  def __len__(self) -> int:
    return self.meta["videos"]

  def __reduce__(self):
    return Stored, (self.path,)

  def shape(self, frames: int) -> tuple[int, int]:
    """(N, d) of a clip of so many frames."""
    return frames // self.meta["window"] * self.meta["tokens"], self.meta["channels"]

  def lookup(
    self, record: int, start: int, frames: int
  ) -> tuple[UInt8[np.ndarray, "N d"], Float32[np.ndarray, "N"]]:
    """Codes and importance of the clip's tokens, in (t, h, w) order."""
    window, tokens, channels = (self.meta[key] for key in ("window", "tokens", "channels"))
    if start % window or frames % window:
      raise ValueError(f"frames {start} to {start + frames} are no whole windows of {window}")
    data = self._videos[record]
    windows = len(data) // (tokens * (channels + 4))
    codes = np.frombuffer(data, np.uint8, windows * tokens * channels)
    importance = np.frombuffer(data, "<f4", offset=codes.nbytes)
    first, last = start // window, (start + frames) // window
    if last > windows:
      raise UserError(
        f"{self.path}: video {record} has {windows} windows of {window} frames, but a clip wants "
        f"frames {start} to {start + frames}; the videos have changed: make the targets anew."
      )
    return (
      codes.reshape(-1, channels)[first * tokens : last * tokens].copy(),
      importance[first * tokens : last * tokens].astype(np.float32),
    )
