"""EPIC-Kitchens-100's retrieval files."""

import csv

import pytest

from vfe.data import sources
from vfe.data.captioned import epic_kitchens

HEADER = (
  "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,"
  "all_noun_classes"
)
TEST = f"""{HEADER}
P01_1,P01,P01_11,00:00:00.00,00:00:01.89,take plate,0,[2]
P01_2,P01,P01_11,00:01:14.36,01:00:15.42,put pizza onto plate,1,"[91, 2]"
P01_3,P01,P02_01,00:00:02.00,00:00:03.00,take plate,0,[2]
P01_4,P01,gone,00:00:02.00,00:00:03.00,take knife,0,[4]
P01_5,P01,P01_11,00:00:02.00,00:00:03.00,take knife,97,[4]
P01_6,P01,P01_11,00:00:02.00,00:00:03.00,take knife,0,[]
P01_7,P01,P01_11,2.00,3.00,take knife,0,[4]
"""
VIDEOS = ("videos/P01/P01_11.MP4", "P02_01.mp4")


def records(source):
  return [source[i] for i in range(len(source))]


def test_clips_have_their_classes_and_the_first_of_equal_words_is_the_query(make, config, caplog):
  folder = make({"EPIC_100_retrieval_test.csv": TEST}, *VIDEOS)
  found = records(sources.open_source(config("epic_kitchens", folder), "validation"))
  assert [(r.start, r.end) for r in found] == [(0, 1.89), (74.36, 3615.42), (2, 3)]
  assert [r.text["caption"] for r in found] == ["take plate", "put pizza onto plate", "take plate"]
  assert [(r.text["verbs"], r.text["nouns"]) for r in found] == [
    ((0,), (2,)), ((1,), (91, 2)), ((0,), (2,))
  ]  # fmt: skip
  assert [r.text["query"] for r in found] == [True, True, False]
  assert "test.csv, line 6: verb_class '97' of 97, all_noun_classes '[4]' of 300" in caplog.text
  assert "left out, as are 2 other rows" in caplog.text
  assert "test 1 of 3; such as gone" in caplog.text


def test_the_sentences_file_names_the_queries(make, config):
  sentences = "narration_id,narration\nP01_3,take plate\nP01_2,put pizza onto plate\n"
  files = {
    "EPIC_100_retrieval_test.csv": TEST, "EPIC_100_retrieval_test_sentence.csv": sentences,
    "EPIC_100_retrieval_train.csv.gz": TEST,
  }  # fmt: skip
  folder = make(files, *VIDEOS)
  test = sources.open_source(config("epic_kitchens", folder), "validation")
  assert [r.text["query"] for r in records(test)] == [False, True, True]
  train = sources.open_source(config("epic_kitchens", folder), "train")
  assert [r.text["query"] for r in records(train)] == [True, True, False]


@pytest.mark.parametrize(
  ("stamp", "expected"), [("00:00:01.5", 1.5), ("01:02:03.25", 3723.25), ("1:2", None), ("", None),
                          ("a:b:c", None), ("0:0:0:1", None)],
)  # fmt: skip
def test_time_stamps(stamp, expected):
  assert epic_kitchens.seconds(stamp) == expected


def test_the_official_captions_are_counted(official, config):
  """Of the test split the list of captions alone is at hand; the clips are made up around it."""
  folder = official("epic_kitchens_100")
  with (folder / "EPIC_100_retrieval_test_sentence.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  lines = [HEADER]
  for row in rows:
    video = row["narration_id"].rpartition("_")[0]
    words = row["narration"].replace('"', '""')
    lines.append(f'{row["narration_id"]},P,{video},00:00:01.00,00:00:02.00,"{words}",0,[1]')
    lines.append(f'{row["narration_id"]}_again,P,{video},00:00:03.00,00:00:04.00,"{words}",0,[1]')
  (folder / "EPIC_100_retrieval_test.csv").write_text("\n".join(lines))
  found = records(sources.open_source(config("epic_kitchens", folder), "validation"))
  assert len(found) == 2 * 3842 and sum(r.text["query"] for r in found) == 3842
