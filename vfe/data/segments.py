"""A video's segments, each a clip of its own, and their captions as one text.

What a language model reads in place of the video (LongViViT, arXiv 2312.07395, section 4).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from vfe.data.record import Source, VideoRecord

FRAMES = 16  # of a segment in the paper, at one a second
NOTHING = "nothing happens"  # of a segment about which there is nothing to say


def joined(captions: Sequence[str]) -> str:
  """"Part 1: a ball falls. Part 2: nothing happens." of the captions in their order."""
  said = (caption.strip().removesuffix(".") or NOTHING for caption in captions)
  return " ".join(f"Part {number}: {caption}." for number, caption in enumerate(said, start=1))


@dataclasses.dataclass(frozen=True)
class Segments:
  """The segments of another source's videos, video after video, in order of time.

  of: the number of the video that each record is a segment of. What a video is labelled as, its
  segments are not.
  """

  name: str
  records: Sequence[VideoRecord]
  of: Sequence[int]
  heads: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

  @classmethod
  def cut(cls, source: Source, seconds: float) -> Segments:
    """Opens every video once to see how long it is. An unreadable one is one segment."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      spans = list(pool.map(lambda i: _starts(source[i], seconds), range(len(source))))
    records = [
      dataclasses.replace(
        source[i],
        name=f"{source[i].name}, part {number}",
        start=start,
        end=start + seconds,
        labels={},
      )
      for i, starts in enumerate(spans)
      for number, start in enumerate(starts, start=1)
    ]
    of = [i for i, starts in enumerate(spans) for _ in starts]
    return cls(f"{source.name}, in parts of {seconds:g} s", records, of)

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> VideoRecord:
    return self.records[index]


@dataclasses.dataclass(frozen=True)
class Retold:
  """A source whose records have further texts, by the record's number."""

  source: Source
  texts: Mapping[int, Mapping[str, str]]

  @property
  def name(self) -> str:
    """The source's own."""
    return self.source.name

  @property
  def heads(self) -> Mapping[str, tuple[str, ...]]:
    """The source's own."""
    return self.source.heads

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> VideoRecord:
    record = self.source[index]
    return dataclasses.replace(record, text={**record.text, **self.texts.get(index, {})})


def _starts(record: VideoRecord, seconds: float) -> list[float]:
  """When each segment begins; the last one may be shorter, but has a frame."""
  from vfe.data import decode
  from vfe.data.faults import FaultError

  first = record.start or 0.0
  try:
    with decode.open_video(record) as video:
      last = float(video.times()[-1])
  except FaultError:
    return [first]
  # To the microsecond, as frames are found by: 1.6 s are not in two parts of 0.8 s twice.
  count = math.floor(round(last / seconds, 6)) + 1
  return [first + number * seconds for number in range(count)]
