"""Seeking gives the frames that decoding from the start gives, and never the wrong ones."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from vfe.data import video
from vfe.data.faults import Fault, FaultError
from vfe.data.record import VideoRecord
from vfe.data.video import Misjudged, open_video

FRAMES, HEIGHT, WIDTH = 60, 48, 64
UNEVEN = np.cumsum(np.random.default_rng(1).integers(20, 200, FRAMES)).tolist()  # milliseconds


def scene(frames=FRAMES, height=HEIGHT, width=WIDTH):
  """Moving texture, so that frames depend on each other and none equals another."""
  texture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
  return [np.roll(texture, (i, 2 * i), axis=(0, 1)) for i in range(frames)]


def encode(
  pictures, codec="libx264", container="mp4", *, options=None, gop=12, reorder=None, stamps=None,
  pixels="yuv420p", rotate=None, flags=None, metadata=None, colours=None, path=None,
):
  """An encoded video as bytes; `stamps` are milliseconds, otherwise 30 frames a second."""
  out = path or io.BytesIO()
  with av.open(out, "w", format=container, container_options=flags or {}) as file:
    file.metadata.update(metadata or {})
    stream = file.add_stream(codec, rate=30, options=options or {})
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt, stream.codec_context.gop_size = pixels, gop
    stream.codec_context.thread_count = 1
    if reorder is not None:
      stream.codec_context.max_b_frames = reorder
    if stamps is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    if rotate is not None:
      stream.set_display_rotation(*rotate)
    if colours is not None:
      stream.codec_context.colorspace, stream.codec_context.color_range = colours
    for i, picture in enumerate(pictures):
      layout = "rgb24" if colours is None else "yuv444p"
      frame = av.VideoFrame.from_ndarray(
        picture if colours is None else np.moveaxis(picture, -1, 0), format=layout
      )
      if colours is not None:
        frame.colorspace, frame.color_range = colours
      if stamps is not None:
        frame.pts, frame.time_base = stamps[i], Fraction(1, 1000)
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return path.read_bytes() if path else out.getvalue()


def record(data, **span):
  return VideoRecord(name="made", data=data, **span)


def plain(data):
  """Every frame, by PyAV from the start: (pts, its bytes as decoded)."""
  with av.open(io.BytesIO(data)) as file:
    file.streams.video[0].codec_context.thread_count = 1
    return [(frame.pts, stored(frame)) for frame in file.decode(video=0)]


def stored(frame):
  return frame.to_ndarray().tobytes()


B_FRAMES = {"x264-params": "bframes=3:b-pyramid=normal:scenecut=0"}
OPEN = {"x264-params": "open-gop=1:bframes=3:scenecut=0"}
REFRESH = {"x264-params": "intra-refresh=1:bframes=0"}
HEVC = {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}
VP9 = {"cpu-used": "8", "deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "12"}
PIECES = {"movflags": "frag_keyframe+empty_moov"}
# name: arguments of encode, and whether frames are found by time stamp to the end.
MADE = {
  "B-frames": ({"options": B_FRAMES}, True),
  "B-frames, mkv": ({"options": B_FRAMES, "container": "matroska"}, True),
  "open groups": ({"options": OPEN}, True),
  "open groups, mkv": ({"options": OPEN, "container": "matroska"}, True),
  "fragments": ({"options": B_FRAMES, "flags": PIECES}, True),
  "keyframes only": ({"gop": 1}, True),
  "one group": ({"gop": 600, "options": B_FRAMES}, True),
  "variable rate": ({"options": B_FRAMES, "stamps": UNEVEN}, True),
  "variable rate, mkv": ({"options": B_FRAMES, "stamps": UNEVEN, "container": "matroska"}, True),
  "keyframes from which nothing is whole at once": ({"options": REFRESH}, False),
  "HEVC, open groups": ({"codec": "libx265", "options": HEVC}, True),
  "VP9 with hidden frames": (
    {"codec": "libvpx-vp9", "container": "webm", "options": VP9}, True
  ),
  "VP8": ({"codec": "libvpx", "container": "webm", "options": VP9}, True),
  "MPEG-4 with B-frames": ({"codec": "mpeg4", "reorder": 2}, True),
  "MPEG-4 with B-frames, avi": ({"codec": "mpeg4", "reorder": 2, "container": "avi"}, False),
  "H.264, avi": ({"options": B_FRAMES, "container": "avi"}, False),
  "H.264, transport stream": ({"options": B_FRAMES, "container": "mpegts"}, False),
  "H.264 without a container": ({"options": B_FRAMES, "container": "h264"}, False),
  "MPEG-2 with B-frames": ({"codec": "mpeg2video", "reorder": 2, "container": "mpeg"}, False),
}


@pytest.mark.parametrize("name", MADE)
def test_wanted_frames_are_those_that_decoding_everything_gives(name):
  arguments, trusted = MADE[name]
  data = encode(scene(), **arguments)
  want = plain(data)
  rng = np.random.default_rng(0)
  choices = [sorted(rng.choice(FRAMES, 6, replace=False).tolist()) for _ in range(6)]
  with open_video(record(data)) as opened:
    assert opened.count == len(want) == FRAMES
    for chosen in [list(range(FRAMES)), *choices, [0], [FRAMES - 1]]:
      try:
        find = opened._by_time_stamp if opened.index.trusted else opened._from_the_start
        got = [(i, frame.pts, stored(frame)) for i, frame in find(chosen)]
      except Misjudged:
        got = [(i, frame.pts, stored(frame)) for i, frame in opened._from_the_start(chosen)]
      assert got == [(i, *want[i]) for i in chosen]
    assert opened.index.trusted == trusted


def test_seeking_skips_what_need_not_be_decoded(monkeypatch):
  fed = []
  packets = video._packets
  monkeypatch.setattr(
    video, "_packets", lambda *a: (fed.append(packet) or packet for packet in packets(*a))
  )
  with open_video(record(encode(scene(), options=B_FRAMES))) as opened:
    fed.clear()
    assert [index for index, _ in opened.read([2, 50])] == [2, 50]
  assert len(fed) < 20  # of 60: the start of the first group, and the fifth


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
@pytest.mark.parametrize(
  ("span", "expected"),
  [
    ((None, 0.5), range(15)),
    ((1.0, None), range(30, 60)),
    ((0.7, 1.3), range(21, 39)),  # 0.7 s is the stamp of frame 21, 1.3 s of the first not shown
    ((1.9, 9.0), range(57, 60)),
    ((-1.0, 0.1), range(3)),
  ],
)
def test_start_and_end_pick_frames_by_time(container, span, expected):
  codec = "libx264" if container != "avi" else "mpeg4"
  data = encode(scene(), codec, container, reorder=2 if codec == "libx264" else 0)
  with open_video(record(data)) as whole:
    pictures = list(whole.play())
  with open_video(record(data, start=span[0], end=span[1])) as part:
    assert part.count == len(expected)
    shown = list(part.play())
  np.testing.assert_array_equal(shown, [pictures[i] for i in expected])


def test_start_and_end_are_times_not_frame_numbers():
  data = encode(scene(), stamps=UNEVEN, options=B_FRAMES)
  first, last = UNEVEN[20], UNEVEN[29]
  # Times count from the file's start, which is its first frame here.
  start, end = (first - UNEVEN[0]) / 1000, (last - UNEVEN[0]) / 1000
  with open_video(record(data)) as whole, open_video(record(data, start=start, end=end)) as part:
    assert part.count == 9
    np.testing.assert_array_equal(next(part.play()), list(whole.play())[20])


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ({"stamps": UNEVEN, "options": B_FRAMES}, (np.array(UNEVEN) - UNEVEN[0]) / 1000),
    ({"codec": "mpeg4", "container": "avi"}, np.arange(FRAMES) / 30),
    ({"options": B_FRAMES, "container": "h264"}, np.arange(FRAMES) / 30),  # no stamps at all
  ],
)
def test_frames_have_the_times_at_which_they_are_shown(arguments, expected):
  with open_video(record(encode(scene(), **arguments))) as opened:
    rate = 1 if arguments.get("container") != "h264" else opened.pace()[0] / 30
    np.testing.assert_allclose(opened.times() * rate, expected, atol=1e-3)


def test_times_of_a_clip_count_from_its_first_frame():
  data = encode(scene(), stamps=UNEVEN, options=B_FRAMES)
  with open_video(record(data, start=(UNEVEN[20] - UNEVEN[0]) / 1000)) as part:
    np.testing.assert_allclose(part.times(), (np.array(UNEVEN[20:]) - UNEVEN[20]) / 1000, atol=1e-3)


def test_packets_of_a_clip_are_read_and_not_those_of_the_whole_file():
  data = encode(scene(), options=B_FRAMES)
  with open_video(record(data, start=1.0, end=1.2)) as part:
    assert len(part.index.pts) < 30


def test_a_file_is_indexed_once_until_it_changes(tmp_path, monkeypatch):
  path = tmp_path / "a.mp4"
  path.write_bytes(encode(scene(20)))
  scans = []
  scan = video.Video._scan
  monkeypatch.setattr(video.Video, "_scan", lambda self: scans.append(1) or scan(self))
  where = VideoRecord(name="a", path=str(path))
  for frames in (20, 20, 30):
    if frames == 30:
      path.write_bytes(encode(scene(30)))
    with open_video(where) as opened:
      assert opened.count == frames
  assert len(scans) == 2


# Degrees counter-clockwise, mirrored; and what a player shows of the stored picture.
TURNED = {
  (0,): lambda p: p,
  (90,): lambda p: np.rot90(p),
  (180,): lambda p: np.rot90(p, 2),
  (-90,): lambda p: np.rot90(p, -1),
  (0, True): lambda p: p[:, ::-1],
  (0, False, True): lambda p: p[::-1],
}


@pytest.mark.parametrize("rotate", TURNED)
def test_the_picture_is_shown_as_a_player_turns_it(rotate):
  ramp = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  ramp[:, :, 0], ramp[:, :, 1] = np.arange(WIDTH) * 3, np.arange(HEIGHT)[:, None] * 4
  data = encode([ramp] * 2, pixels="yuv444p", options={"qp": "0"}, rotate=rotate)
  with open_video(record(data)) as opened:
    shown = next(opened.play())
  expected = TURNED[rotate](ramp)
  assert shown.shape == expected.shape
  assert np.abs(shown.astype(int) - expected).max() <= 6  # 8-bit YUV and back, twice rounded


def rgb(yuv, matrix, full):
  """Rec. ITU-R BT.601 and BT.709: R'G'B' of one Y'CbCr colour."""
  red, blue = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}[matrix]
  y, cb, cr = yuv[0], yuv[1] - 128.0, yuv[2] - 128.0
  if not full:
    y, cb, cr = (y - 16) * 255 / 219, cb * 255 / 224, cr * 255 / 224
  r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
  return np.clip([r, (y - red * r - blue * b) / (1 - red - blue), b], 0, 255)


@pytest.mark.parametrize("matrix", ["601", "709"])
@pytest.mark.parametrize("full", [False, True])
def test_colours_go_by_matrix_and_range(matrix, full):
  yuv = (120, 90, 180)
  colours = ({"601": 6, "709": 1}[matrix], 2 if full else 1)  # AVColorSpace, AVColorRange
  picture = np.full((HEIGHT, WIDTH, 3), yuv, np.uint8)
  data = encode([picture] * 2, pixels="yuv444p", options={"qp": "0"}, colours=colours)
  with open_video(record(data)) as opened:
    shown = next(opened.play())
  assert np.abs(shown - rgb(yuv, matrix, full)).max() <= 2


def test_large_pictures_are_shrunk_by_a_whole_factor():
  data = encode(scene(3, 96, 160))
  for short_side, shape in ((96, (96, 160)), (48, (48, 80)), (33, (48, 80)), (32, (32, 53))):
    with open_video(record(data), short_side=short_side) as opened:
      assert next(opened.play()).shape == (*shape, 3)


def test_metadata_that_is_not_utf8_is_no_fault():
  data = encode(scene(3), metadata={"title": "thetitle"})
  assert b"thetitle" in data
  with open_video(record(data.replace(b"thetitle", b"th\xff\xfe\xe9tle"))) as opened:
    assert len(list(opened.play())) == 3


def test_the_better_of_two_streams_is_shown():
  out = io.BytesIO()
  with av.open(out, "w", format="matroska") as file:
    streams = []
    for height, width in ((32, 48), (96, 128)):
      stream = file.add_stream("libx264", rate=30)
      stream.height, stream.width = height, width
      streams.append(stream)
    for small, large in zip(scene(9, 32, 48), scene(9, 96, 128), strict=True):
      for stream, picture in zip(streams, (small, large), strict=True):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    for stream in streams:
      file.mux(stream.encode())
  with open_video(record(out.getvalue())) as opened:
    assert next(opened.play()).shape == (96, 128, 3)


def sound(cover=False):
  """Sound alone, or with a cover picture as music files have it."""
  out = io.BytesIO()
  with av.open(out, "w", format="mp4") as file:
    stream = file.add_stream("aac", rate=8000)
    picture = file.add_stream("mjpeg", rate=30) if cover else None
    if cover:
      picture.height, picture.width, picture.pix_fmt = 32, 32, "yuvj420p"
      picture.disposition = av.stream.Disposition.attached_pic
      frame = av.VideoFrame.from_ndarray(scene(1, 32, 32)[0], format="rgb24")
      file.mux(picture.encode(frame.reformat(format="yuvj420p")))
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate = 8000
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return out.getvalue()


def no_frames():
  out = io.BytesIO()
  with av.open(out, "w", format="mp4", container_options={"movflags": "empty_moov"}) as file:
    stream = file.add_stream("libx264", rate=30)
    stream.height, stream.width = HEIGHT, WIDTH
    file.start_encoding()
  return out.getvalue()


FAULTY = {
  "empty": (lambda: b"", {}, Fault.UNOPENABLE),
  "a web page": (lambda: b"<html><body>404 Not Found</body></html>", {}, Fault.UNOPENABLE),
  "header lost": (lambda: encode(scene())[:2000], {}, Fault.UNOPENABLE),
  "sound": (sound, {}, Fault.NO_VIDEO_STREAM),
  "sound with a cover": (lambda: sound(True), {}, Fault.NO_VIDEO_STREAM),
  "unknown codec": (lambda: encode(scene(3)).replace(b"avc1", b"zzzz"), {}, Fault.NO_DECODER),
  "no frames": (no_frames, {}, Fault.NO_FRAMES),
  "too small": (lambda: encode(scene(3, 4, 16)), {}, Fault.ABSURD_SIZE),
  "clip past the end": (lambda: encode(scene()), {"start": 5.0, "end": 6.0}, Fault.EMPTY_CLIP),
  "clip past the end, avi": (
    lambda: encode(scene(), "mpeg4", "avi"), {"start": 5.0}, Fault.EMPTY_CLIP
  ),
  "clip between frames": (
    lambda: encode(scene()), {"start": 0.501, "end": 0.502}, Fault.EMPTY_CLIP
  ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_every_fault_is_told_apart(name):
  make, span, fault = FAULTY[name]
  with pytest.raises(FaultError) as caught, open_video(record(make(), **span)) as opened:
    list(opened.play())
  assert caught.value.fault is fault and caught.value.name == "made"


def test_a_missing_file_and_a_folder(tmp_path):
  for path, fault in ((tmp_path / "no.mp4", Fault.MISSING), (tmp_path, Fault.UNOPENABLE)):
    with pytest.raises(FaultError) as caught, open_video(VideoRecord(name="x", path=str(path))):
      pass
    assert caught.value.fault is fault


def test_a_picture_larger_than_allowed():
  large = record(encode(scene(3)))
  with pytest.raises(FaultError, match="64x48"), open_video(large, max_pixels=64 * 48 - 1):
    pass


FAST_START = {"movflags": "+faststart"}


def test_a_file_cut_short_is_as_long_as_what_is_there(tmp_path):
  data = encode(scene(), options=B_FRAMES, flags=FAST_START, path=tmp_path / "a.mp4")
  with open_video(record(data)) as whole, open_video(record(data[: len(data) // 2])) as half:
    assert 20 < half.count < 40
    pictures, there = list(whole.play()), list(half.play())
  assert len(there) == half.count
  # In the order of decoding a B-frame comes after the frame it precedes, so the last few have gaps.
  np.testing.assert_array_equal(there[:20], pictures[:20])


def test_damage_costs_the_frames_up_to_the_next_keyframe():
  data = bytearray(encode(scene(), options={"x264-params": "bframes=0:scenecut=0"}))
  with open_video(record(bytes(data))) as whole:
    pictures = list(whole.play())
  with av.open(io.BytesIO(bytes(data))) as file:
    packet = list(file.demux(video=0))[30]
  data[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"  # the length of a unit, past the end
  with open_video(record(bytes(data))) as damaged:
    got = dict(damaged.read([0, 29, 36, 59]))
    assert all((got[i] == pictures[i]).all() for i in (0, 29, 36, 59))
    for lost in ([30], [0, 35]):
      with pytest.raises(FaultError) as caught:
        list(damaged.read(lost))
      assert caught.value.fault is Fault.DAMAGED
      assert f"frame {lost[-1]} at" in str(caught.value)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_any_damage_ends_in_frames_or_a_fault(container):
  whole = encode(scene(), options=B_FRAMES, container=container)
  rng = np.random.default_rng(0)
  for _ in range(60):
    data = bytearray(whole)
    for at in (*rng.integers(len(data), size=10), *rng.integers(1500, size=5)):
      data[at] = rng.integers(256)
    try:
      with open_video(record(bytes(data))) as opened:
        assert all(picture.ndim == 3 for picture in opened.play())
    except FaultError as error:
      assert error.fault is not Fault.NONE
