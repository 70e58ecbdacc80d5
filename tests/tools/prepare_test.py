"""python -m vfe.tools.prepare: videos into shards, and back through data.source='shards'."""

import io
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import av
import ml_collections
import numpy as np
import pytest
from etils.epath import gpath, testing
from PIL import Image

from vfe.data import decode, pipeline, reencode, sources
from vfe.data.ego4d import egoclip
from vfe.data.scenes import scenes_of
from vfe.errors import UserError
from vfe.tools import cli, prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNTS = (12, 7, 16, 9, 12)


def write_video(path, frames, level, rate=10):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate, options={"crf": "8"})
    stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
    stream.codec_context.thread_count = 1
    for i in range(frames):
      picture = np.full((48, 80, 3), level + 8 * i, np.uint8)
      picture[:24] //= 2
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """Five clips, the fourth cut out by time, two broken files, one validation clip."""
  folder = tmp_path_factory.mktemp("videos")
  for i, frames in enumerate(COUNTS):
    write_video(folder / f"{i}.mp4", frames, level=10 * i)
  (folder / "broken.mp4").write_bytes(b"<html>")
  lines = ["path,label,start,end,split,caption"]
  lines += [f"{i}.mp4,{'ab'[i % 2]},,,train,clip {i}" for i in range(3)]
  lines += ["broken.mp4,a,,,train,", "gone.mp4,b,,,val,"]
  lines += ["3.mp4,b,0.2,0.6,train,", "4.mp4,a,,,val,"]
  (folder / "clips.csv").write_text("\n".join(lines) + "\n")
  return folder


def arguments(videos, out, *more):
  return [
    "--source=manifest", f"--path={videos / 'clips.csv'}", f"--out={out}", "--short_side=32",
    "--gop=4", "--shard_size=2", "--workers=1", *more,
  ]


@pytest.fixture(scope="module")
def out(videos, tmp_path_factory):
  out = tmp_path_factory.mktemp("out") / "shards"
  prepare.main(arguments(videos, out))
  return out


def data_config(path, **more):
  return ml_collections.ConfigDict(
    {"source": "shards", "path": str(path), "eval_path": None, "heads": None, **more}
  )


def same_files(one, other):
  assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
  for file in one.iterdir():
    assert (other / file.name).read_bytes() == file.read_bytes()


def whole(record):
  with decode.open_video(record) as video:
    return np.stack(list(video.play()))


def test_what_was_written_is_exact(out, videos):
  described = json.loads((out / "dataset.json").read_text())
  assert described["heads"] == {"label": ["a", "b"]}
  assert described["splits"]["train"]["videos"] == 4
  assert described["splits"]["validation"]["videos"] == 1
  assert [(video["name"], video["split"], video["fault"]) for video in described["skipped"]] == [
    (str(videos / "broken.mp4"), "train", "UNOPENABLE"),
    (str(videos / "gone.mp4"), "validation", "MISSING"),
  ]
  assert described["encoding"]["gop"] == 4
  names = {name for split in described["splits"].values() for name in split["shards"]}
  assert names | {"dataset.json", "prepare.json"} == {file.name for file in out.iterdir()}


def test_images_are_kept_as_they_are(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / "a.png")
  Image.fromarray(picture).save(tmp_path / "b.jpg")
  (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
  write_video(tmp_path / "d.mp4", 3, level=0)
  lines = ["path,caption", "a.png,noise", "b.jpg,more noise", "c.png,half of it", "d.mp4,bright"]
  (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
  out = tmp_path / "shards"
  prepare.main(arguments(tmp_path, out))
  train = sources.open_source(data_config(out), "train")
  assert [train[i].text["caption"] for i in range(len(train))] == ["noise", "more noise", "bright"]
  assert train[1].data == (tmp_path / "b.jpg").read_bytes()
  np.testing.assert_array_equal(whole(train[0]), picture[None])
  [skipped] = json.loads((out / "dataset.json").read_text())["skipped"]
  assert skipped["fault"] == "DAMAGED" and skipped["name"].endswith("c.png")
  (tmp_path / "clips.csv").write_text("\n".join(lines).replace("bright", "dark") + "\n")
  with pytest.raises(UserError, match="begun with another list of videos"):
    prepare.main(arguments(tmp_path, out))


def test_shards_are_read_back(out, videos):
  train = sources.open_source(data_config(out), "train")
  validation = sources.open_source(data_config(out), "validation")
  assert train.heads == validation.heads == {"label": ("a", "b")}
  assert [train[i].labels["label"] for i in range(len(train))] == [0, 1, 0, 1]
  assert [train[i].text.get("caption") for i in range(len(train))] == [
    "clip 0", "clip 1", "clip 2", ""
  ]
  assert "train-00001-of-00003.array_record:0" in train[2].name and "2.mp4" in train[2].name
  assert len(validation) == 1 and validation[0].labels == {"label": 0}
  for record, frames in zip([train[i] for i in range(4)], (12, 7, 16, 4), strict=True):
    assert record.start is None and whole(record).shape == (frames, 32, 54, 3)


def test_the_pictures_are_the_same(out, videos):
  train = sources.open_source(data_config(out), "train")
  original = sources.open_source(
    data_config(videos / "clips.csv", source="manifest"), "train"
  )
  for mine, theirs in ((0, 0), (3, 4)):
    levels = whole(train[mine])[:, [8, 24], 20].mean(-1)
    expected = whole(original[theirs])[:, [12, 36], 30].mean(-1)
    assert np.abs(levels - expected).max() < 4


def test_keyframes_come_as_asked_and_frames_in_order(out):
  record = sources.open_source(data_config(out), "train")[2]
  with av.open(io.BytesIO(record.data)) as container:
    packets = [packet for packet in container.demux(video=0) if packet.size]
  assert [packet.is_keyframe for packet in packets] == [True, False, False, False] * 4
  assert all(packet.pts == packet.dts for packet in packets)


def test_training_reads_shards(out):
  source = sources.open_source(data_config(out), "train")
  spec = pipeline.ClipSpec(frames=4, size=16)
  dataset = pipeline.train_dataset(source, spec, seed=0, batch=4, rows=np.arange(4))
  batch = dataset[0]
  assert sorted(batch["record"]) == [0, 1, 2, 3]
  in_a_worker = pickle.loads(pickle.dumps(dataset))[0]
  np.testing.assert_array_equal(batch["video"], in_a_worker["video"])


def test_a_stopped_run_goes_on_where_it_was(videos, tmp_path, out, monkeypatch):
  written = []
  write = reencode.write

  def stop_after_two(job):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(job.name)
    return write(job)

  monkeypatch.setattr(reencode, "write", stop_after_two)
  with pytest.raises(KeyboardInterrupt):
    prepare.main(arguments(videos, tmp_path / "s"))
  with pytest.raises(UserError, match=r"holds no dataset\.json.*same command again"):
    sources.open_source(data_config(tmp_path / "s"), "train")
  monkeypatch.setattr(
    reencode, "write", lambda job: written.append(job.name) or write(job)
  )
  prepare.main(arguments(videos, tmp_path / "s"))
  assert len(written) == len(set(written)) == 4
  same_files(out, tmp_path / "s")


def test_a_finished_run_is_left_alone(videos, out, capsys):
  before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
  prepare.main(arguments(videos, out))
  assert "complete already" in capsys.readouterr().out
  assert before == {file: file.stat().st_mtime_ns for file in out.iterdir()}


def test_other_content_is_not_written_over(videos, out, tmp_path):
  with pytest.raises(UserError, match=r"was begun with another encoding .*'crf': 20.*'crf': 30"):
    prepare.main(arguments(videos, out, "--crf=30"))
  other = tmp_path / "clips.csv"
  other.write_text(f"path\n{videos}/0.mp4\n")
  with pytest.raises(UserError, match=r"was begun with another list of videos; name another"):
    prepare.main([*arguments(videos, out), f"--path={other}"])
  with pytest.raises(UserError, match=r"holds other files \(clips\.csv\)"):
    prepare.main(arguments(videos, tmp_path))
  with pytest.raises(UserError, match=r"clips\.csv is a file; name a folder"):
    prepare.main(arguments(videos, other))


def test_narrated_clips_keep_their_tags_and_scenes(tmp_path):
  """Also those of shards of shards; of three videos one cannot be read, that of two clips."""
  folder = tmp_path / "ego4d"
  folder.mkdir()
  lines = ["\t".join(egoclip.COLUMNS)]
  clips = (("a", 0), ("broken", 0), ("c", 0), ("broken", 1), ("a", 1), ("c", 1), ("a", 2))
  for i, (uid, start) in enumerate(clips):
    lines.append(f"{uid}\t4\t{start}.5\t{start}\t{start + 1}\t#C C does {i}\t[{i}]\t[{i}, 9]")
  (folder / "egoclip.csv").write_text("\n".join(lines) + "\n")
  for uid in "ac":
    write_video(folder / f"{uid}.mp4", 16, level=0, rate=4)
  (folder / "broken.mp4").write_bytes(b"<html>")
  of = {"egoclip": folder, "shards": tmp_path / "once"}
  for (source, path), out in zip(of.items(), ("once", "again"), strict=True):
    flags = [f"--source={source}", f"--path={path}", f"--out={tmp_path / out}", "--short_side=32"]
    prepare.main([*flags, "--shard_size=2", "--workers=1"])
    found = sources.open_source(data_config(tmp_path / out), "train")
    said = [found[i].text for i in range(len(found))]
    assert [text["caption"][-1] for text in said] == list("02456")
    assert said[2] == {"caption": "#C C does 4", "verbs": [4], "nouns": [4, 9]}
    assert found.taxonomy == {"nouns": 582, "verbs": 118}
    assert [scenes_of(found).members(i).tolist() for i in range(2)] == [[0, 2, 4], [1, 3]]
  assert scenes_of(pickle.loads(pickle.dumps(found))).members(0).tolist() == [0, 2, 4]
  (tmp_path / "again" / "train-scenes.npz").unlink()
  with pytest.raises(UserError, match=r"train-scenes\.npz: is named in dataset.json but does not"):
    sources.open_split(data_config(tmp_path / "again"), "train")


def test_a_variant_of_a_data_set_and_its_texts_are_what_is_written(videos, tmp_path):
  folder = tmp_path / "activitynet"
  (folder / "videos").mkdir(parents=True)
  shutil.copy(videos / "0.mp4", folder / "videos" / "v_a.mp4")
  about = lambda second: {"v_a": {
    "duration": 1.2, "timestamps": [[0, 0.5], [0.5, 1]], "sentences": ["one", second]
  }}  # fmt: skip
  (folder / "train.json").write_text(json.dumps(about("two")))
  argv = ["--source=activitynet", f"--path={folder}", "--short_side=32", "--workers=1"]
  read = lambda out: sources.open_source(data_config(tmp_path / out), "train")
  for out, variant in (("full", []), ("clips", ["--variant=clips"])):
    prepare.main([*argv, f"--out={tmp_path / out}", *variant])
  assert len(read("full")) == 1 and len(read("clips")) == 2
  assert [read("clips")[i].text["caption"] for i in range(2)] == ["one", "two"]
  for changed in (["--variant=clips"], []):
    with pytest.raises(UserError, match="was begun with another list of videos"):
      prepare.main([*argv, f"--out={tmp_path / 'full'}", *changed])
    (folder / "train.json").write_text(json.dumps(about("three")))  # then other words alone
  with pytest.raises(UserError, match=r"variant='clip' is unknown"):
    prepare.main([*argv, f"--out={tmp_path / 'new'}", "--variant=clip"])
  with pytest.raises(UserError, match="--source=manifest has no variants"):
    prepare.main(arguments(videos, tmp_path / "new", "--variant=full"))


def test_several_processes_write_the_same(videos, out, tmp_path):
  prepare.main([*arguments(videos, tmp_path / "s"), "--workers=2"])
  same_files(out, tmp_path / "s")


def test_beam_writes_the_same_and_ends_what_processes_began(videos, out, tmp_path, monkeypatch):
  pytest.importorskip("apache_beam", reason="no Apache Beam: pip install -e '.[beam]'")
  write = reencode.write

  def stop_at_the_second(job):
    if job.name.startswith("train-00001"):
      raise KeyboardInterrupt
    return write(job)

  monkeypatch.setattr(reencode, "write", stop_at_the_second)
  with pytest.raises(KeyboardInterrupt):
    prepare.main(arguments(videos, tmp_path / "s"))
  begun = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").glob("*.array_record")}
  (tmp_path / "s" / ".train-00001-of-00003.array_record.1.ab.tmp").write_bytes(b"half")
  monkeypatch.setattr(reencode, "write", write)
  prepare.main(arguments(videos, tmp_path / "s", "--runner=DirectRunner"))
  same_files(out, tmp_path / "s")
  assert len(begun) == 1 and all(file.stat().st_mtime_ns == time for file, time in begun.items())


def test_beam_options_reach_workers_in_other_processes(videos, out, tmp_path):
  pytest.importorskip("apache_beam", reason="no Apache Beam: pip install -e '.[beam]'")
  flags = arguments(pathlib.Path("videos"), "s", "--", "--direct_num_workers=2")
  flags.append("--direct_running_mode=multi_processing")
  (tmp_path / "videos").symlink_to(videos)
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-m", "vfe.tools.prepare", *flags]
  subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
  described, relative = (json.loads((folder / "dataset.json").read_text())
                         for folder in (out, tmp_path / "s"))
  assert relative["splits"] == described["splits"]
  assert [video["name"] for video in relative["skipped"]] == [
    "videos/broken.mp4", "videos/gone.mp4"
  ]


def test_a_runner_that_does_not_run_is_named(videos, tmp_path, monkeypatch):
  flags = arguments(videos, tmp_path / "s", "--runner=SomeRunner")
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(UserError, match=r"Apache Beam does not import .*pip install -e '\.\[beam\]'"):
    prepare.main(flags)
  monkeypatch.undo()
  pytest.importorskip("apache_beam", reason="no Apache Beam: pip install -e '.[beam]'")
  with pytest.raises(UserError, match=r"--runner=SomeRunner: Unexpected pipeline runner"):
    prepare.main(flags)
  with pytest.raises(UserError, match=r"--direct_num_workers=x: .* invalid int value: 'x'"):
    prepare.main(arguments(videos, tmp_path / "s", "--", "--direct_num_workers=x"))
  assert not (tmp_path / "s").exists()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """gs://bucket, which is a folder."""
  folder = tmp_path / "bucket"
  folder.mkdir()
  local = lambda path: str(path).replace("gs://bucket", str(folder))
  both = lambda original, path, other, **kwargs: original(local(path), local(other), **kwargs)
  one = lambda original, path, *args, **kwargs: original(local(path), *args, **kwargs)
  ones = dict.fromkeys(("open", "exists", "glob", "isdir", "listdir", "makedirs", "mkdir"), one)
  ones |= dict.fromkeys(("remove", "rmtree", "stat"), one)
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  with testing.mock_epath(**ones, **dict.fromkeys(("copy", "rename", "replace"), both)):
    yield folder


def test_videos_and_shards_may_be_in_a_bucket(videos, out, tmp_path, bucket):
  (bucket / "videos").symlink_to(videos)
  listed = tmp_path / "clips.csv"
  text = (videos / "clips.csv").read_text()
  listed.write_text(re.sub(r"(\w+\.mp4)", r"gs://bucket/videos/\1", text))
  flags = arguments(videos, "gs://bucket/shards")
  prepare.main([f"--path={listed}" if flag.startswith("--path") else flag for flag in flags])
  described, mine = (json.loads((folder / "dataset.json").read_text())
                     for folder in (out, bucket / "shards"))
  assert mine["splits"] == described["splits"]
  assert [video["fault"] for video in mine["skipped"]] == ["UNOPENABLE", "MISSING"]
  source = sources.open_source(data_config(bucket / "shards"), "train")
  theirs = sources.open_source(data_config(out), "train")
  assert [source[i].data for i in range(4)] == [theirs[i].data for i in range(4)]
  with pytest.raises(UserError, match=r"gs://bucket/videos/0\.mp4 is in a bucket, .*prepare"):
    sources.open_source(data_config(listed, source="manifest"), "train")


def test_nothing_readable_is_an_error(tmp_path):
  (tmp_path / "a.mp4").write_bytes(b"no")
  with pytest.raises(UserError, match=r"not one training video can be read; the first: .*a\.mp4"):
    prepare.main(["--source=folder", f"--path={tmp_path}", f"--out={tmp_path}/s", "--workers=1"])


def test_errors_are_one_line_and_exit_code_2(videos, tmp_path, capsys):
  for argv, message in [
    (["--source=folder"], "the following arguments are required: --path, --out (see --help)"),
    (arguments(videos, tmp_path, "--gop=0"), "'0' is not a whole number from 1 on (see --help)"),
    (["--source=folder", "--path=/no/such", f"--out={tmp_path}"], "/no/such does not exist"),
  ]:
    with pytest.raises(SystemExit) as exit_:
      cli.run(prepare.main, argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and error.count("\n") == 1
  with pytest.raises(UserError):
    cli.run(prepare.main, ["--source=folder", "--debug"])


def test_shards_that_are_damaged_are_refused(out, tmp_path):
  with pytest.raises(UserError, match=r"holds no dataset\.json; write shards with"):
    sources.open_source(data_config(tmp_path), "train")
  described = json.loads((out / "dataset.json").read_text())
  (tmp_path / "dataset.json").write_text(json.dumps(described))
  with pytest.raises(UserError, match=r"train-00000-of-00003\.array_record: is named in dataset"):
    sources.open_source(data_config(tmp_path), "train")
  described["heads"] = {"label": ["a", "c"]}
  (tmp_path / "dataset.json").write_text(json.dumps(described))
  with pytest.raises(UserError, match=r"its classes are not those of data\.path"):
    sources.open_source(data_config(out, eval_path=str(tmp_path)), "validation")
