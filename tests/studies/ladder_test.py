"""The ladder study's machinery at minimal size; nothing is learned here."""

import math
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # studies/ is not installed

from studies import ladder, ladder_report, records
from studies.ladder_sizes import CONDITIONS, SIZES


def test_a_row_that_is_there_is_not_computed_again(tmp_path):
  study = ladder.Study("test", tmp_path, tmp_path / "encoders")
  study.run("pretrain", (1,))
  study.run("order", (1,))
  rows = records.read(study.path)
  assert [row["condition"] for row in rows] == ["pre-training", *CONDITIONS]
  assert all(math.isfinite(row.get("accuracy", row.get("loss"))) for row in rows)
  assert study.missing("pretrain", (0, 1)) == study.missing("order", (0, 1)) == (0,)
  study.run("order", (1,))
  assert records.read(study.path) == rows

  report = ladder_report.text(rows, "test", study.size)
  assert "| order | fine-tuned | 1 |" in report
  assert report.count("| 0 | not run |") == 2 * 3  # of the three other rungs


def test_seeds_in_one_program_are_the_seeds_alone():
  jnp = pytest.importorskip("jax.numpy")
  from studies.training import Schedule, make_trainer, seed_keys

  schedule = Schedule(steps=20, batch=4, rate=1e-2)
  loss = lambda params, rows, keys: jnp.mean((rows["x"] @ params["kernel"]) ** 2)
  data = {"x": np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)}
  params = {"kernel": jnp.ones((2, 3))}
  keys = seed_keys((0, 1), "test")
  together, _ = make_trainer(loss, schedule, 2)("both", params, data, keys)
  for seed in (0, 1):
    part = slice(seed, seed + 1)
    alone, _ = make_trainer(loss, schedule, 1)(
      "one", {"kernel": params["kernel"][part]}, {"x": data["x"][part]}, keys[part]
    )
    np.testing.assert_allclose(alone["kernel"][0], together["kernel"][seed], rtol=1e-5)


def test_words():
  same = {0: 0.50, 1: 0.52, 2: 0.48}
  better = {0: 0.70, 1: 0.73, 2: 0.69}
  assert records.verdict(better, same, floor=0.4) == "held"
  assert records.verdict(same, better, floor=0.4) == "not held"
  assert records.verdict({0: 0.52, 1: 0.50, 2: 0.49}, same, floor=0.4) == "within noise"
  assert records.verdict(better, same, floor=0.8) == "not shown at this size"
  assert records.verdict({}, same, floor=0.4) == "not run"
  assert records.verdict({0: 0.9}, {0: 0.1}, floor=0.4) == "within noise"  # of one seed
  mean, low, high = records.interval([0.1, 0.2, 0.3])
  assert mean == pytest.approx(0.2)
  assert high - mean == pytest.approx(4.303 * 0.1 / 3**0.5)
  assert mean - low == pytest.approx(high - mean)


def test_a_row_cut_short_is_no_row(tmp_path):
  path = tmp_path / "rows.jsonl"
  records.append(path, {"seed": 0})
  path.write_text(path.read_text() + '{"seed": 1, "acc')
  assert records.read(path) == [{"seed": 0}]


def test_gpu_masks_nine_tenths():
  size = SIZES["gpu"]
  assert 1 - size.visible_sites / size.layout.per_frame == pytest.approx(0.9, abs=0.002)
