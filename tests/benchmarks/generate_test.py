"""The benchmark of generation: what it times, how it counts, what it prints."""

import json
import math
import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import generate

from vfe.errors import UserError

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "language"


@pytest.fixture(scope="module")
def printed():
  """Of a model that takes a moment."""
  said = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(generate, "SECONDS", 0.0)
    patch.setattr("builtins.print", lambda line, flush=False: said.extend(line.split("\n")))
    generate.main(["--size=test", "--rows=2", "--prompt=5", "--words=3", "--choice=greedy"])
  return said


def test_a_way_of_choosing_has_a_line_with_the_cache_and_one_without(printed):
  head, *lines, last = printed
  assert all(line.count("|") == head.count("|") for line in lines)
  rows = json.loads(last)["rows"]
  assert [(row["choice"], row["cached"]) for row in rows] == [("greedy", True), ("greedy", False)]
  assert len(lines) == 2


def test_nothing_ends_a_text_and_only_top_p_draws():
  ways = generate.choices(7, 4)
  assert {name: (way.beams, way.temperature > 0) for name, way in ways.items()} == {
    "greedy": (1, False), "beam": (4, False), "top_p": (1, True)
  }  # fmt: skip
  assert all(way.words == 7 and way.eos == () for way in ways.values())


def test_the_words_are_those_without_the_cache_and_all_are_counted(printed):
  for row in json.loads(printed[-1])["rows"]:
    assert row["same"] == 1.0
    assert row["tokens_per_s"] == pytest.approx(2 * 3 / row["seconds"])
    assert row["gain"] > 0 and row["first_seconds"] > 0
    assert row["cached"] or row["gain"] == 1.0


@pytest.mark.parametrize("size, count", [("135m", 134_515_008), ("1b", 1_235_814_400)])
def test_shapes_are_the_published_ones(size, count):
  config, one = generate.SHAPES[size], np.zeros((1, 1), np.int32)
  module = generate.LanguageModel(config)
  shapes = jax.eval_shape(module.init, jax.random.key(0), one, one == 0)["params"]
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_a_folder_gives_the_shape(tmp_path):
  parse = lambda *flags: generate.shapes(generate._flags(flags))
  (found,) = parse(f"--folder={GOLDEN / 'gemma'}").items()
  assert found[0] == "gemma" and found[1].sandwich
  with pytest.raises(UserError, match=r"no config\.json in it"):
    parse(f"--folder={tmp_path}")
