"""EgoClip (arXiv 2206.01670): 3.8 million one-second clips of Ego4D, each with its narration.

    egoclip.csv    tab-separated: video_uid, video_dur, narration_source, narration_ind,
                   narration_time, clip_start, clip_end, clip_text, tag_verb, tag_noun; columns go
                   by their names, and some copies have a first one, clip_idx

Clips are seconds of whole videos. tag_* are lists of classes of the taxonomy, "[192, 115, 12]".
"""

from __future__ import annotations

import array
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vfe.data import narration, scenes
from vfe.data.captioned import files
from vfe.data.captioned.collect import class_numbers, tidy
from vfe.data.ego4d.footage import Absent, Footage
from vfe.data.ego4d.tally import Tally
from vfe.data.ego4d.taxonomy import class_count
from vfe.data.record import VideoRecord

FILE = "egoclip.csv"
COLUMNS = (
  "video_uid", "video_dur", "narration_time", "clip_start", "clip_end", "clip_text", "tag_verb",
  "tag_noun",
)  # fmt: skip


class _Columns:
  """The clips as they are read; ends are of the clip's words and tags, after a first 0."""

  def __init__(self):
    self.uids: dict[str, int] = {}
    self.video, self.words = array.array("i"), bytearray()
    self.start, self.end, self.time = (array.array("d") for _ in range(3))
    self.word_ends, self.tag_ends = array.array("q", [0]), array.array("q", [0])
    self.tags = array.array("h")

  def add(self, uid: str, span: tuple[float, float], time: float, words: str, tags) -> None:
    self.video.append(self.uids.setdefault(uid, len(self.uids)))
    self.start.append(span[0])
    self.end.append(span[1])
    self.time.append(time)
    self.words += words.encode()
    self.word_ends.append(len(self.words))
    for numbers in tags:
      self.tags.extend(numbers)
      self.tag_ends.append(len(self.tags))


class EgoClip:
  """A source of narrated clips, in the order of the file.

  A record's texts are `caption`, the narration as it is written, and the classes `nouns` and
  `verbs`; clips within the same minute of a video share a scene. Held as columns, about 120 bytes
  a clip: as records they would not fit. Pickles as they are, once for every worker.

  Attributes:
    taxonomy: how many classes there are of nouns and of verbs, by name.
  """

  heads: Mapping[str, tuple[str, ...]] = {}

  def __init__(
    self, name: str, footage: Footage, columns: _Columns, taxonomy: Mapping[str, int]
  ):
    self.name, self.taxonomy = name, taxonomy
    self._footage, self._uids = footage, list(columns.uids)
    self._video, self._tags = np.array(columns.video), np.array(columns.tags)
    self._start, self._end = np.array(columns.start), np.array(columns.end)
    self._word_ends, self._tag_ends = np.array(columns.word_ends), np.array(columns.tag_ends)
    self._words = bytes(columns.words)
    scene = scenes.numbered(self._video.astype(np.int64), np.array(columns.time))
    self.scenes = scenes.Scenes(scene, self._start, self._end)

  def __len__(self) -> int:
    return len(self._video)

  def __getitem__(self, index: int) -> VideoRecord:
    if not 0 <= index < len(self):
      raise IndexError(index)
    words = self._words[self._word_ends[index] : self._word_ends[index + 1]].decode()
    verbs, nouns = (
      tuple(self._tags[self._tag_ends[i] : self._tag_ends[i + 1]].tolist())
      for i in (2 * index, 2 * index + 1)
    )
    text = {"caption": words, "verbs": verbs, "nouns": nouns}
    uid = self._uids[self._video[index]]
    return self._footage.record(uid, *map(float, (self._start[index], self._end[index])), text=text)


def read_egoclip(folder: Path, footage: Footage) -> EgoClip:
  """Reads egoclip.csv, minutes for all of it; what cannot be used is counted and told.

  Raises:
    UserError: nothing of it can be used, or it has no such columns.
  """
  file = files.needed_file(folder, FILE)
  verbs = class_count(folder, "verbs", narration.VERBS)
  nouns = class_count(folder, "nouns", narration.NOUNS)
  tally, columns = Tally("narrations"), _Columns()
  for place, values in files.read_tsv(file, COLUMNS, tally.malformed):
    uid, duration, time, start, end, words, verb, noun = values
    at, clip = seconds(time), span(start, end)
    words, tags = tidy(words), (class_numbers(verb, verbs), class_numbers(noun, nouns))
    if not uid:
      tally.malformed(place, "no video_uid")
    elif at is None or clip is None:
      tally.malformed(place, f"clip from {start!r} to {end!r} s, narrated at {time!r} s")
    elif not words:
      tally.malformed(place, "no clip_text")
    elif None in tags:
      tally.malformed(place, f"tag_verb {verb!r} below {verbs}, tag_noun {noun!r} below {nouns}")
    else:
      try:
        last = footage.check(uid, *clip, duration_of(duration))
      except Absent as error:
        tally.absent(place, error)
      else:
        columns.add(uid, (clip[0], last), at, words, tags)
  tally.tell(len(columns.video))
  taxonomy = {"nouns": nouns, "verbs": verbs}
  return EgoClip(f"{file} (train)", footage, columns, taxonomy)


def seconds(written: object) -> float | None:
  """A time from 0 on, or None."""
  try:
    value = float(written)
  except (TypeError, ValueError):
    return None
  return value if 0 <= value < math.inf else None


def span(start: object, end: object) -> tuple[float, float] | None:
  """The seconds of a clip, or None."""
  first, last = seconds(start), seconds(end)
  return None if first is None or last is None or first >= last else (first, last)


def duration_of(written: object) -> float:
  """The seconds of a video; infinite where they are not known."""
  found = seconds(written)
  return math.inf if found is None else found
