"""The cache of mp4 files: what decodes is what was drawn, and writing is safe and done once."""

import json
import os
import subprocess
import sys

import av
import numpy as np
import pytest

import vfe
from vfe.data import tabletop
from vfe.data.decode import read_clip
from vfe.data.record import Source, VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.tabletop import asking, files, workers
from vfe.data.tabletop.files import TabletopSource, encode, world_folder, write_cache
from vfe.data.tabletop.story import labels, scenario
from vfe.data.tabletop.text import texts
from vfe.data.tabletop.world import FPS, RUNGS, World, heads
from vfe.errors import UserError

TINY = World(size=32, frames=16, rung="verb")
CONFIG = dict(
  source="tabletop",
  frames=16,
  size=32,
  tabletop=dict(
    rung="verb", videos=5, eval_videos=3, frames=16, size=32, objects=(2, 4), texture="weak", seed=0
  ),
)


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def planes(frames):
  return np.stack([frame.reformat(format="yuv420p").to_ndarray() for frame in frames]).astype(float)


@pytest.mark.parametrize("texture", ["still", "weak", "strong"])
@pytest.mark.parametrize("size", [32, 64])
def test_what_decodes_is_what_was_drawn(tmp_path, size, texture):
  """Every frame is there, and its planes are off by less than a step of the quantiser (rms).

  H.264's transform is orthonormal and a coefficient, dead zone included, is off by less than a
  step: 0.625 * 2^(QP/6), with QP at most crf + 6 log2(1.3), x264's for a B frame. The planes are
  compared because halving the colour's resolution, before any coding, costs far more in RGB.
  """
  world = World(size=size, frames=64, texture=texture)
  step = 0.625 * 2 ** (int(files.ENCODING["crf"]) / 6) * 1.3
  for index in range(6):
    video = tabletop.render(world, scenario(world, index))
    encode(video, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
      stream = container.streams.video[0]
      decoded = list(container.decode(stream))
      assert stream.codec_context.name == "h264" and stream.average_rate == FPS
    assert len(decoded) == len(video) and (decoded[0].height, decoded[0].width) == (size, size)
    drawn = [av.VideoFrame.from_ndarray(pixels, format="rgb24") for pixels in video]
    assert np.sqrt(np.mean(np.square(planes(decoded) - planes(drawn)))) < step


def test_a_file_has_its_index_first_and_a_keyframe_every_sixteen_frames(tmp_path):
  world = World(size=32, frames=64)
  encode(tabletop.render(world, scenario(world, 0)), tmp_path / "a.mp4")
  start = (tmp_path / "a.mp4").read_bytes()[:4096]
  assert start.find(b"moov") < start.find(b"mdat")
  with av.open(str(tmp_path / "a.mp4")) as container:
    packets = [p for p in container.demux(video=0) if p.size]
    assert sum(packet.is_keyframe for packet in packets) == 4
    assert container.streams.video[0].frames == 64


def test_the_bytes_of_a_file_are_a_function_of_its_frames(tmp_path):
  """Memory that was used in between must not show in what x264 decides."""
  world = World(size=64, frames=64, texture="strong")
  video = tabletop.render(world, scenario(world, 0))
  rng = np.random.default_rng(0)
  written = set()
  for _ in range(4):
    used = [rng.bytes(rng.integers(100, 300_000)) for _ in range(30)]
    del used[::2]
    encode(video, tmp_path / "a.mp4")
    written.add((tmp_path / "a.mp4").read_bytes())
  assert len(written) == 1


def test_files_are_written_once_and_reused(tmp_path, monkeypatch):
  manifest = write_cache(TINY, "train", 3, tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.is_file()}
  assert len(before) == 4
  monkeypatch.setattr(files, "render", None)  # drawing again would fail
  assert write_cache(TINY, "train", 3, tmp_path) == manifest
  assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.is_file()}


def test_more_videos_keep_the_first_ones_and_a_lost_one_is_written_again(tmp_path):
  videos = write_cache(TINY, "train", 2, tmp_path).parent / "train"
  first = contents(videos)
  (videos / "000001.mp4").unlink()
  (videos / ".000001.mp4.77.abc").write_bytes(b"what a killed process left")
  write_cache(TINY, "train", 3, tmp_path)
  after = contents(videos)
  assert set(after) == {"000000.mp4", "000001.mp4", "000002.mp4", ".000001.mp4.77.abc"}
  assert all(after[name] == data for name, data in first.items())


def test_other_settings_other_codecs_and_other_generators_never_share_a_folder(monkeypatch):
  folders = {world_folder(TINY), world_folder(World())}
  with monkeypatch.context() as patch:
    patch.setattr(av, "library_versions", {**av.library_versions, "libavcodec": (1, 2, 3)})
    folders.add(world_folder(TINY))
  monkeypatch.setattr("vfe.data.tabletop.world.GENERATOR", 99)
  folders.add(world_folder(TINY))
  assert len(folders) == 4


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  monkeypatch.delenv("VFE_CACHE", raising=False)
  assert files.cache_folder() == tmp_path / "xdg" / "vfe" / "tabletop"
  monkeypatch.setenv("VFE_CACHE", str(tmp_path / "own"))
  assert files.cache_folder() == tmp_path / "own" / "tabletop"


def test_two_processes_at_once_leave_what_one_would(tmp_path):
  alone = contents(write_cache(TINY, "train", 12, tmp_path / "one").parent / "train")
  root = os.path.dirname(os.path.dirname(vfe.__file__))
  code = (
    "import sys; from vfe.data.tabletop import World, write_cache;"
    "write_cache(World(size=32, frames=16, rung='verb'), 'train', 12, sys.argv[1])"
  )
  command = [sys.executable, "-c", code, str(tmp_path / "two")]
  environment = {**os.environ, "PYTHONPATH": root}
  both = [subprocess.Popen(command, env=environment, cwd=tmp_path) for _ in range(2)]
  assert [process.wait() for process in both] == [0, 0]
  (place,) = (tmp_path / "two").iterdir()
  assert contents(place / "train") == alone
  assert len((place / "train-12.jsonl").read_text().splitlines()) == 12


def test_worker_processes_write_what_this_one_would(tmp_path, monkeypatch):
  here = contents(write_cache(TINY, "validation", 6, tmp_path / "here").parent / "validation")
  monkeypatch.setattr(workers, "ENOUGH", 2)
  monkeypatch.setattr(workers, "cores", lambda: 2)
  there = contents(write_cache(TINY, "validation", 6, tmp_path / "there").parent / "validation")
  assert here == there


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="VFE_CACHE") as error:
    write_cache(TINY, "train", 1, tmp_path / "file")
  assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
  with pytest.raises(UserError, match="split 'val'"):
    write_cache(TINY, "val", 1, tmp_path)


def test_the_manifest_names_files_labels_and_texts(tmp_path):
  manifest = write_cache(TINY, "test", 4, tmp_path)
  for index, line in enumerate(manifest.read_text().splitlines()):
    row = json.loads(line)
    scene = scenario(TINY, index, "test")
    assert (manifest.parent / row["path"]).is_file() and row["split"] == "test"
    for head, names in heads("verb").items():
      assert row[f"label_{head}"] == names[labels(scene)[head]]
    assert {key: row[key] for key in texts(scene)} == texts(scene)


def test_a_manifest_without_todays_texts_is_written_again(tmp_path):
  manifest = write_cache(TINY, "test", 2, tmp_path)
  today = manifest.read_text()
  rows = [json.loads(line) for line in today.splitlines()]
  old = [{key: row[key] for key in row if key != "order"} for row in rows]
  manifest.write_text("".join(json.dumps(row) + "\n" for row in old))
  assert write_cache(TINY, "test", 2, tmp_path) == manifest and manifest.read_text() == today


def test_an_image_of_a_video_is_one_of_its_frames(tmp_path, monkeypatch):
  """What an image stage trains on: frames=1, another frame of each video every time."""
  monkeypatch.setenv("VFE_CACHE", str(tmp_path))
  source = TabletopSource(CONFIG, "train")
  videos = [read_clip(record, 16, Sampling("first"), None).frames for record in source]
  drawn = {}
  for seed in range(16):
    rng = np.random.default_rng(seed)
    for record, video in zip(source, videos, strict=True):
      image = read_clip(record, 1, Sampling(), rng)
      np.testing.assert_array_equal(image.frames[0], video[image.start])
      drawn.setdefault(record.name, set()).add(image.start)
  assert all(len(starts) > 4 for starts in drawn.values())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_source_serves_records_with_the_rungs_labels(split, tmp_path, monkeypatch, caplog):
  monkeypatch.setenv("VFE_CACHE", str(tmp_path))
  caplog.set_level("INFO")
  source = TabletopSource(CONFIG, split)
  assert isinstance(source, Source) and source.heads == heads("verb")
  assert len(source) == len(list(source)) == {"train": 5, "validation": 3}[split]
  said = [r.message for r in caplog.records if "an epoch of" in r.message]
  assert len(said) == 1 and f"{len(source)} videos" in said[0]
  for index in range(len(source)):
    record = source[index]
    assert isinstance(record, VideoRecord) and os.path.isfile(record.path)
    assert set(record.labels) == set(source.heads)
    assert record.labels["verb"] == labels(scenario(TINY, index, split))["verb"]
    assert {*texts(scenario(TINY, index, split)), "narrations", "questions"} == set(record.text)


def test_every_question_is_a_record_of_the_variant_questions(tmp_path, monkeypatch, caplog):
  monkeypatch.setenv("VFE_CACHE", str(tmp_path))
  caplog.set_level("INFO")
  own = {**CONFIG["tabletop"], "rung": "order", "frames": 32, "objects": (3, 4), "videos": 12}
  data = {**CONFIG, "variant": "questions", "tabletop": own}
  source, videos = TabletopSource(data, "train"), TabletopSource({**data, "variant": None}, "train")
  assert len(source) == len(list(source)) > len(videos) == 12
  assert f"12 videos of 32 frames, 32x32 pixels, {len(source)} questions on them" in caplog.text
  by_path = {record.path: record for record in videos}
  asked = [record.text for record in source]
  names = {record.name for record in source}
  assert len(names) == len({text["id"] for text in asked}) == len(asked)
  assert {text["type"] for text in asked} == {"whole", "ends"}
  for record in source:
    text, video = record.text, by_path[record.path]
    assert record.labels == video.labels and {**text, **video.text} == text
    assert text["answers"] == (text["options"][text["answer"]],) and len(text["options"]) == 5
    assert text["question"] in (asking.ASK_WHOLE, asking.ASK_ENDS)
  with pytest.raises(UserError, match=r"data\.variant='question' .*nearest: questions"):
    TabletopSource({**data, "variant": "question"}, "train")


@pytest.mark.parametrize("rung", RUNGS)
def test_size_and_frames_default_to_those_of_the_data(rung):
  own = dict(rung=rung, frames=None, size=None, objects=(2, 3))
  world = files.world_of(dict(frames=96, size=48, tabletop=own))
  assert world == World(size=48, frames=96, rung=rung, objects=(2, 3))


def test_a_source_without_videos_is_refused(tmp_path, monkeypatch):
  monkeypatch.setenv("VFE_CACHE", str(tmp_path))
  config = {**CONFIG, "tabletop": {**CONFIG["tabletop"], "eval_videos": 0}}
  with pytest.raises(UserError, match="0 videos for validation"):
    TabletopSource(config, "validation")
