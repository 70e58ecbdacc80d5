"""MSR-VTT from its official files."""

import csv

import pytest

from vfe.data import sources
from vfe.data.captioned import msrvtt
from vfe.errors import UserError

IDS = ["video0", "video1", "video2", "video3"]
WHOLE = {
  "videos": [
    {"video_id": name, "split": split}
    for name, split in zip(IDS, ["train", "train", "validate", "test"], strict=True)
  ],
  "sentences": [
    {"video_id": name, "caption": f" {words} {name}"} for name in IDS for words in ("a", "b")
  ],
}
PAIRS = "key,vid_key,video_id,sentence\nret0,msr3,video3,a cat\nret1,msr9,video9,gone\n"
VIDEOS = [f"videos/all/{name}.mp4" for name in IDS]


def counts(listing):
  return {split: len(entries) for split, entries in listing.splits.items()}


def test_1k_a_trains_on_all_captions_and_tests_on_one(make, config):
  files = {msrvtt.WHOLE: WHOLE, msrvtt.PAIRS: PAIRS, msrvtt.TRAIN["1k-A"]: "video_id\nvideo0\n"}
  data = config("msrvtt", make(files, *VIDEOS))
  train = sources.open_source(data, "train")
  assert len(train) == 1 and train[0].path == str(make({}) / VIDEOS[0])
  assert train[0].text == {"caption": "a video0", "captions": ("a video0", "b video0")}
  assert (train.heads, train[0].start, train[0].end) == ({}, None, None)
  test = sources.open_source(data, "validation")
  assert [test[i].text for i in range(len(test))] == [{"caption": "a cat", "captions": ("a cat",)}]


def test_1k_a_is_evaluated_without_the_json(make, config):
  data = config("msrvtt", make({msrvtt.PAIRS + ".gz": PAIRS}, "video3.webm"))
  assert len(sources.open_source(data, "validation")) == 1
  with pytest.raises(UserError, match="holds no train split"):
    sources.open_source(data, "train")


def test_7k_is_another_list(make, config):
  files = {msrvtt.WHOLE: WHOLE, msrvtt.PAIRS: PAIRS}
  folder = make(files | {msrvtt.TRAIN["1k-A-7k"]: "video_id\nvideo0\nvideo1\n"}, *VIDEOS)
  assert len(sources.open_source(config("msrvtt", folder, "1k-A-7k"), "train")) == 2


def test_the_full_split_is_that_of_the_json_or_of_the_lists(make):
  folder = make({msrvtt.WHOLE: WHOLE}, *VIDEOS)
  assert counts(msrvtt.list_msrvtt(str(folder), "full")) == {"train": 2, "validation": 1, "test": 1}
  for split, name in msrvtt.FULL.items():
    make({name: "video_id\n" + ("video3\n" if split == "train" else "video0\n")})
  listing = msrvtt.list_msrvtt(str(folder), "full")
  assert counts(listing) == {"train": 1, "validation": 1, "test": 1}
  assert listing.splits["train"][0].place == f"{folder}/MSRVTT_train.full.csv, line 2"


def test_the_two_parts_of_the_first_release_do_as_well(make):
  train = {key: rows[:-1] if key == "videos" else rows for key, rows in WHOLE.items()}
  test = {"videos": WHOLE["videos"][-1:], "sentences": []}
  folder = make(dict(zip(msrvtt.PARTS, (train, test), strict=True)), *VIDEOS)
  assert counts(msrvtt.list_msrvtt(str(folder), "full")) == {"train": 2, "validation": 1, "test": 1}


def test_malformed_rows_are_counted_and_the_first_is_named(make, caplog):
  rows = {"videos": [{"video_id": "video0"}, 3, *WHOLE["videos"]], "sentences": WHOLE["sentences"]}
  msrvtt.list_msrvtt(str(make({msrvtt.WHOLE: rows}, *VIDEOS)), "full")
  assert "MSRVTT_data.json, video 1: no video_id or split; left out, as are 1 other" in caplog.text


def test_another_json_is_refused(make):
  folder = make({msrvtt.WHOLE: [1]}, *VIDEOS)
  with pytest.raises(UserError, match=r"MSRVTT_data\.json: not an object with the lists 'vid"):
    msrvtt.list_msrvtt(str(folder), "full")
  with pytest.raises(UserError, match=r"'1k' is unknown .* \(choose one of 1k-A, 1k-A-7k, full\)"):
    msrvtt.list_msrvtt(str(folder), "1k")


def test_the_official_lists_have_the_published_counts(official, make):
  folder = official("msrvtt")
  names = [f"video{number}" for number in range(10_000)]
  make({
    msrvtt.WHOLE: {"videos": [], "sentences": [{"video_id": n, "caption": n} for n in names]}
  })
  listing = msrvtt.list_msrvtt(str(folder))
  assert counts(listing) == {"train": 9_000, "test": 1_000}
  with (folder / msrvtt.PAIRS).open() as file:
    assert [e.text["caption"] for e in listing.splits["test"]] == [
      " ".join(row["sentence"].split()) for row in csv.DictReader(file)
    ]
  assert counts(msrvtt.list_msrvtt(str(folder), "1k-A-7k")) == {"train": 7_010, "test": 1_000}
  full = msrvtt.list_msrvtt(str(folder), "full")
  assert counts(full) == {"train": 6_513, "validation": 497, "test": 2_990}
