"""Real files of several codecs and containers, and broken ones, with the traps that they hold.

Sizes and frame counts are those that the table beside the files gives, measured with ffprobe and
by decoding everything.
"""

import av
import numpy as np
import pytest

from vfe.data.decode import probe, read_clip
from vfe.data.faults import Fault, FaultError
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.video import Misjudged, open_video

# name: frames, height and width as shown.
VIDEOS = {
  "edge/odd_227x171_yuv444p.mp4": (89, 171, 227),
  "edge/rot90_asl_walk.mov": (89, 640, 480),
  "edge/rotation/video_0.mov": (3, 320, 568),
  "edge/rotation/video_180.mov": (3, 320, 568),
  "edge/rotation/video_90.mov": (3, 568, 320),
  "edge/vfr_strong_24s.mp4": (126, 216, 384),
  "open/asl_gestures/brother.mkv": (65, 480, 640),
  "open/asl_gestures/walk.mkv": (89, 480, 640),
  "open/av1_video.mkv": (125, 360, 640),
  "open/big_buck_bunny_vp8.webm": (24, 720, 1280),
  "open/bigbuckbunny.mp4": (132, 720, 1280),
  "open/bottle-detection.mp4": (1189, 360, 640),
  "open/bt709_full_range.mp4": (30, 720, 1280),
  "open/car-detection.mp4": (377, 432, 768),
  "open/dog_forest.mp4": (96, 464, 848),
  "open/fire2_rot180_vfr.mp4": (25, 720, 1280),
  "open/h264_10bits.mp4": (30, 200, 200),
  "open/h265_video.mp4": (10, 128, 128),
  "open/one-by-one-person-detection.mp4": (1394, 432, 768),
  "open/realshort.mp4": (36, 240, 320),
  "open/test_13_frames.mp4": (13, 224, 398),
  "open/test_video_66x50.mov": (82, 50, 66),  # the header says 87; an edit list hides five
  "open/water_bottle_drumming.mp4": (100, 512, 512),
  "open/world_30s.mp4": (901, 270, 480),
  "open/world_3s_audio_first.mp4": (97, 270, 480),
  "open/world_5s_mpeg4.avi": (150, 270, 480),  # the header says 151
  "open/world_5s_vp9.webm": (150, 270, 480),
}

FAULTS = {
  "audio_only.mp4": Fault.NO_VIDEO_STREAM,
  "bad_video_20bytes.mp4": Fault.UNOPENABLE,
  "corrupted.mp4": Fault.DAMAGED,
  "empty.mp4": Fault.UNOPENABLE,
  "html_error_page.mp4": Fault.UNOPENABLE,
  "one_pixel_1x1.mp4": Fault.ABSURD_SIZE,
  "truncated_moov_missing.mp4": Fault.UNOPENABLE,
}


@pytest.fixture(scope="module")
def videos(real_data):
  return real_data / "videos"


def record(path, **span):
  return VideoRecord(name=path.name, path=str(path), **span)


def test_the_table_names_every_file(videos):
  named = {*VIDEOS, "bad/truncated_moov_first.mp4", *(f"bad/{name}" for name in FAULTS)}
  files = {str(path.relative_to(videos)) for path in videos.rglob("*.*") if path.is_file()}
  assert {name for name in files if "asl_gestures" not in name} <= named <= files


@pytest.mark.parametrize("name", VIDEOS)
def test_frame_counts_and_sizes(videos, name):
  info = probe(record(videos / name))
  assert (info.frames, info.height, info.width) == VIDEOS[name]
  assert info.seekable == (not name.endswith(".avi"))


def plain(path):
  """Every frame by PyAV from the start, as decoded: {index: (pts, bytes)} of about forty."""
  wanted = {}
  with av.open(str(path)) as file:
    stream = file.streams.video[0]
    stream.codec_context.thread_count = 1
    for i, frame in enumerate(file.decode(stream)):
      if i < 6 or i % 37 == 0:
        wanted[i] = frame.pts, frame.to_ndarray().tobytes()
  return wanted


@pytest.mark.parametrize("name", VIDEOS)
def test_seeking_gives_the_frames_of_decoding_everything(videos, name):
  want = plain(videos / name)
  with open_video(record(videos / name)) as opened:
    find = opened._by_time_stamp if opened.index.trusted else opened._from_the_start
    for chosen in (sorted(want), sorted(want)[::5], sorted(want)[-1:]):
      try:
        got = {i: (frame.pts, frame.to_ndarray().tobytes()) for i, frame in find(chosen)}
      except Misjudged:
        pytest.fail("a sound file is not trusted")
      assert got == {i: want[i] for i in chosen}


def test_clips_of_gestures(videos):
  files = sorted((videos / "open" / "asl_gestures").iterdir())
  assert len(files) == 20
  for path in files[::4]:
    clip = read_clip(record(path), 16, Sampling("uniform"), None)
    assert clip.frames.shape == (16, 480, 640, 3) and not clip.repeated


@pytest.mark.parametrize("name", FAULTS)
def test_bad_files_have_their_fault(videos, name):
  with pytest.raises(FaultError) as caught:
    read_clip(record(videos / "bad" / name), 16, Sampling("uniform"), None)
  assert caught.value.fault is FAULTS[name]


def test_frames_before_the_damage_are_good(videos):
  clip = read_clip(record(videos / "bad" / "corrupted.mp4", end=2.8), 28, Sampling(), None)
  assert clip.frames.shape == (28, 720, 1280, 3) and not clip.repeated


def test_a_truncated_file_is_as_long_as_what_is_there(videos):
  path = videos / "bad" / "truncated_moov_first.mp4"  # the header says 200
  with open_video(record(path)) as opened:
    assert opened.count == sum(1 for _ in opened.play()) == 99
  # 97 come in order; of two more a decoder that is flushed at the break has the picture.


def test_turned_files_show_what_their_upright_twin_shows(videos):
  upright = next(iter_frames(videos / "open" / "asl_gestures" / "walk.mkv"))
  turned = next(iter_frames(videos / "edge" / "rot90_asl_walk.mov"))
  np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def iter_frames(path):
  with open_video(record(path)) as opened:
    yield from opened.play()


def test_bt709_full_range_has_its_colours(videos):
  """Against the formula of Rec. ITU-R BT.709, chroma repeated: equal but where chroma changes."""
  path = videos / "open" / "bt709_full_range.mp4"
  with av.open(str(path)) as file:
    frame = next(file.decode(video=0))
    y, cb, cr = (
      np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(float)
      for plane in frame.planes
    )
  cb, cr = (np.kron(chroma - 128, np.ones((2, 2))) for chroma in (cb, cr))
  rgb = np.stack([y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb], axis=-1)
  off = np.abs(next(iter_frames(path)) - rgb.clip(0, 255))
  assert np.median(off) < 1 and off.mean() < 1


def test_seconds_pick_frames_by_their_stamps_where_the_rate_varies(videos):
  path = videos / "edge" / "vfr_strong_24s.mp4"  # 10 a second up to 6 s, then 2, from 14 s on 5
  counts = [probe(record(path, start=s, end=s + 4)).frames for s in (1.0, 8.0, 18.0)]
  assert counts == [40, 8, 20]


def test_a_frame_a_second_goes_by_time_where_the_rate_varies(videos):
  """10 a second up to 6 s, then 2, from 14 s on 5: not every n-th frame for any n."""
  path = videos / "edge" / "vfr_strong_24s.mp4"
  where, expected = record(path), [*range(0, 60, 10), *range(60, 76, 2), *range(76, 126, 5)]
  with open_video(where) as opened:
    times = opened.times()
    sample = Sampling("first", fps=1.0).sample(opened.count, 24, None, opened.times)
    assert sample.indices.tolist() == expected and not sample.repeated
  np.testing.assert_allclose(times[expected], np.arange(24), atol=1e-3)
  clip = read_clip(where, 30, Sampling("first", fps=1.0), None)
  assert clip.repeated == 6 and len(clip.frames) == 30
  half = read_clip(record(path, start=8.0), 8, Sampling("first", fps=0.5), None)
  whole = read_clip(where, 24, Sampling("first", fps=1.0), None)
  np.testing.assert_array_equal(half.frames, whole.frames[8::2])


def test_seeking_saves_most_of_the_decoding(videos):
  """16 frames of 139 s with a keyframe a second: the packets fed are a small part of 1394."""
  with open_video(record(videos / "open" / "one-by-one-person-detection.mp4")) as opened:
    fed = []
    packets_from = opened.packets_from
    opened.packets_from = lambda key: (fed.append(1) or pair for pair in packets_from(key))
    assert len(list(opened.read(range(5, 1394, 90)))) == 16
  assert len(fed) < 1394 // 4
