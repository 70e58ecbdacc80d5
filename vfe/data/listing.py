"""What a folder or a manifest says of its videos, before labels become class numbers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from vfe.data.record import VideoRecord
from vfe.errors import UserError

# What people call their splits -> what we call them.
SPLITS = {
  "train": "train",
  "training": "train",
  "val": "validation",
  "valid": "validation",
  "validation": "validation",
  "eval": "validation",
  "test": "test",
  "testing": "test",
}

MOST_CLASSES = 100_000  # a larger class number is a date or an id in the wrong column


@dataclasses.dataclass(frozen=True)
class Entry:
  """One clip as it was written down. `place` is where: "labels.csv, line 12"."""

  place: str
  path: str
  start: float | None = None  # seconds
  end: float | None = None
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # head -> as written
  text: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def record(self, heads: Mapping[str, Classes]) -> VideoRecord:
    clip = "" if self.start is None and self.end is None else f" [{self.start}, {self.end}) s"
    return VideoRecord(
      name=self.path + clip,
      path=self.path,
      start=self.start,
      end=self.end,
      labels={
        head: classes.number(self.labels.get(head), self.place, head)
        for head, classes in heads.items()
      },
      text=self.text,
    )


@dataclasses.dataclass(frozen=True)
class Listing:
  """The entries of every split, in the order of the file; one split "train" when none is named.

  `classes` holds the class names that were given beside the list (classes.txt), by head.
  """

  place: str
  splits: Mapping[str, Sequence[Entry]]
  classes: Mapping[str, Classes] = dataclasses.field(default_factory=dict)

  def for_evaluation(self) -> Sequence[Entry]:
    """The entries of a list given for evaluation: its validation split, or test, or train."""
    there = [name for name in ("validation", "test", "train") if name in self.splits]
    return self.splits[there[0]]

  def heads(self) -> dict[str, Classes]:
    """The classes of every label head: as given, or else those of the training split."""
    entries = self.splits.get("train") or next(iter(self.splits.values()))
    names = entries[0].labels
    return {
      head: self.classes.get(head) or Classes.of_labels(entries, head, self.place)
      for head in names
    }


@dataclasses.dataclass(frozen=True)
class Classes:
  """Class names by class number, and where they are from ("classes.txt", "the training split")."""

  names: tuple[str, ...]
  origin: str
  numbered: bool = False  # the labels are written as class numbers

  @classmethod
  def of_labels(cls, entries: Sequence[Entry], head: str, place: str) -> Classes:
    """Sorted distinct labels; labels that are all integers are class numbers from 0 on."""
    written = {entry.labels[head] for entry in entries}
    if not all(_is_integer(label) for label in written):
      return cls(tuple(sorted(written)), "the training split")
    highest = max(int(label) for label in written)
    if highest >= MOST_CLASSES:
      raise UserError(
        f"{place}: class number {highest} of head '{head}' is not one (numbers go from 0 to the "
        f"number of classes - 1); give names, or choose the columns with data.heads."
      )
    return cls(tuple(str(i) for i in range(highest + 1)), "the training split", numbered=True)

  def number(self, label: str | None, place: str, head: str) -> int:
    """The class number of a label as it was written: a name, or a number."""
    if label is None:
      raise UserError(f"{place}: there is no {head}, which the training clips have.")
    if not self.numbered and label in self._numbers:
      return self._numbers[label]
    if _is_integer(label):
      if 0 <= int(label) < len(self.names):
        return int(label)
      raise UserError(
        f"{place}: {head} {label} is out of range: {self.origin} has {len(self.names)} classes, "
        f"numbered 0 to {len(self.names) - 1}."
      )
    raise UserError(f"{place}: {head} '{label}' is not in {self.origin} {self._near(label)}.")

  @property
  def _numbers(self) -> Mapping[str, int]:
    if "_table" not in self.__dict__:
      object.__setattr__(self, "_table", {name: i for i, name in enumerate(self.names)})
    return self.__dict__["_table"]

  def _near(self, label: str) -> str:
    return f"({len(self.names)} classes{nearest(label, self.names)})"


def nearest(word: str, words: Sequence[str]) -> str:
  """'; nearest: ...' for the word of `words` that `word` was most likely meant to be, or ''."""
  lowered = {other.lower(): other for other in words}
  found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.4)
  return f"; nearest: '{lowered[found[0]]}'" if found else ""


def _is_integer(label: str) -> bool:
  return label.isascii() and label.removeprefix("-").isdigit()
