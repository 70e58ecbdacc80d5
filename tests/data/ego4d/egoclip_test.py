"""EgoClip from its file: what is read, what is left out and told, and its scenes."""

import logging
import pickle

import numpy as np
import pytest

from vfe.data import sources
from vfe.data.ego4d import egoclip, taxonomy
from vfe.data.record import Source
from vfe.errors import UserError

VIDEOS = ("a1/0.mp4", "a1/1.mp4", "b1.mp4/300.mp4", "c1.mp4")


def test_narrations_are_records_with_tags_and_parts(make, config, row, table, read):
  rows = (
    row("a1", 598.5, 600.5, "#C C cuts  an onion", "[20]", "[3, 7]"),
    row("b1", 310.0, 311.0, '"#C C says ""yes"" "', "[]", "[]"),
    row("c1", 1.0, 2.0),
  )
  folder = make({egoclip.FILE: table(*rows)}, *VIDEOS)
  train = sources.open_source(config("egoclip", folder), "train")
  assert isinstance(train, Source) and len(train) == 3 and train.heads == {}
  first, second, third = read(train)
  assert first.text == {"caption": "#C C cuts an onion", "verbs": (20,), "nouns": (3, 7)}
  assert [(p.path[-8:], p.start, p.end) for p in first.parts()] == [
    ("a1/0.mp4", 598.5, None), ("a1/1.mp4", None, 0.5)
  ]  # fmt: skip
  assert second.text == {"caption": '#C C says "yes"', "verbs": (), "nouns": ()}
  assert (second.start, second.end, second.then) == (10.0, 11.0, None)
  assert third.name == "c1 [1, 2) s"
  again = pickle.loads(pickle.dumps(train))
  assert read(again) == read(train)
  with pytest.raises(IndexError):
    train[3]


def test_columns_go_by_name_and_some_files_have_one_more(make, row, table, read, config):
  lines = table(row("c1"), row("c1", 3.0, 4.0)).splitlines()
  text = "\n".join(["clip_idx\t" + lines[0], "0\t" + lines[1], "1\t" + lines[2]])
  train = sources.open_source(config("egoclip", make({"egoclip.csv.gz": text}, *VIDEOS)), "train")
  assert [record.start for record in read(train)] == [1.0, 3.0]


def test_what_is_wrong_is_counted_by_its_kind_and_the_first_of_each_is_told(
  make, config, row, table, read, caplog
):
  rows = (
    row("c1"),  # line 2
    "too\tfew",
    row("gone", 1.0, 2.0),
    row("a1", 1199.5, 1201.0),  # line 5
    row("c1", 2.0, 2.0),
    row("c1", clip_start="x"),
    row("c1", 1.0, 2.0, " "),
    row("c1", 1.0, 2.0, verb="[118]"),
    row("c1", 1.0, 2.0, noun="[582]"),
    row("c1", 1.0, 2.0, noun="['cup']"),
    row("c1", 1.0, 2.0, narration_time=""),
    '"a stray quote\t1',
    row("a1", 1199.5, 1200.5, video_dur=1200),  # ends a moment after its video
    row("also gone"),
    row("", 1.0, 2.0),
    row("c1", 5.0, 6.0, verb="[117]", noun="[581]"),
  )
  folder = make({egoclip.FILE: table(*rows)}, *VIDEOS)
  with caplog.at_level(logging.WARNING):
    train = sources.open_source(config("egoclip", folder), "train")
  assert [(r.start, r.end) for r in read(train)] == [(1.0, 2.0), (599.5, 600.0), (5.0, 6.0)]
  said = [record.getMessage() for record in caplog.records]
  file = f"{folder}/{egoclip.FILE}"
  assert said == [
    f"{file}, line 3: 2 values for 10 columns; left out: 10 narrations malformed, 3 are used.",
    f"{file}, line 4: gone is not there; left out: 2 narrations of videos that are not there, 3 "
    f"are used.",
    f"{file}, line 5: a1, chunk 2 of 600 s is not there; left out: 1 narrations of chunks that are "
    f"not there, 3 are used.",
  ]


def test_a_file_of_which_nothing_can_be_used_is_refused(make, row, table, config):
  folder = make({egoclip.FILE: table(row("gone"))}, *VIDEOS)
  with pytest.raises(UserError, match=r"egoclip\.csv, line 2: gone is not there; left out: 1 narr"):
    sources.open_source(config("egoclip", folder), "train")
  make({egoclip.FILE: "video_uid\tclip_start\n"})
  with pytest.raises(UserError, match=r"egoclip\.csv, line 1: no column 'video_dur' among"):
    sources.open_source(config("egoclip", folder / "."), "train")


def test_a_file_that_is_no_text_is_refused(make, config):
  folder = make({}, *VIDEOS)
  (folder / egoclip.FILE).write_bytes(b"video_uid\t\xff\n")
  with pytest.raises(UserError, match=r"egoclip\.csv: cannot be read .*download it again"):
    sources.open_source(config("egoclip", folder), "train")


def test_the_taxonomys_files_say_how_many_classes_there_are(make, row, table, config, read):
  files = {
    egoclip.FILE: table(row("c1", verb="[1]", noun="[0]"), row("c1", verb="[2]", noun="[0]")),
    taxonomy.FILES["verbs"]: "label,group\ncut,['cut']\n\"put_(place,_leave)\",['put', 'leave']\n",
  }
  train = sources.open_source(config("egoclip", make(files, *VIDEOS)), "train")
  assert [record.text["verbs"] for record in read(train)] == [(1,)]
  assert train.taxonomy == {"nouns": 582, "verbs": 2}


def test_scenes_are_minutes_of_a_video(make, row, table, config):
  rows = [row("c1", t, t + 1, narration_time=t) for t in (1.0, 59.5, 60.5, 61.5)]
  rows.append(row("a1", 2.0, 3.0, narration_time=2.0))
  folder = make({egoclip.FILE: table(*rows)}, *VIDEOS)
  train = sources.open_source(config("egoclip", folder), "train")
  members = [train.scenes.members(i).tolist() for i in range(5)]
  assert members == [[0, 1], [0, 1], [2, 3], [2, 3], [4]]
  assert train.scenes.neighbour(0, np.random.default_rng(0)) == 1


def test_the_row_of_the_readme_is_read(real_data, make, config):
  text = (real_data / "annotations/egoclip_egomcq_format/egoclip_readme_row.tsv").read_text()
  uid = "001e3e4e-2743-47fc-8564-d5efd11f9e90"
  folder = make({egoclip.FILE: text}, f"{uid}/0.mp4")
  (record,) = sources.open_source(config("egoclip", folder), "train")
  assert record.text == {
    "caption": "#C C picks a bag of clothes from the floor", "verbs": (93,), "nouns": (192, 115, 12)
  }  # fmt: skip
  assert (record.start, record.end) == (2.967651, 3.721266)
