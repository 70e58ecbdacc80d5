"""Sparse attention against dense, with few tokens of few heads."""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import sparse  # noqa: E402


def test_the_table_has_a_line_for_each_attention_and_length(capsys, monkeypatch):
  monkeypatch.setattr(sparse, "SIDE", 4)
  sparse.main(["--frames=2", "--random=1", "--block=8", "--heads=1", "--rounds=1"])
  head, *lines, last = capsys.readouterr().out.splitlines()
  assert len(lines) == 3 and all(line.count("|") == head.count("|") for line in lines)
  rows = {row["attention"]: row for row in json.loads(last)["rows"]}
  assert {name: row["pairs"] for name, row in rows.items()} == {
    "sparse 1,1": 0.5, sparse.DENSE: 1.0, sparse.UNBIASED: 1.0
  }  # fmt: skip
  assert all(row["tokens"] == 33 and row["temporary_bytes"] > 0 for row in rows.values())
  assert all(row["step_seconds"] > 0 and row["forward_seconds"] > 0 for row in rows.values())
