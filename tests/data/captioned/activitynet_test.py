"""ActivityNet Captions from its official files."""

from vfe.data import sources
from vfe.data.captioned import activitynet

TRAIN = {
  "v_QOlSCBRmfWY": {
    "duration": 82.73,
    "timestamps": [[0.83, 19.86], [61.29, 60.71], [56, 79.42]],
    "sentences": ["A woman dances.", " She\nturns. ", " She ends."],
  },
  "v_odd": {"duration": 1, "timestamps": [[0, 1]], "sentences": []},
  "v_none": 3,
}
VAL = {"v_--xyz": {"duration": 9, "timestamps": [[0, 9]], "sentences": ["A dog."]}}
FILES = {"train.json.gz": TRAIN, "val_1.json": VAL}
VIDEOS = ["videos/v_QOlSCBRmfWY.mp4", "videos/--xyz.mkv"]


def test_a_whole_video_has_its_sentences_as_a_paragraph(make, config, caplog):
  data = config("activitynet", make(FILES, *VIDEOS))
  train = sources.open_source(data, "train")
  assert len(train) == 1 and (train[0].start, train[0].end) == (None, None)
  assert train[0].text["summary"] == "A woman dances. She turns. She ends."
  assert train[0].text["captions"] == ("A woman dances.", "She turns.", "She ends.")
  assert "v_odd: no sentence for every timestamp; left out, as are 1 other rows" in caplog.text
  validation = sources.open_source(data, "validation")  # its file is named without v_
  assert validation[0].path.endswith("--xyz.mkv")


def test_a_missing_video_is_told_by_both_its_names(make, caplog):
  activitynet.list_activitynet(str(make(FILES, VIDEOS[0])))
  assert "train 0 of 1, validation 1 of 1; such as v_--xyz or --xyz with .mp4" in caplog.text


def test_every_span_is_a_clip_unless_it_ends_before_it_begins(make, config, caplog):
  train = sources.open_source(config("activitynet", make(FILES, *VIDEOS), "clips"), "train")
  assert [(train[i].start, train[i].end, train[i].text["caption"]) for i in range(2)] == [
    (0.83, 19.86, "A woman dances."), (56.0, 79.42, "She ends.")
  ]
  assert "v_QOlSCBRmfWY, span 2: start 61.29 is not before end 60.71; left out" in caplog.text


def test_the_official_files_have_the_published_counts(official, caplog):
  folder = official("activitynet_captions")
  whole = activitynet.list_activitynet(str(folder)).splits
  assert {split: len(entries) for split, entries in whole.items()} == {
    "train": 10_009, "validation": 4_917
  }
  assert [sum(len(e.text["captions"]) for e in entries) for entries in whole.values()] == [
    37_421, 17_505
  ]
  (folder / "val_1.json.gz").unlink()
  clips = activitynet.list_activitynet(str(folder), "clips").splits
  assert [len(entries) for entries in clips.values()] == [37_421 - 4]
  assert "as are 3 other rows" in caplog.text
