"""What the readers of video-text data sets share: which videos are there, and what is left out."""

from __future__ import annotations

import functools
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfe.data.folder import VIDEO_SUFFIXES
from vfe.data.listing import SPLITS, Entry, Listing
from vfe.errors import UserError

_LIST = re.compile(r"\[\s*(\d+(?:\s*,\s*\d+)*)?\s*\]")


def choose_variant(source: str, variant: str | None, variants: Sequence[str] = ()) -> str:
  """`variant`, or the data set's first where none is chosen."""
  if variant and variant not in variants:
    there = f"choose one of {', '.join(variants)}" if variants else "it has none"
    raise UserError(f"data.variant={variant!r} is unknown to data.source='{source}' ({there}).")
  return variant or next(iter(variants), "")


class Clips:
  """The clips of a data set as they are read: those without a video or a text are counted.

  Videos lie anywhere below the data set's folder under the id that its files give them. YouTube
  takes videos down, so that some are missing is no fault; that all are, is.
  """

  def __init__(self, source: str, path: str) -> None:
    self.source, self.folder = source, Path(path)
    if not self.folder.is_dir():
      what = "is a file" if self.folder.exists() else "does not exist"
      raise UserError(f"data.path={path} {what}; data.source='{source}' wants a folder.")
    self._files = _video_files(self.folder)
    self._asked: dict[str, dict[str, bool]] = {}  # split -> names -> is there
    self._splits: dict[str, list[Entry]] = {}
    self._left_out, self._first_left_out = 0, ""

  def video(self, split: str, *names: str) -> str | None:
    """The path of the first of a video's names that is there; None, counted, where none is."""
    found = next((self._files[name] for name in names if name in self._files), None)
    self._asked.setdefault(split, {})[" or ".join(names)] = found is not None
    return found

  def file(self, split: str, path: str) -> str | None:
    """The same for a video named by its path from the folder on."""
    found = (self.folder / path).is_file()
    self._asked.setdefault(split, {})[path] = found
    return str(self.folder / path) if found else None

  def add(
    self,
    split: str,
    place: str,
    video: str,
    text: Any,
    span: tuple[Any, Any] | None = None,
    paragraph: bool = False,
    more: Mapping[str, Any] | None = None,
  ) -> None:
    """One clip: `text` is a sentence or a list of them, `span` its seconds as they are written.

    `captions` are all sentences and `caption` the first; of a paragraph, `caption` and `summary`
    are all of them joined. `more` are further texts.
    """
    sentences = text if isinstance(text, list | tuple) else [text]
    captions = tuple(words for sentence in sentences if (words := tidy(sentence)))
    start, end = map(_seconds, span) if span else (None, None)
    if not captions:
      self.leave_out(place, f"no text ({text!r:.60})")
    elif span and (start is None or end is None or start >= end):
      self.leave_out(place, f"start {span[0]!r} is not before end {span[1]!r}")
    else:
      joined = " ".join(captions)
      words = {"caption": joined, "summary": joined} if paragraph else {"caption": captions[0]}
      entry = Entry(place, video, start, end, text={**words, "captions": captions, **(more or {})})
      self._splits.setdefault(split, []).append(entry)

  def leave_out(self, place: str, why: str) -> None:
    """Counts a row that cannot be used."""
    self._left_out += 1
    self._first_left_out = self._first_left_out or f"{place}: {why}"

  def listing(self) -> Listing:
    """All that was added. Says in a line each how many videos are missing, and rows left out."""
    self._count_missing()
    if self._left_out:
      _say(f"{self._first_left_out}; left out, as are {self._left_out - 1:,} other rows.")
    if not self._splits:
      why = self._first_left_out or f"{self.folder}: its lists are empty"
      raise UserError(f"{why}; no clip of {self.source} can be used.")
    return Listing(str(self.folder), self._splits)

  def _count_missing(self) -> None:
    there = {name: found for names in self._asked.values() for name, found in names.items()}
    missing = [name for name, found in there.items() if not found]
    if not missing:
      return
    example = f"such as {missing[0]}"
    if Path(missing[0]).suffix.lower() not in VIDEO_SUFFIXES:
      example += " with .mp4, .mkv, .webm or .avi"
    if len(missing) == len(there):
      raise UserError(
        f"{self.folder}: neither it nor a folder below holds any of the {len(there):,} videos of "
        f"{self.source}, {example}."
      )
    splits = ", ".join(
      f"{split} {sum(not found for found in names.values()):,} of {len(names):,}"
      for split, names in self._asked.items()
    )
    _say(f"{self.folder}: missing videos, left out: {splits}; {example}.")


def tidy(sentence: Any) -> str:
  """A sentence without the blanks and line ends around and within it; '' for what is no text."""
  return " ".join(sentence.split()) if isinstance(sentence, str) else ""


def class_numbers(written: Any, count: int) -> tuple[int, ...] | None:
  """The numbers of a list as it is written, "[192, 115]", each once; None where it is none, or one
  is not below `count`."""
  found = _LIST.fullmatch(written.strip()) if isinstance(written, str) else None
  if not found:
    return None
  numbers = tuple(dict.fromkeys(map(int, found[1].split(",")))) if found[1] else ()
  return numbers if all(number < count for number in numbers) else None


def split_of(written: Any) -> str | None:
  """Our name of a split as data sets write it, or None where it is none."""
  names = {**SPLITS, "validate": "validation"}
  return names.get(written.strip().lower()) if isinstance(written, str) else None


def _seconds(value: Any) -> float | None:
  try:
    seconds = float(value)
  except (TypeError, ValueError):
    return None
  return seconds if 0 <= seconds < math.inf else None


def _video_files(folder: Path) -> dict[str, str]:
  """Name without suffix -> path, of all videos below; of two, the one nearer to the top."""
  found: dict[str, str] = {}
  for place, name in walk(folder):
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in VIDEO_SUFFIXES:
      found.setdefault(stem, os.path.join(place, name))
  return found


def walk(folder: Path) -> Iterator[tuple[str, str]]:
  """(folder, name) of every file below, also behind links, each folder once."""
  seen = {os.path.realpath(folder)}
  level = [str(folder)]
  while level:
    below = []
    for place in level:
      for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
        if not entry.is_dir():
          yield place, entry.name
        elif not entry.name.startswith(".") and (real := os.path.realpath(entry.path)) not in seen:
          seen.add(real)
          below.append(entry.path)
    level = below


@functools.cache
def _say(line: str) -> None:
  logging.warning("%s", line)
