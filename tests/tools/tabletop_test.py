"""The tabletop world from the command line."""

import ast
import csv
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from vfe.data.tabletop import NOUNS, VERBS
from vfe.errors import UserError
from vfe.tools import tabletop

SMALL = ["--size=32", "--frames=64", "--count=2"]


def test_a_sheet_shows_the_videos_enlarged_with_their_captions(tmp_path):
  out = tmp_path / "sheet.png"
  tabletop.main(["sheet", f"--out={out}", "--columns=4", *SMALL])
  sheet = np.array(Image.open(out))
  assert sheet.shape[1] == 4 * (256 + tabletop.MARGIN) and sheet.shape[0] > 2 * 256
  assert sheet[:20].min() < 128  # there is text above the frames


@pytest.mark.parametrize("rung", ["appearance", "control", "all"])
def test_every_rung_has_a_line_of_labels(rung, tmp_path):
  tabletop.main(["sheet", f"--out={tmp_path / 'a.png'}", f"--rung={rung}", *SMALL])
  assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_cache_is_written_where_asked_and_its_manifest_printed(tmp_path, capsys):
  tabletop.main(["cache", f"--out={tmp_path}", "--rung=verb", *SMALL])
  manifest = pathlib.Path(capsys.readouterr().out.strip())
  assert len(manifest.read_text().splitlines()) == 2
  assert len(list(tmp_path.rglob("*.mp4"))) == 2


def test_annotations_are_a_file_a_task(tmp_path):
  flags = ["--size=32", "--frames=512", "--count=8", "--split=validation"]
  tabletop.main(["annotations", f"--out={tmp_path}", *flags])
  with (tmp_path / "egoclip.csv").open() as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
  for row in rows:
    verbs, nouns = ast.literal_eval(row["tag_verb"]), ast.literal_eval(row["tag_noun"])
    assert all(0 <= verb < len(VERBS) for verb in verbs)
    assert all(NOUNS[noun] in row["clip_text"] for noun in nouns)
  read = lambda name: json.loads((tmp_path / name).read_text())
  assert {item["types"] for item in read("egomcq.json").values()} == {1, 2}
  assert len(read("nlq.json")["videos"]) == len(read("captions.json")) == 8
  answers = read("answers.json")
  for question in read("questions.json"):
    assert "answer" not in question and 0 <= answers[question["q_uid"]] < 5
  assert len((tmp_path / "labels.csv").read_text().splitlines()) == 9
  assert "table" in (tmp_path / "vocabulary.txt").read_text().splitlines()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["sheet"], "needs --out"),
    (["sheet", "--out=a.png", "--count=0"], "--count=0"),
    (["cache", "--objects=many"], "--objects=many"),
    (["cache", "--rung=dance"], "--rung"),
    (["cache", "--rung=all"], "--rung=all"),
    (["cache", "--frames=7"], "frames=7"),
    (["sheet", "--out=/nowhere/a.png", *SMALL], "/nowhere/a.png"),
  ],
)
def test_wrong_flags_are_one_line(flags, said):
  with pytest.raises(UserError) as error:
    tabletop.main(flags)
  assert said in str(error.value) and "\n" not in str(error.value)
