"""MSVD from its official files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import msvd
from vfe.errors import UserError

CAPTIONS = {f"{name}_1_5": [f"{name} one", f"{name} two"] for name in "abc"}
LISTS = {"train_list.txt": "a_1_5\n", "test_list.txt": "c_1_5\n"}
VIDEOS = [f"YouTubeClips/{name}.avi" for name in CAPTIONS]


def test_the_lists_split_it_and_validation_is_the_rest(make, config):
  folder = make({msvd.CAPTIONS: CAPTIONS} | LISTS, *VIDEOS)
  data = config("msvd", folder)
  train, validation = (sources.open_source(data, split) for split in ("train", "validation"))
  assert train[0].text == {"caption": "a one", "captions": ("a one", "a two")}
  assert [validation[i].text["caption"] for i in range(len(validation))] == ["b one"]
  make({"val_list.txt": "c_1_5\n"})
  assert msvd.list_msvd(str(folder)).splits["validation"][0].text["caption"] == "c one"


def test_the_lists_are_needed(make):
  with pytest.raises(UserError, match=r"holds no train_list\.txt or val_list\.txt or test_list"):
    msvd.list_msvd(str(make({msvd.CAPTIONS: CAPTIONS}, *VIDEOS)))


def test_the_official_files_have_the_published_counts(official):
  folder = official("msvd")
  splits = msvd.list_msvd(str(folder)).splits
  assert {split: len(entries) for split, entries in splits.items()} == {
    "train": 1_200, "validation": 100, "test": 670
  }
  assert sum(map(len, splits.values())) == 1_970
