"""Clips of videos: chosen, decoded and cut in one pass, the same for the same generator."""

import gc
import io

import av
import numpy as np
import pytest

from vfe.data import augment, decode, video
from vfe.data.decode import probe, read_clip, read_views
from vfe.data.faults import Fault, FaultError
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling

FRAMES, HEIGHT, WIDTH = 40, 48, 64


def numbered(container="mp4", codec="libx264", frames=FRAMES, pixel_aspect=None):
  """A video whose frame i has brightness 6 * i."""
  out = io.BytesIO()
  with av.open(out, "w", format=container) as file:
    stream = file.add_stream(codec, rate=25)
    stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    stream.codec_context.gop_size = 10
    if pixel_aspect is not None:
      stream.codec_context.sample_aspect_ratio = pixel_aspect
    for i in range(frames):
      picture = np.full((HEIGHT, WIDTH, 3), 6 * i, np.uint8)
      file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    file.mux(stream.encode())
  return VideoRecord(name="numbered", data=out.getvalue())


def numbers(frames):
  """Which frames they are, by their brightness."""
  return np.rint(frames.astype(float).mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


@pytest.fixture(scope="module")
def made():
  return numbered()


def center(height, width):
  return [augment.center(height, width, 16)]


def test_a_video_is_probed(made):
  assert probe(made) == decode.VideoInfo(
    frames=40, fps=25.0, seconds=1.6, height=48, width=64, pixel_aspect=1.0, codec="h264",
    seekable=True,
  )


def test_the_aspect_of_pixels_is_noted_and_not_applied():
  info = probe(numbered(pixel_aspect=2))
  assert (info.pixel_aspect, info.height, info.width) == (2.0, 48, 64)


def test_a_clip_without_chance_is_the_centred_one(made):
  clip = read_clip(made, 8, Sampling(stride=2), None)
  assert clip.frames.shape == (8, HEIGHT, WIDTH, 3) and clip.frames.dtype == np.uint8
  assert (clip.start, clip.repeated) == (12, 0)
  assert numbers(clip.frames) == list(range(12, 28, 2))


def test_a_clip_is_a_function_of_the_generator(made):
  clips = [read_clip(made, 8, Sampling(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
  np.testing.assert_array_equal(clips[0].frames, clips[1].frames)
  assert clips[0].start == clips[1].start != clips[2].start
  assert numbers(clips[2].frames) == list(range(clips[2].start, clips[2].start + 8))


def test_a_short_video_shows_what_it_has_and_repeats_the_last_frame(made):
  clip = read_clip(made, 50, Sampling(), None)
  assert (clip.start, clip.repeated) == (0, 10)
  assert numbers(clip.frames) == [*range(40), *[39] * 10]


def test_several_views_of_one_decode_show_the_same_frames(made):
  rng = np.random.default_rng(5)
  crops = lambda height, width: [augment.resized_crop(rng, height, width, 16) for _ in range(3)]
  views = read_views(made, 8, Sampling(), rng, crops)
  assert len(views) == 3 and all(view.frames.shape == (8, 16, 16, 3) for view in views)
  assert len({view.start for view in views}) == 1
  assert all(numbers(view.frames) == numbers(views[0].frames) for view in views)


def test_evaluation_views_are_clips_times_crops(made):
  crops = lambda height, width: augment.spatial_crops(height, width, 16, 3)
  views = read_views(made, 8, Sampling(), None, crops, clips=2)
  assert [view.start for view in views] == [0, 0, 0, 32, 32, 32]
  assert numbers(views[-1].frames) == list(range(32, 40))


def test_crops_are_those_of_the_whole_pictures(made):
  whole = read_clip(made, 4, Sampling("uniform"), None).frames
  cut = read_views(made, 4, Sampling("uniform"), None, center)[0].frames
  by_pillow = [augment.center(HEIGHT, WIDTH, 16)(frame) for frame in whole]
  assert np.abs(cut.astype(int) - by_pillow).max() <= 2  # another order of rounding


def test_a_clip_leaves_no_frames_to_the_garbage_collector(made):
  held = lambda: sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
  gc.collect()
  gc.disable()  # it would come by late, when hundreds of large pictures wait for it
  try:
    before = held()
    read_views(made, 8, Sampling(), None, center)
    assert held() <= before + 1  # a small one, for its side data
  finally:
    gc.enable()


def test_a_path_and_its_bytes_give_the_same(made, tmp_path):
  (tmp_path / "a.mp4").write_bytes(made.data)
  path = VideoRecord(name="a", path=str(tmp_path / "a.mp4"))
  for _ in range(2):  # the second time from the kept index
    clips = [read_clip(which, 6, Sampling("segment"), None) for which in (path, made)]
    np.testing.assert_array_equal(clips[0].frames, clips[1].frames)


@pytest.mark.parametrize("kind", ["strided", "uniform", "segment"])
def test_fewer_frames_than_packets_are_chosen_from_anew_by_the_same_chance(kind, monkeypatch):
  made = numbered("avi", "mpeg4")
  draw = lambda: read_clip(made, 8, Sampling(kind), np.random.default_rng(9))
  honest = draw()
  index = video._index
  boast = lambda packets, *rest: index([*packets, *packets[-1:] * 30], *rest)
  monkeypatch.setattr(video, "_index", boast)
  with video.open_video(made) as opened:
    assert opened.count == 70
  boasted = draw()
  # A clip that by luck lies within what there is stands; one that does not is chosen again.
  assert max(numbers(boasted.frames)) < FRAMES and boasted.repeated == 0
  if kind == "uniform":
    np.testing.assert_array_equal(boasted.frames, honest.frames)


def test_time_stamps_that_lie_are_found_out(made, monkeypatch):
  want = read_clip(made, 6, Sampling("uniform"), None).frames
  index = video._index

  def shifted(packets, *rest):
    for packet in packets[15:]:
      packet.pts += 1
    return index(packets, *rest)

  monkeypatch.setattr(video, "_index", shifted)
  np.testing.assert_array_equal(read_clip(made, 6, Sampling("uniform"), None).frames, want)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mpeg4")])
def test_a_clip_at_a_rate_is_every_so_many_frames_of_an_even_video(container, codec):
  made = numbered(container, codec)  # 25 a second
  first = read_clip(made, 10, Sampling("first", fps=5.0), None)
  assert numbers(first.frames) == [0, 5, 10, 15, 20, 25, 30, 35, 39, 39] and first.repeated == 2
  centred = read_clip(made, 4, Sampling(fps=2.5), None)
  np.testing.assert_allclose(numbers(centred.frames), [4, 14, 24, 34], atol=1)  # MPEG-4 is coarse
  views = read_views(made, 4, Sampling(fps=12.5), None, center, clips=2)
  assert [numbers(view.frames) for view in views] == [[0, 2, 4, 6], [33, 35, 37, 39]]


def test_a_fault_names_the_record():
  with pytest.raises(FaultError, match="shard:7: the file does not open") as caught:
    read_clip(VideoRecord(name="shard:7", data=b"nothing"), 4, Sampling(), None)
  assert caught.value.fault is Fault.UNOPENABLE
