"""Folders and manifests: what is found in them, and what a stranger is told when it is not."""

import json

import ml_collections
import pytest

from vfe.data import sources
from vfe.data.text import captions_of
from vfe.errors import UserError


def config(kind, path=None, **more):
  fields = dict(source=kind, path=path and str(path), eval_path=None, heads=None)
  return ml_collections.ConfigDict({**fields, **more})


def touch(folder, *names):
  for name in names:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
  return folder


def manifest(folder, *lines, name="clips.csv", encoding="utf-8"):
  """A manifest beside the videos a.mp4 and b.mp4."""
  touch(folder, "a.mp4", "b.mp4")
  file = folder / name
  file.write_bytes(("\n".join(lines) + "\n").encode(encoding))
  return file


def open_manifest(file, split="train", **more):
  return sources.open_source(config("manifest", file, **more), split)


def labels(source):
  return [dict(source[i].labels) for i in range(len(source))]


# Folders.


def test_sub_folders_are_classes(tmp_path):
  touch(tmp_path, "run/b.mp4", "jump/deep/a.MKV", "jump/notes.txt", "jump/._a.mkv", ".git/c.mp4")
  source = sources.open_source(config("folder", tmp_path), "train")
  assert source.heads == {"label": ("jump", "run")}
  assert [source[i].path for i in range(len(source))] == [
    str(tmp_path / "jump/deep/a.MKV"), str(tmp_path / "run/b.mp4")
  ]
  assert labels(source) == [{"label": 0}, {"label": 1}]


def test_a_flat_folder_has_no_labels(tmp_path):
  source = sources.open_source(config("folder", touch(tmp_path, "b.mp4", "a.webm")), "train")
  assert source.heads == {} and [source[i].labels for i in range(2)] == [{}, {}]
  assert source[0].path.endswith("a.webm")


def test_images_are_listed_but_for_the_covers_of_videos(tmp_path):
  names = ["a.JPG", "b.png", "c.webp", "d.bmp", "e.jpeg"]
  touch(tmp_path, *(f"still/{name}" for name in names), "still/._a.jpg", "still/a.gif")
  touch(tmp_path, "moving/clip.mp4", "moving/clip.jpg", "moving/other.jpg")
  source = sources.open_source(config("folder", tmp_path), "train")
  assert [source[i].path.removeprefix(f"{tmp_path}/") for i in range(len(source))] == [
    "moving/clip.mp4", "moving/other.jpg", *(f"still/{name}" for name in names)
  ]


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_a_folder_may_hold_splits(tmp_path, name):
  touch(tmp_path, "train/jump/a.mp4", "train/run/b.mp4", f"{name}/run/c.mp4")
  data = config("folder", tmp_path)
  assert len(sources.open_source(data, "train")) == 2
  validation = sources.open_source(data, "validation")
  assert labels(validation) == [{"label": 1}] and validation.heads == {"label": ("jump", "run")}


def test_without_validation_the_training_clips_serve_and_it_is_said_once(tmp_path, caplog):
  data = config("folder", touch(tmp_path, "jump/a.mp4"))
  for _ in range(2):
    assert len(sources.open_source(data, "validation")) == 1
  assert caplog.text.count("no validation split") == 1


def test_an_evaluation_path_has_the_classes_of_training(tmp_path):
  touch(tmp_path, "a/jump/1.mp4", "a/run/2.mp4", "b/run/3.mp4", "c/rum/3.mp4")
  data = config("folder", tmp_path / "a", eval_path=str(tmp_path / "b"))
  assert labels(sources.open_source(data, "validation")) == [{"label": 1}]
  data.eval_path = str(tmp_path / "c")
  with pytest.raises(UserError, match=r"label 'rum' is not in the training split .*nearest: 'run'"):
    sources.open_source(data, "validation")


@pytest.mark.parametrize(
  ("files", "message"),
  [
    ([], r"no videos here \(it is empty"),
    (["notes.txt"], r"1 other files, such as notes\.txt"),
    (["labels.csv"], r"use data\.source='manifest' and data\.path=.*labels\.csv"),
    (["a.mp4", "jump/b.mp4"], r"a\.mp4 lies beside class folders \('jump'"),
    (["val/a.mp4", "test/b.mp4"], r"holds no train split"),
    (["train/a.mp4", "val/b.mp4", "validation/c.mp4"], r"two folders are the validation split"),
    (["train/a.mp4", "val/c.txt"], r"val: no videos here"),
  ],
)
def test_a_folder_that_will_not_do(tmp_path, files, message):
  with pytest.raises(UserError, match=message):
    sources.open_source(config("folder", touch(tmp_path, *files)), "train")


def test_the_path_must_be_there_and_of_its_kind(tmp_path):
  file = manifest(tmp_path, "path", "a.mp4")
  for kind, path, message in [
    ("folder", None, r"data\.path is not set; data\.source='folder'"),
    ("folder", tmp_path / "no", r"data\.path=.*no does not exist"),
    ("folder", file, r"clips\.csv is a file; .*data\.source='manifest'"),
    ("manifest", tmp_path, r"is a folder; data\.source='manifest' wants"),
    ("manifest", tmp_path / "a.mp4", r"a manifest ends in \.csv or \.jsonl"),
    ("folders", tmp_path, r"data\.source='folders' is unknown \(nearest: folder\)"),
  ]:
    with pytest.raises(UserError, match=message) as caught:
      sources.open_source(config(kind, path), "train")
    assert "\n" not in str(caught.value)


# Manifests.


def test_a_csv_manifest(tmp_path):
  file = manifest(
    tmp_path,
    "\ufeffpath,label,start,end,split,caption",
    "a.mp4,run,1.5,3,train,\"a man, running\"",
    f"{tmp_path}/b.mp4,jump,,,train,",
    "a.mp4,run,4,,val,again",
  )
  train, validation = (open_manifest(file, split) for split in ("train", "validation"))
  assert train.heads == {"label": ("jump", "run")} == validation.heads
  assert [train[i].path for i in range(2)] == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
  assert (train[0].start, train[0].end, train[1].start, train[1].end) == (1.5, 3.0, None, None)
  assert labels(train) == [{"label": 1}, {"label": 0}]
  assert train[0].text == {"caption": "a man, running"} and "[1.5, 3.0) s" in train[0].name
  assert labels(validation) == [{"label": 1}] and validation[0].start == 4


def test_a_jsonl_manifest_with_two_heads(tmp_path):
  rows = [
    {"path": "a.mp4", "label_verb": "put", "label_noun": 3, "narrations": [{"at": 0.5}]},
    {"path": "b.mp4", "label_verb": "lift", "label_noun": 1},
  ]
  source = open_manifest(manifest(tmp_path, *map(json.dumps, rows), "", name="clips.jsonl"))
  assert source.heads == {"verb": ("lift", "put"), "noun": ("0", "1", "2", "3")}
  assert labels(source) == [{"verb": 1, "noun": 3}, {"verb": 0, "noun": 1}]
  assert source[0].text == {"narrations": [{"at": 0.5}]}


def test_captions_of_a_jsonl_manifest(tmp_path):
  rows = [
    {"path": "a.mp4", "caption": "a cup", "captions": ["a cup", "one cup"], "summary": None},
    {"path": "b.mp4", "summary": ["first this", "then that"]},
  ]
  source = open_manifest(manifest(tmp_path, *map(json.dumps, rows), name="clips.jsonl"))
  assert captions_of(source[0], "caption") == ("a cup",)
  assert captions_of(source[0], "captions") == ("a cup", "one cup")
  assert captions_of(source[0], "summary") == captions_of(source[1], "caption") == ()
  assert captions_of(source[1], "summary") == ("first this", "then that")


def test_heads_choose_the_label_columns(tmp_path):
  file = manifest(tmp_path, "path,label,verb,noun", "a.mp4,x,put,cup", "b.mp4,y,lift,pan")
  source = open_manifest(file, heads=("verb", "noun"))
  assert source.heads == {"verb": ("lift", "put"), "noun": ("cup", "pan")}
  assert source[0].text == {"label": "x"}
  with pytest.raises(UserError, match=r"data\.heads names 'nuon'.*nearest: 'noun'"):
    open_manifest(file, heads=("nuon",))


def test_a_manifest_without_labels(tmp_path):
  source = open_manifest(manifest(tmp_path, "path", "a.mp4", "b.mp4"))
  assert len(source) == 2 and source.heads == {}


def test_class_names_given_beside_the_manifest(tmp_path):
  (tmp_path / "classes.txt").write_text("stand\nrun\njump\n")
  source = open_manifest(manifest(tmp_path, "path,label", "a.mp4,jump", "b.mp4,1"))
  assert source.heads == {"label": ("stand", "run", "jump")}
  assert labels(source) == [{"label": 2}, {"label": 1}]
  (tmp_path / "classes.txt").write_text("run\nrun\n")
  with pytest.raises(UserError, match=r"classes\.txt: class 'run' is there more than once"):
    open_manifest(tmp_path / "clips.csv")


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    ((), r"clips\.csv: is empty; its first line names the columns"),
    (("path,label",), r"clips\.csv: holds no videos"),
    (("file,label", "a.mp4,x"), r"line 1: no column 'path' among \['file', 'label'\]"),
    (("a.mp4 0", "b.mp4 1"), r"line 1: no column 'path'.*separated by commas"),
    (("path,label,label", "a.mp4,x,y"), r"line 1: column 'label' is there twice"),
    (("path,label", "a.mp4,x,y"), r"line 2: 3 values for 2 columns"),
    (("path,label", "a.mp4"), r"line 2: 1 values for 2 columns"),
    (("path,label", "a.mp4,x", ",y"), r"line 3: no path"),
    (("path,label", "a.mp4, "), r"line 2: label ' ' is neither a class name nor a class number"),
    (("path,start,end", "a.mp4,3,2"), r"line 2: start 3 is not before end 2"),
    (("path,end", "a.mp4,0"), r"line 2: start 0 is not before end 0"),
    (("path,start", "a.mp4,soon"), r"line 2: start 'soon' is not a time in seconds"),
    (("path,start", "a.mp4,nan"), r"line 2: start 'nan' is not a time"),
    (("path,split", "a.mp4,holdout"), r"line 2: split 'holdout' is none of train"),
    (("path,split", "a.mp4,val"), r"holds no train split"),
    (("path,label", "c.mp4,x"), r"line 2: .*c\.mp4 does not exist.*start at the manifest's folder"),
    (("path,label", "a.mp4,x", "b.mp4,-1"), None),
    (("path,label", "a.mp4,0", "b.mp4,-1"), r"line 3: label -1 is out of range.*numbered 0 to 0"),
    (("path,label", "a.mp4,20240131"), r"class number 20240131 of head 'label' is not one"),
  ],
)
def test_a_csv_that_will_not_do(tmp_path, lines, message):
  file = manifest(tmp_path, *lines) if lines else touch(tmp_path, "clips.csv") / "clips.csv"
  if message is None:
    assert open_manifest(file).heads == {"label": ("-1", "x")}
    return
  with pytest.raises(UserError, match=message) as caught:
    open_manifest(file)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("classes", "label", "message"),
  [
    (None, "jumps", r"label 'jumps' is not in the training split \(2 classes; nearest: 'jump'\)"),
    ("jump\nrun\n", "jmup", r"label 'jmup' is not in classes\.txt \(2 classes; nearest: 'jump'\)"),
    ("jump\nrun\n", "2", r"label 2 is out of range: classes\.txt has 2 classes, numbered 0 to 1"),
  ],
)
def test_a_label_that_training_does_not_know(tmp_path, classes, label, message):
  if classes:
    (tmp_path / "classes.txt").write_text(classes)
  lines = ("path,label,split", "a.mp4,jump,train", "b.mp4,run,train", f"a.mp4,{label},val")
  file = manifest(tmp_path, *lines)
  with pytest.raises(UserError, match=f"clips.csv, line 4: {message}"):
    open_manifest(file, "validation")


def test_files_that_are_not_text(tmp_path):
  latin = manifest(tmp_path, "path,label", "a.mp4,größe", encoding="latin1")
  with pytest.raises(UserError, match=r"clips\.csv: byte 0xf6 is not UTF-8; convert it"):
    open_manifest(latin)
  for line, message in [
    ('{"path": "a.mp4"', r"line 1: not JSON"),
    ('["a.mp4"]', r"line 1: not an object"),
    ('{"path": 3}', r"line 1: no path"),
    ('{"path": "a.mp4", "label": [1]}', r"line 1: label \[1\] is neither"),
    ('{"path": "a.mp4", "caption": 7}', r"clips\.jsonl, line 1: caption 7 is not text"),
    ('\n{"path": "a.mp4", "captions": ["a", ["b"]]}', r"line 2: captions \['b'\] is not text"),
    ('{"path": "a.mp4", "summary": {"en": "a"}}', r"line 1: summary {'en': 'a'} is not text"),
  ]:
    with pytest.raises(UserError, match=message):
      open_manifest(manifest(tmp_path, line, name="clips.jsonl"))


def test_one_missing_video_is_a_fault_for_later(tmp_path):
  assert len(open_manifest(manifest(tmp_path, "path", "gone.mp4", "a.mp4"))) == 2
