"""Official annotation files: each as it is published, or compressed, as <name>.gz.

A file that cannot be read as a whole is an error; a row that is wrong is its reader's to count.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vfe.errors import UserError

_KEY = re.compile(r'\s*("(?:[^"\\]|\\.)*")\s*:\s*')
_AFTER = re.compile(r"\s*(?:,|(?=}))")
_CHUNK = 1 << 22  # characters
_LONGEST = 1 << 26  # a member of an object that is longer is none


def official_file(folder: Path, name: str) -> Path | None:
  """The file of this name in the folder, compressed or not, or None."""
  return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def needed_file(folder: Path, *names: str) -> Path:
  """The first of these files that is there. Raises UserError where none is."""
  found = (file for name in names if (file := official_file(folder, name)))
  file = next(found, None)
  if file is None:
    wanted = " or ".join(names)
    raise UserError(f"{folder}: holds no {wanted} (nor .gz); docs/video-text.md says which files.")
  return file


def read_json(file: Path) -> Any:
  """All of a JSON file."""
  with _faults_of(file), _open(file) as text:
    return json.load(text)


def read_rows(file: Path) -> Iterator[tuple[str, Any]]:
  """The rows of a JSON list, each with its place ("list.json, row 12", counted from 1)."""
  rows = read_json(file)
  if not isinstance(rows, list):
    raise UserError(f"{file}: not a JSON list with a row a video.")
  for number, row in enumerate(rows, start=1):
    yield f"{file}, row {number}", row


def read_members(file: Path) -> Iterator[tuple[str, Any]]:
  """The members of a JSON object, read one after another: HowTo100M's has gigabytes of them."""
  decoder, buffer, at, line, chunk = json.JSONDecoder(), "", 1, 1, _CHUNK
  with _faults_of(file), _open(file) as text:
    while not buffer and (more := text.read(chunk)):
      buffer = more.lstrip()
    if not buffer.startswith("{"):
      raise UserError(f"{file}: not a JSON object with a member a video.")
    while True:
      member = _member(decoder, buffer, at)
      if member is not None:
        key, value, end = member
        yield key, value
        line += buffer.count("\n", at, end)
        at, chunk = end, _CHUNK
        continue
      buffer, at = buffer[at:], 0
      if buffer.lstrip().startswith("}"):
        return
      more = text.read(chunk)
      if not more or len(buffer) > _LONGEST:
        raise UserError(f"{file}, line {line}: not JSON from here on; download it again.")
      buffer, chunk = buffer + more, 2 * chunk


def _member(decoder: json.JSONDecoder, buffer: str, at: int) -> tuple[str, Any, int] | None:
  """(key, value, where the next begins, or the end), or None: not all of it is there yet."""
  key = _KEY.match(buffer, at)
  if key is None:
    return None
  try:
    value, end = decoder.raw_decode(buffer, key.end())
  except json.JSONDecodeError:
    return None
  after = _AFTER.match(buffer, end)
  return after and (json.loads(key[1]), value, after.end())


def read_csv(
  file: Path, columns: Sequence[str], leave_out: Callable[[str, str], None]
) -> Iterator[tuple[str, dict[str, str]]]:
  """The rows under a header line that has at least these columns, each with its place.

  `leave_out(place, why)` is told of lines with more or fewer values than the header.
  """
  rows = read_values(file)
  place, names = next(rows, (f"{file}, line 1", []))
  header = [name.strip() for name in names]
  if missing := [name for name in columns if name not in header]:
    raise UserError(f"{place}: no column '{missing[0]}' among {header}.")
  for place, values in rows:
    if len(values) != len(header):
      leave_out(place, f"{len(values)} values for {len(header)} columns")
    else:
      yield place, dict(zip(header, values, strict=True))


def read_values(file: Path) -> Iterator[tuple[str, list[str]]]:
  """The values of every line of a CSV file that has some, with its place ("a.csv, line 3")."""
  with _faults_of(file), _open(file) as text:
    lines = csv.reader(text)
    try:
      for values in lines:
        if values:
          yield f"{file}, line {lines.line_num}", values
    except csv.Error as error:
      raise UserError(f"{file}, line {lines.line_num}: not CSV ({error}).") from error


def read_tsv(
  file: Path, columns: Sequence[str], leave_out: Callable[[str, str], None]
) -> Iterator[tuple[str, list[str]]]:
  """The values of these columns in every line under a header, tabs between them, with its place.

  A line is a row, whatever quotes are in it, so that a stray one takes no others with it; quotes
  around a value are taken off. `leave_out(place, why)` is told of lines with more or fewer values
  than the header.
  """
  with _faults_of(file), _open(file) as text:
    header = [_unquoted(name).strip() for name in text.readline().rstrip("\r\n").split("\t")]
    if missing := [name for name in columns if name not in header]:
      raise UserError(f"{file}, line 1: no column '{missing[0]}' among {header}.")
    wanted = [header.index(name) for name in columns]
    for number, line in enumerate(text, start=2):
      values = line.rstrip("\r\n").split("\t")
      if len(values) == len(header):
        yield f"{file}, line {number}", [_unquoted(values[i]) for i in wanted]
      elif line.strip():
        leave_out(f"{file}, line {number}", f"{len(values)} values for {len(header)} columns")


def _unquoted(value: str) -> str:
  quoted = len(value) > 1 and value[0] == value[-1] == '"'
  return value[1:-1].replace('""', '"') if quoted else value


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
  """The lines of a text file that are not blank, stripped, each with its place."""
  with _faults_of(file), _open(file) as text:
    for number, line in enumerate(text, start=1):
      if line.strip():
        yield f"{file}, line {number}", line.strip()


def _open(file: Path) -> io.TextIOBase:
  if file.suffix == ".gz":
    return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
  return file.open(encoding="utf-8-sig", newline="")


@contextlib.contextmanager
def _faults_of(file: Path) -> Iterator[None]:
  try:
    yield
  except json.JSONDecodeError as error:
    raise UserError(f"{file}, line {error.lineno}: not JSON ({error.msg}).") from error
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise UserError(f"{file}: cannot be read ({error}); download it again.") from error
