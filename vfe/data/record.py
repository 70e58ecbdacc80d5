"""What a source of videos is made of: a record for every clip, and the protocol of a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class VideoRecord:
  """One clip of one video, not decoded yet.

  Exactly one of `path` and `data` says where the bytes of the video are. `start` and `end` are
  seconds within that video, the end not included; None means from the first or to the last frame.
  A clip that crosses from one file of a long video into the next goes on in `then`, a record of
  the part there.
  """

  name: str  # what a person can find it by: a path, or shard:index
  path: str | None = None
  data: bytes | None = None
  start: float | None = None
  end: float | None = None
  labels: Mapping[str, int] = dataclasses.field(default_factory=dict)  # head -> class
  text: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # caption, narration, ...
  then: VideoRecord | None = None

  def parts(self) -> Iterator[VideoRecord]:
    """This record and those that it goes on in, each a clip of one file."""
    record: VideoRecord | None = self
    while record is not None:
      yield dataclasses.replace(record, then=None)
      record = record.then


def is_url(path: str) -> bool:
  """Whether a path is one in a bucket (gs://) and not in a file system."""
  return "://" in path


@runtime_checkable
class Source(Protocol):
  """Records in a fixed order; `heads` gives each label head's class names by class number."""

  name: str
  heads: Mapping[str, tuple[str, ...]]

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> VideoRecord: ...
