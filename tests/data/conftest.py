"""Folders with annotation files and videos that are empty files."""

import gzip
import json

import ml_collections
import pytest

from vfe.data.captioned import collect


@pytest.fixture
def make(tmp_path):
  """make({"train.json": {...}, "list.csv": "a,b\\n"}, "videos/a.mp4"): the folder, filled.

  Content that is no text is written as JSON, compressed where the name says so.
  """

  def fill(files, *videos):
    for name, content in files.items():
      text = content if isinstance(content, str) else json.dumps(content)
      with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt") as file:
        file.write(text)
    for video in videos:
      (tmp_path / video).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / video).touch()
    return tmp_path

  return fill


@pytest.fixture
def config():
  """config("msrvtt", folder, "full"): the data section as readers take it."""
  return lambda source, path, variant=None: ml_collections.ConfigDict(
    dict(source=source, path=str(path), eval_path=None, heads=None, variant=variant)
  )


class AllVideos(dict):
  """The files of a folder in which every video is."""

  def __contains__(self, name):
    return True

  def __missing__(self, name):
    return f"{name}.mp4"


@pytest.fixture
def official(real_data, tmp_path, monkeypatch):
  """official("vatex"): a folder with links to the real files of a data set, and all its videos."""

  def link(name):
    for file in (real_data / "annotations" / name).iterdir():
      (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(collect, "_video_files", lambda folder: AllVideos())
    return tmp_path

  return link
