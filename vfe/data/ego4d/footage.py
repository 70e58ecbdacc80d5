"""Where the seconds of Ego4D's videos lie: whole files, or chunks as EgoVLP or LaViLa cut them.

    <video_uid>.mp4                whole
    <video_uid>/<k>.mp4            EgoVLP: chunks of 600 s, k = 0, 1, 2, ...
    <video_uid>.mp4/<start>.mp4    LaViLa: chunks of 300 s, by their first second: 0, 300, 600, ...

in any folders. A chunk is taken to begin at the second that its name says.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vfe.data.captioned.collect import walk
from vfe.data.folder import VIDEO_SUFFIXES
from vfe.data.record import VideoRecord

EGOVLP, LAVILA = 600, 300  # seconds of a chunk


class Absent(Exception):
  """A clip that cannot be read. `what` is the file that is not there; `chunk`: its video has
  others."""

  def __init__(self, what: str, chunk: bool):
    super().__init__(what)
    self.what, self.chunk = what, chunk


@dataclasses.dataclass(frozen=True)
class _Video:
  """Chunks by number, each of so many seconds; 0 seconds where one file has all of the video."""

  seconds: int
  chunks: Mapping[int, str]


class Footage:
  """The files of videos, by their uid."""

  def __init__(self, videos: Mapping[str, _Video]):
    self._videos = videos

  @classmethod
  def of(cls, paths: Mapping[str, str]) -> Footage:
    """Whole videos at these paths."""
    return cls({uid: _Video(0, {0: path}) for uid, path in paths.items()})

  @classmethod
  def below(cls, folder: Path) -> Footage:
    """What is found in a folder and those below it."""
    whole: dict[str, _Video] = {}
    chunks: dict[int, dict[str, dict[int, str]]] = {EGOVLP: {}, LAVILA: {}}
    for place, name in walk(folder):
      stem, suffix = os.path.splitext(name)
      if suffix.lower() not in VIDEO_SUFFIXES:
        continue
      path = os.path.join(place, name)
      whole.setdefault(stem, _Video(0, {0: path}))
      if stem.isascii() and stem.isdigit():
        uid, inside = os.path.splitext(os.path.basename(place))
        lavila = inside.lower() in VIDEO_SUFFIXES
        of = chunks[LAVILA if lavila else EGOVLP].setdefault(uid, {})
        of[int(stem) // LAVILA if lavila else int(stem)] = path
    for seconds, videos in chunks.items():
      for uid, found in videos.items():
        whole.setdefault(uid, _Video(seconds, found))
    return cls(whole)

  def check(self, uid: str, start: float, end: float, duration: float = math.inf) -> float:
    """The end of a clip of which all is there, in seconds of the whole video. Raises Absent.

    duration: of the video as its list says; a clip that ends a moment after it ends with it where
    no chunk goes on.
    """
    video = self._of(uid)
    missing = [number for number in _numbers(video, start, end) if number not in video.chunks]
    if missing and start < duration < end:
      return self.check(uid, start, duration)
    if missing:
      raise Absent(f"{uid}, chunk {missing[0]} of {video.seconds} s", chunk=True)
    return end

  def record(self, uid: str, start: float, end: float, **more: Any) -> VideoRecord:
    """The record of a clip, with parts in all the chunks that it lies in. Raises Absent."""
    self.check(uid, start, end)
    video = self._of(uid)
    numbers, name = _numbers(video, start, end), f"{uid} [{start:g}, {end:g}) s"
    record: VideoRecord | None = None
    for number in reversed(numbers):
      begin = number * video.seconds
      record = VideoRecord(
        name=name,
        path=video.chunks[number],
        start=start - begin if number == numbers[0] else None,
        end=end - begin if number == numbers[-1] else None,
        then=record,
        **more,
      )
    return record

  def _of(self, uid: str) -> _Video:
    if uid not in self._videos:
      raise Absent(uid, chunk=False)
    return self._videos[uid]


def _numbers(video: _Video, start: float, end: float) -> Sequence[int]:
  """The chunks that have a part of [start, end)."""
  if not video.seconds:
    return (0,)
  first = int(start // video.seconds)
  return range(first, max(first, int(-(-end // video.seconds)) - 1) + 1)
