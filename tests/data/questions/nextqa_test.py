"""NExT-QA and NExT-OE from their official files."""

from collections import Counter

import pytest

from vfe.data import sources
from vfe.data.captioned import files
from vfe.data.questions import nextqa
from vfe.errors import UserError

MC = (
  "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
  "401,369,640,480,how do the men play,2,6,CH,roll it,tap,strum the string,hit,pat\n"
  "402,369,640,480,why,0,1,CW,a,b,c,d,e\n"
)
OE = (
  "video,frame_count,width,height,question,answer,qid,type\n"
  "401,462,640,480,how is it driven,from the cabin,3,CH\n"
)


def test_multiple_choice(make, config, caplog):
  folder = make({"val.csv": MC}, "NExTVideo/1164/401.mp4")
  source = sources.open_source(config("nextqa", folder), "validation")
  assert len(source) == 1 and "validation 1 of 2; such as 402" in caplog.text
  assert source[0].text == {
    "id": "401_6", "video": "401", "question": "how do the men play", "type": "CH", "answer": 2,
    "options": ("roll it", "tap", "strum the string", "hit", "pat"),
    "answers": ("strum the string",),
  }  # fmt: skip


def test_open_ended_with_the_second_answers_of_the_test(make, config):
  more = {"401": {"3": "by a man"}}
  folder = make({"train.csv": OE, "test.csv": OE, nextqa.MORE_ANSWERS: more}, "401.mp4")
  data = config("nextqa", folder, "oe")
  train, test = (sources.open_source(data, split)[0].text for split in ("train", "validation"))
  assert train["answers"] == ("from the cabin",)
  assert test["answers"] == ("from the cabin", "by a man") and "options" not in test


@pytest.mark.parametrize(("content", "variant", "other"), [(MC, "oe", "mc"), (OE, "mc", "oe")])
def test_the_other_kind_of_file_is_told(make, content, variant, other):
  folder = make({"val.csv": content}, "401.mp4")
  with pytest.raises(UserError, match=rf"val\.csv: its questions are .*data\.variant={other}"):
    nextqa.list_nextqa(str(folder), variant)


def test_rows_that_are_wrong_are_told_with_the_line(make):
  folder = make({"val.csv": MC.replace(",2,6,CH", ",5,6,CH")}, "401.mp4")
  with pytest.raises(UserError, match=r"val\.csv, line 2: answer '5' is not one of its 5 options"):
    nextqa.list_nextqa(str(folder))
  make({"val.csv": MC.replace("roll it,tap", "roll it,")})
  with pytest.raises(UserError, match=r"val\.csv, line 2: a question without options"):
    nextqa.list_nextqa(str(folder))


def test_the_official_files_have_the_published_counts(official):
  folder = official("nextqa")
  (folder / "val.csv").symlink_to(folder / "mc_val.csv")
  entries = nextqa.list_nextqa(str(folder)).splits["validation"]
  assert len(entries) == 4_996
  assert Counter(entry.text["type"] for entry in entries) == {
    "CW": 1924, "TN": 895, "CH": 683, "TC": 663, "DO": 305, "DL": 295, "DC": 177, "TP": 54
  }  # fmt: skip
  assert len({entry.text["id"] for entry in entries}) == 4_996
  assert {len(entry.text["options"]) for entry in entries} == {5}
  # Videos are found by their own names: every path of the map ends in one.
  paths = files.read_json(folder / "mc_map_vid_vidorID.json")
  assert all(path.endswith(f"/{video}") for video, path in paths.items())
  assert {entry.text["video"] for entry in entries} <= set(paths)


def test_the_official_open_ended_file_has_the_published_count(official):
  folder = official("nextqa")
  (folder / "val.csv").symlink_to(folder / "oe_val.csv")
  assert len(nextqa.list_nextqa(str(folder), "oe").splits["validation"]) == 5_343
