"""A list of your own videos: CSV with a header line, or JSON lines.

    path,label,start,end,split
    videos/a.mp4,jump,,,train
    videos/b.mp4,run,2.5,7.0,validation

`path` is needed; relative ones start at the manifest's folder, and those of a bucket (gs://) are
for `vfe.tools.prepare`. Label heads are the columns that `data.heads` names, or else `label` and
every `label_<head>`. `start` and `end` (seconds, either may be empty) cut a clip out of the video.
`split` is train, validation or test. All other columns are kept as the clip's text; `caption`,
`captions` and `summary` are a text each, or in JSON lines a list of texts. Class names are the
sorted distinct labels of the training split, or the lines of classes.txt (head `label`) or
classes_<head>.txt beside the manifest.
"""

from __future__ import annotations

import collections
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfe.data.listing import SPLITS, Classes, Entry, Listing, nearest
from vfe.data.record import is_url
from vfe.errors import UserError

_OURS = ("path", "start", "end", "split")
_LABEL = "label"
_CAPTIONS = ("caption", "captions", "summary")  # what `data.text.key` is most likely to name
_LOOKED_AT = 8  # so many paths are looked up before a whole manifest is believed


def list_manifest(path: str, heads: Sequence[str] | None = None) -> Listing:
  """Reads a local .csv or .jsonl manifest; `heads` names its label columns."""
  file = Path(path)
  if not file.is_file():
    what = "is a folder" if file.exists() else "does not exist"
    raise UserError(f"data.path={path} {what}; data.source='manifest' wants a .csv or .jsonl file.")
  if file.suffix.lower() not in _READERS:
    raise UserError(f"data.path={path}: a manifest ends in {' or '.join(_READERS)}.")
  splits: dict[str, list[Entry]] = {}
  for place, row in _READERS[file.suffix.lower()](file):
    split, entry = _entry(place, row, file.parent, heads)
    splits.setdefault(split, []).append(entry)
  if not splits:
    raise UserError(f"{file}: holds no videos; one line a clip, with at least a path.")
  _refuse_wrong_root(file, [entry for entries in splits.values() for entry in entries])
  found = next(iter(splits.values()))[0].labels
  return Listing(str(file), splits, _given_classes(file.parent, found))


def _read_csv(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
  with file.open(encoding="utf-8-sig", newline="") as text:
    lines = csv.reader(text)
    try:
      columns = [name.strip() for name in next(lines, [])]
      _check_header(file, columns)
      for values in lines:
        if not values:
          continue
        place = f"{file}, line {lines.line_num}"
        if len(values) != len(columns):
          raise UserError(
            f"{place}: {len(values)} values for {len(columns)} columns ({','.join(columns)}); "
            f"put a value that holds a comma in double quotes."
          )
        yield place, dict(zip(columns, values, strict=True))
    except UnicodeDecodeError as error:
      raise _not_utf8(file, error) from error
    except csv.Error as error:
      raise UserError(f"{file}, line {lines.line_num}: not CSV ({error}).") from error


def _check_header(file: Path, columns: list[str]):
  if not columns:
    raise UserError(f"{file}: is empty; its first line names the columns, such as path,label.")
  if "path" not in columns:
    separator = "" if len(columns) > 1 else "; columns are separated by commas"
    raise UserError(
      f"{file}, line 1: no column 'path' among {columns}{nearest('path', columns)}; the first line "
      f"names the columns, such as path,label{separator}."
    )
  twice = {name for name in columns if columns.count(name) > 1}
  if twice:
    raise UserError(f"{file}, line 1: column '{min(twice)}' is there twice.")


def _read_jsonl(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
  with file.open(encoding="utf-8-sig") as text:
    try:
      for number, line in enumerate(text, start=1):
        if not line.strip():
          continue
        place = f"{file}, line {number}"
        try:
          row = json.loads(line)
        except json.JSONDecodeError as error:
          raise UserError(f"{place}: not JSON ({error.msg}, column {error.colno}).") from error
        if not isinstance(row, dict):
          raise UserError(f'{place}: not an object such as {{"path": "a.mp4", "label": "jump"}}.')
        yield place, row
    except UnicodeDecodeError as error:
      raise _not_utf8(file, error) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Mapping[str, Any]]]]] = {
  ".csv": _read_csv,
  ".jsonl": _read_jsonl,
}


def _entry(
  place: str, row: Mapping[str, Any], folder: Path, heads: Sequence[str] | None
) -> tuple[str, Entry]:
  """The split of a row, and the row itself with its values checked."""
  if not isinstance(row.get("path"), str) or not row["path"].strip():
    raise UserError(f"{place}: no path; every line names a video file.")
  columns = _label_columns(place, row, heads)
  start, end = _seconds(place, row, "start"), _seconds(place, row, "end")
  if end is not None and (start or 0.0) >= end:
    raise UserError(f"{place}: start {start or 0.0:g} is not before end {end:g} (seconds).")
  entry = Entry(
    place=place,
    path=_path(folder, row["path"].strip()),
    start=start,
    end=end,
    labels={head: _label(place, row, column) for head, column in columns.items()},
    text={key: value for key, value in row.items() if key not in {*_OURS, *columns.values()}},
  )
  for name in _CAPTIONS:
    _check_caption(place, name, entry.text.get(name, ""))
  return _split(place, row), entry


def _path(folder: Path, written: str) -> str:
  return written if is_url(written) else str(folder / written)


def _label_columns(
  place: str, row: Mapping[str, Any], heads: Sequence[str] | None
) -> dict[str, str]:
  """head -> column. A column named label_verb is the head verb."""
  if not heads:
    named = [name for name in row if name == _LABEL or name.startswith(f"{_LABEL}_")]
    return {name.removeprefix(f"{_LABEL}_"): name for name in named}
  columns = {head: head if head in row else f"label_{head}" for head in heads}
  for head, column in columns.items():
    if column not in row:
      raise UserError(
        f"{place}: data.heads names '{head}', but there is no such column among "
        f"{list(row)}{nearest(head, list(row))}."
      )
  return columns


def _label(place: str, row: Mapping[str, Any], column: str) -> str:
  value = row[column]
  if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
    raise UserError(f"{place}: {column} {value!r} is neither a class name nor a class number.")
  return str(value).strip()


def _seconds(place: str, row: Mapping[str, Any], column: str) -> float | None:
  value = row.get(column)
  if value is None or value == "":
    return None
  try:
    seconds = float(value)
  except (TypeError, ValueError):
    seconds = math.nan
  if not 0 <= seconds < math.inf:
    raise UserError(f"{place}: {column} {value!r} is not a time in seconds from 0 on.")
  return seconds


def _check_caption(place: str, column: str, value: Any) -> None:
  for text in value if isinstance(value, list) else [value]:
    if text is not None and not isinstance(text, str):
      raise UserError(f"{place}: {column} {text!r} is not text; write a text, or a list of texts.")


def _split(place: str, row: Mapping[str, Any]) -> str:
  written = str(row.get("split") or "train").strip()
  if written.lower() not in SPLITS:
    raise UserError(f"{place}: split '{written}' is none of train, validation, test.")
  return SPLITS[written.lower()]


def _given_classes(folder: Path, heads: Mapping[str, str]) -> dict[str, Classes]:
  """Class names from classes.txt (head `label`, or the only head) and classes_<head>.txt."""
  given = {}
  for head in heads:
    names = [f"classes_{head}.txt"] + (["classes.txt"] if len(heads) == 1 else [])
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is not None:
      given[head] = _read_classes(file)
  return given


def _read_classes(file: Path) -> Classes:
  try:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
  except UnicodeDecodeError as error:
    raise _not_utf8(file, error) from error
  names = tuple(line for line in lines if line)
  twice = [name for name, count in collections.Counter(names).items() if count > 1]
  if twice or not names:
    problem = f"class '{twice[0]}' is there more than once" if twice else "is empty"
    raise UserError(f"{file}: {problem}; one class name a line, class 0 first.")
  return Classes(names, file.name)


def _refuse_wrong_root(file: Path, entries: Sequence[Entry]):
  """One missing video is a fault to be counted; if all that we look at are, the folder is wrong."""
  looked_at = entries[:: max(1, len(entries) // _LOOKED_AT)][:_LOOKED_AT]
  if not any(is_url(entry.path) or Path(entry.path).is_file() for entry in looked_at):
    raise UserError(
      f"{looked_at[0].place}: {looked_at[0].path} does not exist, nor does any other of the "
      f"{len(looked_at)} looked up; relative paths start at the manifest's folder, {file.parent}."
    )


def _not_utf8(file: Path, error: UnicodeDecodeError) -> UserError:
  byte = error.object[error.start]
  return UserError(
    f"{file}: byte 0x{byte:02x} is not UTF-8; convert it, for example "
    f"iconv -f latin1 -t utf-8 {file.name} > new{file.suffix}."
  )
