"""TFDS data sets: made on Beam by python -m vfe.tools.build, read back through data.source=tfds."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from vfe.data import decode, pipeline, sources, tabletop
from vfe.data.diving48 import VOCABULARY
from vfe.data.record import VideoRecord
from vfe.data.tabletop.world import World
from vfe.data.tfds import base, source
from vfe.data.tfds.tabletop import VfeTabletop
from vfe.errors import UserError
from vfe.tools import build, prepare

ROOT = pathlib.Path(__file__).resolve().parents[3]
needs_beam = "Apache Beam is not installed: pip install -e '.[beam]'"
WORLD = World(size=32, frames=16, rung="verb")


def data_config(path, source="tfds", **more):
  return ml_collections.ConfigDict(
    dict(source=source, path=str(path), eval_path=None, heads=None) | more
  )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  pytest.importorskip("apache_beam", reason=needs_beam)
  folder = tmp_path_factory.mktemp("tfds")
  flags = ["--rung=verb", "--size=32", "--frames=16", "--videos=5", "--eval_videos=2"]
  build.main(["--dataset=tabletop", f"--data_dir={folder}", *flags])
  return folder


@pytest.fixture(scope="module")
def train(data_dir):
  return sources.open_source(data_config(data_dir), "train")


def test_the_world_is_the_one_that_tabletop_draws(train, data_dir, tmp_path):
  assert train.heads == tabletop.heads("verb")
  records = {record.name.split("/")[-1][:-1]: record for record in map(train.__getitem__, range(5))}
  assert sorted(records) == [f"{i:06d}" for i in range(5)]
  for index, name in enumerate(sorted(records)):
    scene = tabletop.scenario(WORLD, index, "train")
    tabletop.encode(tabletop.render(WORLD, scene), tmp_path / "video.mp4")
    record = records[name]
    assert record.data == (tmp_path / "video.mp4").read_bytes()
    assert record.labels == {h: tabletop.labels(scene)[h] for h in ("verb", "noun")}
    assert record.text["caption"] == tabletop.caption(scene) and record.text["narrations"]
    assert record.start is None and record.end is None
  assert len(sources.open_source(data_config(data_dir), "validation")) == 2


def test_training_reads_it_in_workers(train):
  spec = pipeline.ClipSpec(frames=4, size=16)
  dataset = pipeline.train_dataset(train, spec, seed=0, batch=5, rows=np.arange(5))
  batch = dataset[0]
  assert sorted(batch["record"]) == list(range(5)) and not batch["fault"].any()
  in_a_worker = pickle.loads(pickle.dumps(dataset))[0]
  np.testing.assert_array_equal(batch["video"], in_a_worker["video"])


def test_reading_imports_neither_tensorflow_nor_beam(data_dir):
  script = f"""
import sys
from ml_collections import ConfigDict
from vfe.data import sources
data = ConfigDict(dict(source="tfds", path={str(data_dir)!r}, eval_path=None, heads=None))
assert sources.open_source(data, "train")[0].data
assert not {{"tensorflow", "apache_beam", "jax"}} & set(sys.modules)
"""
  subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_shards_can_be_prepared_from_it(data_dir, tmp_path):
  flags = [f"--path={data_dir}", f"--out={tmp_path / 's'}", "--workers=1", "--short_side=16"]
  prepare.main(["--source=tfds", *flags])
  prepared = sources.open_source(data_config(tmp_path / "s", "shards"), "train")
  assert len(prepared) == 5 and decode.probe(prepared[0]).height == 16


def test_it_is_made_once(data_dir, capsys):
  flags = ["--rung=verb", "--size=32", "--frames=16", "--videos=5", "--eval_videos=2"]
  build.main(["--dataset=tabletop", f"--data_dir={data_dir}", *flags])
  assert "complete already" in capsys.readouterr().out


def write_diving48(folder, present):
  """Lists of four training clips and a test clip; `present` videos are there."""
  words = [["Back", f"{i}som", "NoTwis", "PIKE"] for i in range(48)]
  (folder / VOCABULARY).write_text(json.dumps(words))
  rows = [
    dict(vid_name=f"v_{i}", label=47 - i, start_frame=0, end_frame=8 + i) for i in range(5)
  ]
  (folder / "Diving48_V2_train.json").write_text(json.dumps(rows[:4]))
  (folder / "Diving48_V2_test.json").write_text(json.dumps(rows[4:]))
  (folder / "rgb").mkdir()
  for name in present:
    tabletop.encode(np.zeros((8, 32, 32, 3), np.uint8), folder / "rgb" / f"{name}.mp4")
  return folder


def test_diving48_leaves_out_what_is_missing_and_names_it(tmp_path, capsys):
  pytest.importorskip("apache_beam", reason=needs_beam)
  manual = write_diving48(tmp_path, ("v_0", "v_3", "v_4"))
  build.main(["--dataset=diving48", f"--manual_dir={manual}", f"--data_dir={tmp_path / 'tfds'}"])
  said = capsys.readouterr().out
  assert "2 train" in said and "1 test" in said and "2 missing" in said
  metadata = json.loads(next((tmp_path / "tfds").glob("vfe_diving48/1*/metadata.json")).read_text())
  missing = [str(manual / "rgb" / f"v_{i}.mp4") for i in (1, 2)]
  assert metadata["missing"] == {"train": missing, "test": []}
  data = data_config(tmp_path / "tfds" / "vfe_diving48")
  train, test = sources.open_source(data, "train"), sources.open_source(data, "validation")
  original = sources.open_source(data_config(manual, "diving48"), "train")
  assert train.heads == test.heads == original.heads
  assert {train[i].labels["label"] for i in range(2)} == {47, 44}
  assert test[0].labels == {"label": 43} and test[0].text == {"start_frame": 0, "end_frame": 12}
  assert test[0].data == (manual / "rgb" / "v_4.mp4").read_bytes()


def test_a_malformed_row_is_named_before_anything_runs(tmp_path):
  pytest.importorskip("apache_beam", reason=needs_beam)
  write_diving48(tmp_path, ("v_0",))
  (tmp_path / "Diving48_V2_test.json").write_text('[{"vid_name": "v_4", "label": 48}]')
  with pytest.raises(UserError, match=r"V2_test\.json, row 1: label 48 is not a class"):
    build.main(["--dataset=diving48", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'd'}"])
  with pytest.raises(UserError, match=r"--manual_dir= is no folder"):
    build.main(["--dataset=diving48", f"--data_dir={tmp_path / 'd'}"])


def test_a_folder_without_such_videos_is_refused(tmp_path, data_dir):
  with pytest.raises(UserError, match=r"holds no TFDS data set .*vfe\.tools\.build"):
    sources.open_source(data_config(tmp_path), "train")
  version = next(data_dir.glob("*/*/1.0.0"))
  (tmp_path / "one").mkdir()
  (tmp_path / "two").mkdir()
  for name in ("one", "two"):
    (tmp_path / name / "1.0.0").symlink_to(version)
  with pytest.raises(UserError, match=r"holds several data sets; name one: .*one, .*two"):
    sources.open_source(data_config(tmp_path), "train")


def changed(version, folder, name, change):
  """The data set with another dataset_info.json or features.json."""
  shutil.copytree(version, folder)
  content = json.loads((version / name).read_text())
  change(content)
  (folder / name).write_text(json.dumps(content))
  return data_config(folder)


def test_a_data_set_that_does_not_fit_is_refused(tmp_path, data_dir):
  version = next(data_dir.glob("*/*/1.0.0"))
  remove = lambda content: content["featuresDict"]["features"].pop("video")
  data = changed(version, tmp_path / "a", "features.json", remove)
  with pytest.raises(UserError, match=r"its feature 'video' is not there; wanted are the bytes"):
    sources.open_source(data, "train")
  other = lambda content: content.update(fileFormat="tfrecord")
  data = changed(version, tmp_path / "b", "dataset_info.json", other)
  with pytest.raises(UserError, match=r"is in tfrecord files, which cannot be read at random"):
    sources.open_source(data, "train")


def test_seconds_survive_exactly(tmp_path):
  """tf.Example's own floats are float32: 2.2 would become 2.2000000477 and take in a frame."""
  features = VfeTabletop(config="verb", data_dir=tmp_path).info.features
  labels = {"verb": 0, "noun": 0}
  record = VideoRecord("v", data=b"\0mp4\0", start=0.1, end=2.2, labels=labels)
  example = base.example(record, read=lambda item: item)[1]
  back = features.deserialize_example_np(features.serialize_example(example))
  assert (back["start"], back["end"], back["video"]) == (0.1, 2.2, record.data)


@pytest.mark.parametrize(
  "stored, text",
  [
    (b'{"caption": "a"}', {"caption": "a"}),
    (b"A man jumps.", {"text": "A man jumps."}),
    (b"7", {"text": "7"}),
    (b"\xff", {"text": "\ufffd"}),
    (b"", {}),
  ],
)
def test_text_of_others_is_kept_as_text(stored, text):
  assert source.text_of(stored) == text
