"""Diving48 V2 as its authors publish it: 48 classes of dives, no two told apart by a single frame.

    diving48/Diving48_vocab.json        [["Back", "15som", "05Twis", "FREE"], ...], class 0 first
    diving48/Diving48_V2_train.json     [{"vid_name", "label", "start_frame", "end_frame"}, ...]
    diving48/Diving48_V2_test.json      the same; either may be compressed, as .json.gz
    diving48/rgb/<vid_name>.mp4         or beside the lists

A video is one dive, so all of its frames are the clip. V2 has 15,027 training and 1,970 test clips
and one class (30) without any. The folder is local (or mounted).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfe.data.listing import Classes, Entry, Listing
from vfe.errors import UserError

VOCABULARY = "Diving48_vocab.json"
LISTS = {"train": "Diving48_V2_train.json", "test": "Diving48_V2_test.json"}


def list_diving48(path: str) -> Listing:
  """Reads the official files in a local folder; a list that is not there is a split that is not."""
  folder = Path(path)
  if not folder.is_dir():
    what = "is a file" if folder.exists() else "does not exist"
    raise UserError(f"data.path={path} {what}; data.source='diving48' wants a folder.")
  classes = read_vocabulary(folder)
  files = {split: _file(folder, name) for split, name in LISTS.items()}
  if files["train"] is None:
    raise UserError(f"{folder}: holds no {LISTS['train']} (nor .gz); see docs/data-at-scale.md.")
  videos = folder / "rgb" if (folder / "rgb").is_dir() else folder
  splits = {
    split: [_entry(place, row, videos, classes) for place, row in _rows(file)]
    for split, file in files.items()
    if file is not None
  }
  _refuse_wrong_folder(videos, splits["train"])
  return Listing(str(folder), splits, {"label": classes})


def read_vocabulary(folder: Path) -> Classes:
  """Class names such as "Back 15som 05Twis FREE": take-off, somersaults, twists, position."""
  file = _file(folder, VOCABULARY)
  if file is None:
    raise UserError(f"{folder}: holds no {VOCABULARY} (nor .gz), the names of the 48 classes.")
  names = []
  for place, row in _rows(file):
    if not (isinstance(row, list) and row and all(isinstance(word, str) for word in row)):
      raise UserError(f"{place}: {row!r} is not the four words of a class.")
    names.append(" ".join(word.strip() for word in row))
    if names[-1] in names[:-1]:
      raise UserError(f"{place}: class '{names[-1]}' is there twice.")
  return Classes(tuple(names), file.name)


def _file(folder: Path, name: str) -> Path | None:
  return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
  """The rows of a JSON list, each with its place ("list.json, row 12", counted from 1)."""
  try:
    data = file.read_bytes()
    rows = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
  except json.JSONDecodeError as error:
    raise UserError(f"{file}, line {error.lineno}: not JSON ({error.msg}).") from error
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise UserError(f"{file}: cannot be read ({error}); download it again.") from error
  if not isinstance(rows, list) or not rows:
    raise UserError(f"{file}: not a JSON list with a row a video.")
  for number, row in enumerate(rows, start=1):
    yield f"{file}, row {number}", row


def _entry(place: str, row: Any, videos: Path, classes: Classes) -> Entry:
  if not isinstance(row, Mapping):
    raise UserError(f"{place}: {row!r} is not an object with vid_name and label.")
  name, label = row.get("vid_name"), row.get("label")
  if not isinstance(name, str) or not name or "/" in name:
    raise UserError(f"{place}: vid_name {name!r} is not the name of a video.")
  last_class = len(classes.names) - 1
  if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= last_class:
    raise UserError(
      f"{place}: label {label!r} is not a class of {classes.origin} (0 to {last_class})."
    )
  first, last = _frame(place, row, "start_frame"), _frame(place, row, "end_frame")
  if first >= last:
    raise UserError(f"{place}: start_frame {first} is not before end_frame {last}.")
  return Entry(
    place=place,
    path=str(videos / f"{name}.mp4"),
    labels={"label": classes.names[label]},
    text={"start_frame": first, "end_frame": last},
  )


def _frame(place: str, row: Mapping[str, Any], key: str) -> int:
  value = row.get(key)
  if not isinstance(value, int) or isinstance(value, bool) or value < 0:
    raise UserError(f"{place}: {key} {value!r} is not a frame number.")
  return value


def _refuse_wrong_folder(videos: Path, entries: Sequence[Entry]) -> None:
  """One missing video is a fault to be counted; if all are, the folder is wrong."""
  if not any(Path(entry.path).is_file() for entry in entries):
    raise UserError(
      f"{videos}: holds none of the {len(entries)} training videos, such as "
      f"{Path(entries[0].path).name}; unpack the videos of Diving48 into it."
    )
