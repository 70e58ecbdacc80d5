"""VATEX from its official files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import vatex
from vfe.errors import UserError

TRAIN, VAL, TEST = "aaaaaaaaaaa_000000_000010", "bb_bbbbbbb-_000122_000132", "c_000001_000011"


def rows(*names):
  return [{"videoID": n, "enCap": [f"{n} {i}" for i in range(10)], "chCap": ["-"]} for n in names]


FILES = {
  vatex.OFFICIAL["train"]: rows(TRAIN),
  vatex.OFFICIAL["validation"] + ".gz": rows(VAL, TEST),
  "train_list.txt": f"{TRAIN}\n",
  "val_list.txt": f"{VAL}\n",
  "test_list.txt": f"{TEST}\n",
  "test1k5_sec_list.txt": f"{TEST}\n{VAL}\n",
}
VIDEOS = [f"val/{name}.mp4" for name in (TRAIN, VAL, TEST)]


def paths(listing):
  return {
    split: [entry.path.rsplit("/")[-1][:-4] for entry in entries]
    for split, entries in listing.splits.items()
  }


def test_the_lists_say_what_is_trained_on_and_the_json_what_is_said_of_it(make, config):
  folder = make(FILES, *VIDEOS)
  assert paths(vatex.list_vatex(str(folder))) == {
    "train": [TRAIN], "validation": [VAL], "test": [TEST]
  }
  train = sources.open_source(config("vatex", folder), "train")
  assert train[0].text["captions"] == tuple(f"{TRAIN} {i}" for i in range(10))
  assert train[0].text["caption"] == f"{TRAIN} 0"


def test_the_other_test_list_leaves_nothing_to_validate_on(make):
  listing = vatex.list_vatex(str(make(FILES, *VIDEOS)), "clip2video")
  assert paths(listing) == {"train": [TRAIN], "test": [TEST, VAL]}


def test_the_official_split_is_that_of_the_files(make):
  listing = vatex.list_vatex(str(make(FILES, *VIDEOS)), "official")
  assert paths(listing) == {"train": [TRAIN], "validation": [VAL, TEST]}


def test_rows_without_id_or_captions_are_counted(make, caplog):
  content = [{"enCap": ["x"]}, {"videoID": VAL}, 5, *rows(TRAIN)]
  folder = make({vatex.OFFICIAL["train"]: content, "train_list.txt": f"{TRAIN}\n{VAL}\n"}, *VIDEOS)
  assert paths(vatex.list_vatex(str(folder))) == {"train": [TRAIN]}
  assert "v1.0.json, row 1: no videoID; left out, as are 2 other rows" in caplog.text


def test_the_lists_are_needed_where_they_are_the_split(make):
  folder = make({vatex.OFFICIAL["train"]: rows(TRAIN)}, *VIDEOS)
  with pytest.raises(UserError, match=r"holds no train_list\.txt or val_list\.txt or test_list"):
    vatex.list_vatex(str(folder))


def test_the_official_lists_have_the_published_counts(official, make):
  folder = official("vatex")
  lists = ("train_list.txt", "val_list.txt", "test_list.txt")
  names = [name for file in lists for name in (folder / file).read_text().split()]
  make({vatex.OFFICIAL["train"]: [{"videoID": name, "enCap": [name]} for name in names]})
  listing = vatex.list_vatex(str(folder))
  assert {split: len(entries) for split, entries in listing.splits.items()} == {
    "train": 25_991, "validation": 1_500, "test": 1_500
  }
  (folder / "train_list.txt").unlink()
  assert len(vatex.list_vatex(str(folder), "clip2video").splits["test"]) == 1_500
