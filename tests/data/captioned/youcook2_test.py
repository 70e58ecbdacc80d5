"""YouCook2 from its official files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import files, youcook2
from vfe.errors import UserError


def video(subset, *steps):
  return {
    "duration": 90.5,
    "subset": subset,
    "recipe_type": "113",
    "annotations": [
      {"segment": list(span), "id": i, "sentence": words} for i, (*span, words) in enumerate(steps)
    ],
  }


DATABASE = {
  "GLd3aX16zBg": video("training", (30, 41, " cut  the bread"), (5, 9, "buy bread")),
  "-Hr8X2Wpmno": video("validation", (1, 2, "boil"), (3, 3, "nothing"), (4, 9, "serve")),
}
CSV = "end,start,task,text,video_id\n60,47,226,boil water,-Hr8X2Wpmno\n2,1,226,gone,xxx\n"
FILES = {youcook2.ANNOTATIONS + ".gz": {"database": DATABASE}, youcook2.PAIRS: CSV}
VIDEOS = ["raw_videos/training/113/GLd3aX16zBg.mkv", "raw_videos/validation/226/-Hr8X2Wpmno.mp4"]


def spans(source):
  return [(r.start, r.end, r.text["caption"]) for r in (source[i] for i in range(len(source)))]


def test_every_step_is_a_clip(make, config, caplog):
  data = config("youcook2", make(FILES, *VIDEOS))
  train = sources.open_source(data, "train")
  assert spans(train) == [(30, 41, "cut the bread"), (5, 9, "buy bread")]
  assert train[0].path.endswith(VIDEOS[0]) and "summary" not in train[0].text
  assert spans(sources.open_source(data, "validation")) == [(1, 2, "boil"), (4, 9, "serve")]
  assert "video -Hr8X2Wpmno, step 2: start 3 is not before end 3; left out" in caplog.text


def test_retrieval_validates_on_the_csv(make, config, caplog):
  data = config("youcook2", make(FILES, *VIDEOS), "retrieval")
  assert len(sources.open_source(data, "train")) == 2
  assert spans(sources.open_source(data, "validation")) == [(47, 60, "boil water")]
  assert "validation 1 of 2; such as xxx with .mp4" in caplog.text


def test_retrieval_needs_only_the_csv(make):
  listing = youcook2.list_youcook2(str(make({youcook2.PAIRS: CSV}, *VIDEOS)), "retrieval")
  assert list(listing.splits) == ["validation"]


def test_a_whole_video_has_its_sentences_in_order(make, config):
  train = sources.open_source(config("youcook2", make(FILES, *VIDEOS), "full"), "train")
  assert spans(train) == [(None, None, "buy bread cut the bread")]
  assert train[0].text["summary"] == train[0].text["caption"]
  assert train[0].text["captions"] == ("buy bread", "cut the bread")


def test_malformed_videos_are_counted(make, caplog):
  broken = {"a": 3, "b": video(["x"]), "c": video("training") | {"annotations": 1}}
  folder = make({youcook2.ANNOTATIONS: {"database": broken | DATABASE}}, *VIDEOS)
  assert len(youcook2.list_youcook2(str(folder), "full").splits["train"]) == 1
  assert "video a: no subset or annotations; left out, as are 2 other rows" in caplog.text


def test_another_json_is_refused(make):
  with pytest.raises(UserError, match=r"trainval\.json: not an object with 'database'"):
    youcook2.list_youcook2(str(make({youcook2.ANNOTATIONS: {"a": 1}}, *VIDEOS)))


def test_the_official_files_have_the_published_counts(official):
  folder = official("youcook2")
  database = files.read_json(folder / "youcookii_annotations_trainval.json.gz")["database"]
  listings = {
    variant: youcook2.list_youcook2(str(folder), variant).splits for variant in youcook2.VARIANTS
  }
  sizes = {
    variant: (len(splits["train"]), len(splits["validation"]))
    for variant, splits in listings.items()
  }
  assert sizes == {
    "clips": (10_337, 3_492), "retrieval": (10_337, 3_350), "full": (1_333, 457)
  }
  assert sum(sizes["clips"]) == 13_829
  for entry in listings["full"]["train"][:50]:
    row = database[entry.path.removesuffix(".mp4")]
    assert len(entry.text["captions"]) == len(row["annotations"])
