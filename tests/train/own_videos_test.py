"""Your own videos: a folder, a CSV of labels, and what happens to a file that is none."""

import json

import jax
import numpy as np
import pytest

from vfe.data.sources import ListedSource
from vfe.data.spec import ClipSpec
from vfe.data.streams import Stream
from vfe.data.tabletop import encode
from vfe.errors import UserError
from vfe.train import run
from vfe.train.feed import Faults

FRAMES = (32, 40, 20, 35)  # one shorter than a clip, which is no fault


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Four clips, two of them red and two blue, one file that is no video, and labels.csv."""
  folder = tmp_path_factory.mktemp("videos")
  rng = np.random.default_rng(0)
  lines = ["path,label"]
  for i, frames in enumerate(FRAMES):
    video = rng.integers(0, 60, (frames, 48, 64, 3), dtype=np.uint8)
    video[..., 0 if i % 2 else 2] += 150
    encode(video, folder / f"{i}.mp4")
    lines.append(f"{i}.mp4,{'red' if i % 2 else 'blue'}")
  (folder / "broken.mp4").write_text("<html>not found</html>")
  lines.append("broken.mp4,red")
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")
  return folder


def own(path):
  return {
    "data.source": "manifest",
    "data.path": str(path),
    "data.max_fault_share": 1.0,
    "stages": ("pretrain", "finetune"),
    "finetune.steps": 3,
  }


def test_a_csv_of_labels_trains_and_the_file_that_is_no_video_is_named(
  videos, tiny_pixels, tmp_path, capfd
):
  config = tiny_pixels(own(videos / "labels.csv"))
  results = run.recipe(config, workdir=tmp_path, devices=jax.devices()[:1])
  told = capfd.readouterr().err
  assert told.count("unreadable video replaced: ") == 2  # once a stage
  assert "broken.mp4: " in told
  metrics = results["stages"]["finetune"]["metrics"]
  assert metrics["validation/clips"] == 4 and metrics["validation/clips_missing"] == 1
  line = json.loads((tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()[0])
  assert line["data/unreadable"] > 0 and line["data/short"] > 0
  names = (tmp_path / "finetune" / "predictions.csv").read_text()
  assert "0.mp4,blue," in names and "1.mp4,red," in names


def test_too_many_faults_are_an_error_that_names_the_share():
  stream = Stream(ListedSource("videos", {}, []), ClipSpec(frames=16, size=32), 8)
  faults = Faults(stream, 0.05, print)
  faults.named.add(3)  # named already
  batch = {
    "valid": np.ones(8, bool),
    "repeated": np.zeros(8, np.int32),
    "fault": np.full(8, 2, np.int32),
    "faulty": np.full(8, 3, np.int32),
  }
  for _ in range(12):
    faults.count(batch)  # 96 rows: too few to judge by
  with pytest.raises(UserError, match=r"videos: 104 of 104 .* data.max_fault_share=0.05"):
    faults.count(batch)


def test_labels_without_a_class_are_refused_before_anything_is_written(
  videos, tiny_pixels, tmp_path
):
  (videos / "unlabelled.csv").write_text("path\n0.mp4\n1.mp4\n")
  config = tiny_pixels(own(videos / "unlabelled.csv") | {"finetune.inputs.encoder": ""})
  with pytest.raises(UserError, match=r"config.finetune: .*unlabelled.csv.* has no labels"):
    run.recipe(config, workdir=tmp_path / "run", only="finetune")
  assert not (tmp_path / "run" / "finetune").exists()
