"""Diving48 V2 from its official files."""

import gzip
import json
import pathlib

import ml_collections
import pytest

from vfe.data import diving48, sources
from vfe.errors import UserError

VOCABULARY = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]]
ROWS = [
  {"vid_name": "a_1", "label": 1, "start_frame": 0, "end_frame": 48},
  {"vid_name": "b_2", "label": 0, "start_frame": 0, "end_frame": 70},
]


def write(folder, vocabulary=VOCABULARY, train=ROWS, test=ROWS[:1]):
  for name, rows in ((diving48.VOCABULARY, vocabulary), ("Diving48_V2_train.json", train)):
    (folder / name).write_text(json.dumps(rows))
  with gzip.open(folder / "Diving48_V2_test.json.gz", "wt") as file:
    json.dump(test, file)
  (folder / "rgb").mkdir(exist_ok=True)
  (folder / "rgb" / "a_1.mp4").touch()
  return folder


def config(folder):
  return ml_collections.ConfigDict(
    dict(source="diving48", path=str(folder), eval_path=None, heads=None)
  )


def test_both_splits_are_read_and_one_missing_video_is_left_to_the_faults(tmp_path):
  data = config(write(tmp_path))
  train = sources.open_source(data, "train")
  assert train.heads == {"label": ("Back 15som 05Twis FREE", "Back 15som 15Twis FREE")}
  assert [dict(train[i].labels) for i in range(2)] == [{"label": 1}, {"label": 0}]
  assert train[0].path == str(tmp_path / "rgb" / "a_1.mp4")
  assert (train[0].start, train[0].end) == (None, None)  # a file is a clip
  assert len(sources.open_source(data, "validation")) == 1


def test_videos_may_lie_beside_the_lists(tmp_path):
  (write(tmp_path) / "rgb" / "a_1.mp4").rename(tmp_path / "a_1.mp4")
  (tmp_path / "rgb").rmdir()
  assert sources.open_source(config(tmp_path), "train")[0].path == str(tmp_path / "a_1.mp4")


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(label=2), r"train\.json, row 2: label 2 is not a class of Diving48_voc.*\(0 to 1\)"),
    (dict(label="dive"), r"row 2: label 'dive' is not a class"),
    (dict(label=True), r"row 2: label True is not a class"),
    (dict(vid_name=7), r"row 2: vid_name 7 is not the name of a video"),
    (dict(vid_name="../x"), r"row 2: vid_name '\.\./x' is not"),
    (dict(end_frame=None), r"row 2: end_frame None is not a frame number"),
    (dict(start_frame=70), r"row 2: start_frame 70 is not before end_frame 70"),
  ],
)
def test_a_malformed_row_is_named(tmp_path, change, message):
  with pytest.raises(UserError, match=message):
    sources.open_source(config(write(tmp_path, train=[ROWS[0], ROWS[1] | change])), "train")


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(train={"a": 1}), r"V2_train\.json: not a JSON list with a row a video"),
    (dict(train=[3]), r"V2_train\.json, row 1: 3 is not an object with vid_name"),
    (dict(vocabulary=["Back"]), r"vocab\.json, row 1: 'Back' is not the four words"),
    (dict(vocabulary=VOCABULARY[:1] * 2), r"vocab\.json, row 2: class 'Back .* is there twice"),
  ],
)
def test_a_malformed_file_is_named(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    sources.open_source(config(write(tmp_path, **changes)), "train")


def test_a_folder_of_something_else_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"holds no Diving48_vocab\.json"):
    sources.open_source(config(tmp_path), "train")
  with pytest.raises(UserError, match=r"gone does not exist; data\.source='diving48' wants"):
    sources.open_source(config(tmp_path / "gone"), "train")
  write(tmp_path)
  (tmp_path / "Diving48_V2_test.json.gz").write_bytes(b"\x1f\x8b\x08 cut off")
  with pytest.raises(UserError, match=r"test\.json\.gz: cannot be read .*download it again"):
    sources.open_source(config(tmp_path), "train")
  (tmp_path / "Diving48_V2_train.json").write_text("[\n{]")
  with pytest.raises(UserError, match=r"train\.json, line 2: not JSON"):
    sources.open_source(config(tmp_path), "train")
  (tmp_path / "Diving48_V2_train.json").unlink()
  with pytest.raises(UserError, match=r"holds no Diving48_V2_train\.json \(nor \.gz\)"):
    sources.open_source(config(tmp_path), "train")
  (write(tmp_path) / "rgb" / "a_1.mp4").unlink()
  with pytest.raises(UserError, match=r"rgb: holds none of the 2 training videos, .*a_1\.mp4"):
    sources.open_source(config(tmp_path), "train")


def test_the_official_files_are_read(real_data, tmp_path):
  official = real_data / "annotations" / "diving48"
  for file in official.iterdir():
    (tmp_path / file.name).symlink_to(file)
  (tmp_path / "-mmq0PT-u8k_00155.mp4").touch()
  listing = diving48.list_diving48(str(tmp_path))
  heads = listing.heads()
  records = [entry.record(heads) for entry in listing.splits["train"]]
  names = (real_data / "annotations/label_maps/diving48_label_map.txt").read_text().split()
  assert [name.replace(" ", "+") for name in heads["label"].names] == names
  assert len(records) == 15_027 and pathlib.Path(records[0].path).exists()
  assert {record.labels["label"] for record in records} == set(range(48)) - {30}
