"""DiDeMo from its official files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import didemo
from vfe.errors import UserError

BUG = "26292851@N04_4253489686_265c3c8051.m4v"
DOG = "10015567@N08_3655084291_d8b58466fa"  # some have no suffix
CAT = "50300114@N00_5604822516_3a.avi"


def row(video, description):
  return {
    "annotation_id": 1, "video": video, "description": description, "times": [[4, 4], [0, 0]],
    "num_segments": 6, "dl_link": "https://example.org",
  }  # fmt: skip


TRAIN = [
  row(BUG, "someone kicks the bug."), row(DOG, " a dog\n"), row(BUG, "the bug flies"),
  row(CAT, " "), {"video": BUG}, "row",
]  # fmt: skip
FILES = {
  "train_data.json": TRAIN,
  "val_data.json": [row(DOG, "a dog")],
  "test_data.json.gz": [row(CAT, "a cat"), row("gone.mov", "gone")],
}
VIDEOS = (f"v/{BUG}.mp4", f"v/{DOG}.mp4", "v/50300114@N00_5604822516_3a.mkv")


def test_the_descriptions_of_a_video_are_its_paragraph(make, config, caplog):
  folder = make(FILES, *VIDEOS)
  train = sources.open_source(config("didemo", folder), "train")
  assert [(r.path, r.start, r.end, r.text["caption"]) for r in train] == [
    (f"{folder}/v/{BUG}.mp4", 0.0, 30.0, "someone kicks the bug. the bug flies"),
    (f"{folder}/v/{DOG}.mp4", 0.0, 30.0, "a dog"),
  ]
  assert train[0].text["captions"] == ("someone kicks the bug.", "the bug flies")
  assert train[0].text["summary"] == train[0].text["caption"]
  left_out = "train_data.json, row 4: no video with its description; left out, as are 2 other rows"
  missing = "left out: train 0 of 2, validation 0 of 1, test 1 of 2; such as gone.mov or gone with"
  assert left_out in caplog.text and missing in caplog.text


def test_all_of_a_video_is_a_variant(make):
  folder = make(FILES, *VIDEOS)
  (cat,) = didemo.list_didemo(str(folder), "full").splits["test"]
  assert (cat.start, cat.end) == (None, None) and cat.path.endswith("_3a.mkv")


def test_without_any_video_both_names_are_told(make):
  folder = make({"val_data.json": [row(BUG, "a bug")]}, "other.mp4")
  with pytest.raises(UserError, match=rf"such as {BUG} or {BUG[:-4]} with \.mp4, \.mkv"):
    didemo.list_didemo(str(folder))
