"""Ego4D's taxonomy of narrations: which words are the same noun, or the same verb.

    narration_noun_taxonomy.csv, narration_verb_taxonomy.csv: label,group
    ambulance,['ambulance']
    "adjust_(regulate,_increase/reduce,_change)","['adjust', 'change', ...]"

A class is a line, numbered from 0; EgoClip's tags are such numbers. There are commas in labels and
in groups, so that lines are taken apart at the bracket, quoted or not.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from vfe.data.captioned import files
from vfe.errors import UserError

FILES = {"nouns": "narration_noun_taxonomy.csv", "verbs": "narration_verb_taxonomy.csv"}


_LINE = re.compile(r'"?(.*?)"?,"?(\[.*\])"?')


@dataclasses.dataclass(frozen=True)
class Taxonomy:
  """Labels by class number, and the class of every word; of a word in two groups, the first."""

  labels: tuple[str, ...]
  classes: Mapping[str, int]


def read_taxonomy(file: Path) -> Taxonomy:
  """Reads one of the files. Raises UserError with the line of what is none."""
  labels: list[str] = []
  classes: dict[str, int] = {}
  lines = files.read_lines(file)
  place, header = next(lines, (f"{file}, line 1", ""))
  if header.replace('"', "").split(",") != ["label", "group"]:
    _refuse(place, f"columns {header!r:.60} are not label,group")
  for place, line in lines:
    found = _LINE.fullmatch(line)
    words = _words(found[2]) if found and found[1].strip() else None
    if words is None:
      _refuse(place, f"{line!r:.60} is no label with its group")
    for word in words:
      classes.setdefault(word, len(labels))
    labels.append(found[1].strip())
  if not labels:
    _refuse(str(file), "no classes")
  return Taxonomy(tuple(labels), classes)


def class_count(folder: Path, name: str, otherwise: int) -> int:
  """How many `nouns` or `verbs` there are: of the file where it is in the folder."""
  file = files.official_file(folder, FILES[name])
  return len(read_taxonomy(file).labels) if file else otherwise


def _words(written: str) -> list[str] | None:
  try:
    group = ast.literal_eval(written)
  except (ValueError, SyntaxError):
    return None
  fine = isinstance(group, list) and all(isinstance(word, str) for word in group)
  return group if fine else None


def _refuse(place: str, why: str) -> None:
  raise UserError(f"{place}: {why}; download the file again.")
