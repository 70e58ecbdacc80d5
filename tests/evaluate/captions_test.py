"""Captions are scored as pycocoevalcap scores them; golden/make_captions.py says how."""

import csv
import json
import logging
import pathlib
import random
import shutil
import sys

import numpy as np
import pytest

from vfe.data.record import VideoRecord
from vfe.errors import UserError
from vfe.evaluate import captions
from vfe.evaluate.captions import Captions, Scores, caption_scores

GOLDEN = json.loads(
  (pathlib.Path(__file__).parents[1] / "golden" / "captions.json").read_text(encoding="utf-8")
)
REFERENCES = GOLDEN["references"]


@pytest.fixture
def package():
  return pytest.importorskip("pycocoevalcap.bleu.bleu", reason="needs vfe's extra [captions]")


@pytest.fixture
def without_java(monkeypatch):
  monkeypatch.setattr(captions, "_has_java", lambda: False)


@pytest.mark.parametrize("name", GOLDEN["scores"])
def test_without_java_scores_are_the_official_ones_where_words_are(name, package, without_java):
  found = caption_scores(REFERENCES, GOLDEN["candidates"][name])
  official = GOLDEN["scores"][name]
  assert found.pop("official") == 0.0 and found.keys() == official.keys() - {"METEOR"}
  assert found == pytest.approx({key: official[key] for key in found}, rel=1e-9, abs=1e-12)


@pytest.mark.slow  # METEOR reads its paraphrases for half a minute
def test_with_java_scores_are_the_official_ones(package):
  if not shutil.which("java"):
    pytest.skip("there is no Java")
  found = caption_scores(REFERENCES, GOLDEN["candidates"]["near"])
  assert found.pop("official") == 1.0
  assert found == pytest.approx(GOLDEN["scores"]["near"], rel=1e-9)


def test_extremes(package, without_java):
  perfect, none = (
    caption_scores(REFERENCES, GOLDEN["candidates"][name]) for name in ("perfect", "no_overlap")
  )
  assert perfect["BLEU-4"] == pytest.approx(1) and perfect["ROUGE-L"] == pytest.approx(1)
  assert max(none.values()) < 1e-6
  same = {name: [said] for name, said in GOLDEN["candidates"]["perfect"].items()}
  assert caption_scores(same, GOLDEN["candidates"]["perfect"])["CIDEr"] == pytest.approx(10)


def test_the_order_of_records_makes_no_difference(package, without_java):
  candidates = GOLDEN["candidates"]["near"]
  expected = caption_scores(REFERENCES, candidates)
  for seed in range(3):
    mixed, other = (random.Random(seed + k).sample(sorted(candidates), 6) for k in (0, 9))
    found = caption_scores({n: REFERENCES[n] for n in mixed}, {n: candidates[n] for n in other})
    assert found == pytest.approx(expected, rel=1e-12)


def test_no_java_is_said(package, without_java, caplog):
  captions._say_not_official.cache_clear()
  with caplog.at_level(logging.WARNING):
    caption_scores(REFERENCES, GOLDEN["candidates"]["near"])
  assert "NOT OFFICIALLY" in caplog.text


def test_what_cannot_be_scored_is_refused(package, without_java):
  with pytest.raises(ValueError, match=r"needs references.*: b\."):
    caption_scores({"a": ["x"]}, {"a": "x", "b": "y"})
  with pytest.raises(ValueError, match="no references"):
    caption_scores({"a": []}, {"a": "x"})
  with pytest.raises(UserError, match="No reference has a word"):
    caption_scores({"a": ["..."]}, {"a": "x"})
  assert np.isnan(caption_scores({}, {})["CIDEr"])


def test_without_the_package_its_pip_line_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[captions\]'"):
    caption_scores(REFERENCES, GOLDEN["candidates"]["near"])


def test_a_java_that_does_not_run_is_told():
  class Silent:
    def tokenize(self, rows):
      return {next(iter(rows)): [""]}

  class Gone:
    def tokenize(self, rows):
      raise PermissionError("read-only")

  for tokenizer, match in ((Silent, "java does not run; repair it"), (Gone, "work .read-only.;")):
    with pytest.raises(UserError, match=match):
      captions._official_words(tokenizer, REFERENCES)
  with pytest.raises(UserError, match="METEOR cannot be computed: java fails"):
    captions._meteor(_NoMeteor, {}, {})


class _NoMeteor:
  def compute_score(self, truth, found):
    return float("")


class Videos:
  """Five clips, two of them of one video."""

  name, heads = "videos", {}

  def __len__(self):
    return 5

  def __getitem__(self, index):
    clip = f" [{index}, {index + 1}) s" if index < 2 else ""
    path = f"videos/{max(index, 1)}.mp4"
    text = {"captions": (f"reference {index}", "another"), "none": ()}
    return VideoRecord(name=path + clip, path=path, text=text)


def collect(collector, rows):
  """Batches of two rows (record, view, token ids), the last one padded."""
  for start in range(0, len(rows), 2):
    part = rows[start : start + 2]
    valid, part = np.arange(2) < len(part), (part * 2)[:2]
    ids = np.zeros((2, 4), np.int32)
    for i, (*_, tokens) in enumerate(part):
      ids[i, : len(tokens)] = tokens
    whole = lambda column, part=part: np.array([row[column] for row in part], np.int32)
    batch = {"valid": valid, "record": whole(0), "view": whole(1)}
    collector.collect({"ids": ids, "mask": ids > 0}, batch)


@pytest.fixture
def scored(monkeypatch):
  """What the collector asks to be scored; every caption gets 1 and 2."""
  asked = {}

  def score(references, candidates):
    asked.update(references=references, candidates=candidates)
    official = asked.get("official", 0.0)
    ones = [1.0] * len(candidates)
    return Scores({"CIDEr": 1.0, "official": official}, ones, [2 * one for one in ones])

  monkeypatch.setattr(captions, "score", score)
  return asked


def decode(ids):
  return " ".join(f"w{i}" for i in ids)


def test_the_first_view_counts_and_padding_does_not(scored, tmp_path):
  collector = Captions(Videos(), "captions", decode)
  collect(collector, [(3, 1, [9]), (3, 0, [1, 2]), (0, 0, []), (2, 0, [5]), (2, 1, [6])])
  metrics = collector.finish(None)
  assert scored["candidates"] == {"0": "", "2": "w5", "3": "w1 w2"}
  assert scored["references"]["2"] == ("reference 2", "another")
  assert metrics == {"CIDEr": 1.0, "official": 0.0, "clips": 3.0, "clips_missing": 2.0}


def test_files_are_coco_results_and_a_table_that_says_not_official(scored, tmp_path):
  collector = Captions(Videos(), "captions", decode)
  collect(collector, [(record, 0, [record + 1]) for record in range(2, 5)])
  collector.finish(tmp_path)
  assert json.loads((tmp_path / "captions.json").read_text()) == [
    {"image_id": "2", "caption": "w3"}, {"image_id": "3", "caption": "w4"},
    {"image_id": "4", "caption": "w5"},
  ]  # fmt: skip
  rows = list(csv.reader((tmp_path / "captions.not_official.csv").open()))
  assert rows[0] == [
    "name", "caption", "CIDEr (not official)", "ROUGE-L (not official)", "references"
  ]  # fmt: skip
  assert rows[1] == ["videos/2.mp4", "w3", "1.000000", "2.000000", "reference 2|another"]
  scored["official"] = 1.0
  collector.finish(tmp_path)
  assert sorted(file.name for file in tmp_path.iterdir()) == ["captions.csv", "captions.json"]
  assert next(csv.reader((tmp_path / "captions.csv").open()))[2] == "CIDEr"


def test_clips_of_one_video_keep_their_records_names(scored, tmp_path):
  collector = Captions(Videos(), "captions", decode)
  collect(collector, [(record, 0, [7]) for record in range(3)])
  collector.finish(tmp_path)
  ids = [row["image_id"] for row in json.loads((tmp_path / "captions.json").read_text())]
  assert ids == ["videos/1.mp4 [0, 1) s", "videos/1.mp4 [1, 2) s", "videos/2.mp4"]


def test_a_clip_without_references_is_told(scored):
  collector = Captions(Videos(), "none", decode)
  collect(collector, [(2, 0, [7])])
  with pytest.raises(UserError, match=r"videos/2\.mp4: no 'none' to measure its caption by"):
    collector.finish(None)
