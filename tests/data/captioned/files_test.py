"""Reading official files, compressed or not, and what is said of broken ones."""

import gzip
import io
import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.data.captioned import files
from vfe.errors import UserError

MEMBERS = {"a": [1, {"b}": "\u00e9\"\\"}], "-_c": "x,\n", "": None, "d": -1.5e3, "e": {}}
values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
  lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
  max_leaves=9,
)


@settings(max_examples=40, deadline=None)
@given(
  st.dictionaries(st.text(max_size=5), values, max_size=5),
  st.integers(1, 40),
  st.sampled_from([None, 2]),
)
def test_members_of_an_object_are_those_of_json_wherever_the_file_is_cut(content, chunk, indent):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, "_CHUNK", chunk)
    text = "\n " + json.dumps(content, indent=indent) + "\n"
    patch.setattr(files, "_open", lambda file: io.StringIO(text))
    assert list(files.read_members(pathlib.Path("a.json"))) == list(content.items())


def test_a_compressed_file_is_read_like_the_file(make):
  folder = make({"a.json.gz": MEMBERS, "rows.json": [1, 2], "ids.txt": "\ufeffx\n\n y \n"})
  file = files.needed_file(folder, "none.json", "a.json")
  assert file.name == "a.json.gz" and dict(files.read_members(file)) == MEMBERS
  assert files.read_json(file) == MEMBERS
  assert list(files.read_rows(folder / "rows.json")) == [
    (f"{folder}/rows.json, row 1", 1), (f"{folder}/rows.json, row 2", 2)
  ]
  assert list(files.read_lines(folder / "ids.txt")) == [
    (f"{folder}/ids.txt, line 1", "x"), (f"{folder}/ids.txt, line 3", "y")
  ]


def test_rows_of_a_table_go_by_its_header_and_malformed_lines_are_told(make):
  folder = make({"a.csv": 'end, start,text\n1,0,"a, b"\n2,1\n\n3,2,c\n'})
  told = []
  rows = list(files.read_csv(folder / "a.csv", ("start", "text"), lambda *row: told.append(row)))
  assert [row for _, row in rows] == [
    {"end": "1", "start": "0", "text": "a, b"}, {"end": "3", "start": "2", "text": "c"}
  ]
  assert rows[1][0] == f"{folder}/a.csv, line 5"
  assert told == [(f"{folder}/a.csv, line 3", "2 values for 3 columns")]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ('{"a": 1,\n"b": [1,\n', r"a\.json, line 1: not JSON from here on; download it again"),
    ('{"a": 1\n, "b" 3}', r"a\.json, line 2: not JSON"),
    ('{"a": 1,\n\n"b": 3,', r"a\.json, line 3: not JSON"),
    ("[1]", r"a\.json: not a JSON object with a member a video"),
    ("", r"a\.json: not a JSON object"),
  ],
)
def test_an_object_that_is_none_is_named(make, content, message):
  file = make({"a.json": content}) / "a.json"
  with pytest.raises(UserError, match=message):
    list(files.read_members(file))


def test_broken_files_are_named(make):
  folder = make({"a.json": "[\n{]", "b.csv": "", "c.csv": "id\nx\n", "d.json": "{}"})
  (folder / "e.json.gz").write_bytes(gzip.compress(b"{" + b" " * 999)[:-9])
  (folder / "f.csv").write_bytes(b"video_id\n\xff\n")
  for read, message in (
    (lambda: files.read_json(folder / "a.json"), r"a\.json, line 2: not JSON"),
    (lambda: list(files.read_rows(folder / "d.json")), r"d\.json: not a JSON list with a row"),
    (lambda: files.read_json(folder / "e.json.gz"), r"e\.json\.gz: cannot be read .*download it"),
    (lambda: list(files.read_members(folder / "e.json.gz")), r"e\.json\.gz: cannot be read"),
    (lambda: list(files.read_csv(folder / "b.csv", ("id",), print)), r"line 1: no column 'id' amo"),
    (lambda: list(files.read_csv(folder / "c.csv", ("text",), print)), r"'text' among \['id'\]"),
    (lambda: list(files.read_csv(folder / "f.csv", ("video_id",), print)), r"f\.csv: cannot be"),
    (lambda: files.needed_file(folder, "x.json", "y"), r"holds no x\.json or y \(nor \.gz\)"),
  ):
    with pytest.raises(UserError, match=message):
      read()


def test_a_line_between_tabs_is_a_row_whatever_quotes_are_in_it(make):
  lines = ["no\tb\t\"a\"", "1\t\"x \"\"y\"\" \"\t2", "2\t\"\t3", "3\t4", "", "4\t\t", "5\t6\t7\t8"]
  folder, told = make({"a.tsv": "\r\n".join(lines)}), []
  rows = list(files.read_tsv(folder / "a.tsv", ("a", "b"), lambda *row: told.append(row)))
  assert [values for _, values in rows] == [["2", 'x "y" '], ["3", '"'], ["", ""]]
  assert [place.rpartition(" ")[2] for place, _ in rows] == ["2", "3", "6"]
  assert told == [
    (f"{folder}/a.tsv, line 4", "2 values for 3 columns"),
    (f"{folder}/a.tsv, line 7", "4 values for 3 columns"),
  ]
  with pytest.raises(UserError, match=r"a\.tsv, line 1: no column 'c' among \['no', 'b', 'a'\]"):
    list(files.read_tsv(folder / "a.tsv", ("c",), print))
