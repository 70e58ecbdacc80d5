"""A clip that crosses from one file into the next is read from both."""

import av
import numpy as np
import pytest

from vfe.data import decode
from vfe.data.ego4d.footage import Footage
from vfe.data.faults import Fault, FaultError
from vfe.data.record import VideoRecord
from vfe.data.reencode import Encoding, encode
from vfe.data.sampling import Sampling, segment
from vfe.data.video import open_video

RATE, CHUNK = 10, 20  # frames a second, and of a chunk


def write(path, levels, size=(48, 32)):
  """Grey pictures, one a level."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=RATE, options={"crf": "4", "g": "5"})
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.codec_context.thread_count = 1
    for level in levels:
      picture = np.full((size[1], size[0], 3), level, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode(None))
  return str(path)


@pytest.fixture(scope="module")
def chunks(tmp_path_factory):
  """Three chunks of two seconds; frame i of the whole video is of level 4 i."""
  folder = tmp_path_factory.mktemp("chunks")
  return [
    write(folder / f"{k}.mp4", range(4 * k * CHUNK, 4 * (k + 1) * CHUNK, 4)) for k in range(3)
  ]


def crossing(chunks, start, end):
  """[start, end) s of the video that the chunks make."""
  first, last = int(start // 2), int(-(-end // 2)) - 1
  record = None
  for k in range(last, first - 1, -1):
    record = VideoRecord(
      "clip", chunks[k], start=start - 2 * k if k == first else None,
      end=end - 2 * k if k == last else None, then=record,
    )  # fmt: skip
  return record


def frames(clip):
  """Which frame of the whole video each picture is."""
  return np.rint(np.median(clip.frames, axis=(1, 2, 3)) / 4).astype(int).tolist()


@pytest.mark.parametrize("span", [(1.5, 2.5), (0.3, 5.7), (1.0, 2.0), (2.0, 4.0), (1.9, 4.1)])
def test_its_frames_are_those_of_the_whole_video(chunks, span):
  record, (start, end) = crossing(chunks, *span), span
  expected = list(range(round(start * RATE), round(end * RATE)))
  count = len(expected)
  clip = decode.read_clip(record, count, Sampling(), None)
  assert frames(clip) == expected and clip.repeated == 0
  thin = decode.read_clip(record, 4, Sampling("segment"), None)
  assert frames(thin) == [expected[i] for i in segment(count, 4, None).indices]
  info = decode.probe(record)
  assert info.frames == count and info.fps == pytest.approx(RATE)
  assert info.seconds == pytest.approx(end - start) and info.seekable
  with open_video(record) as opened:
    np.testing.assert_allclose(opened.times(), np.arange(count) / RATE, atol=1e-6)
    assert len(list(opened.play())) == count


def test_a_random_clip_of_it_is_the_same_for_the_same_generator(chunks):
  record = crossing(chunks, 0.5, 5.5)
  draw = lambda: decode.read_clip(record, 6, Sampling("segment"), np.random.default_rng(7))
  np.testing.assert_array_equal(draw().frames, draw().frames)
  found = frames(draw())
  assert found == sorted(found) and found[0] < 20 < 40 <= found[-1]


def test_a_part_without_frames_is_no_fault_but_a_clip_without_any_is(chunks):
  late = VideoRecord("clip", chunks[0], start=1.99, then=VideoRecord("clip", chunks[1], end=0.3))
  assert frames(decode.read_clip(late, 3, Sampling(), None)) == [20, 21, 22]
  early = VideoRecord("clip", chunks[0], start=1.8, then=VideoRecord("clip", chunks[1], end=0.0))
  assert frames(decode.read_clip(early, 2, Sampling(), None)) == [18, 19]
  none = VideoRecord("clip", chunks[0], start=1.99, then=VideoRecord("clip", chunks[1], end=0.0))
  with pytest.raises(FaultError) as caught:
    decode.probe(none)
  assert caught.value.fault == Fault.EMPTY_CLIP


def test_a_broken_or_missing_part_is_the_clips_fault(chunks, tmp_path):
  (tmp_path / "text.mp4").write_text("<html>")
  for path, fault in (("text.mp4", Fault.UNOPENABLE), ("gone.mp4", Fault.MISSING)):
    for parts in ((chunks[0], tmp_path / path), (tmp_path / path, chunks[0])):
      then = VideoRecord("clip", str(parts[1]))
      with pytest.raises(FaultError) as caught:
        decode.probe(VideoRecord("clip", str(parts[0]), then=then))
      assert caught.value.fault == fault and caught.value.name == "clip"


def test_parts_of_different_sizes_are_a_fault(chunks, tmp_path):
  other = write(tmp_path / "other.mp4", [100] * 5, (64, 48))
  record = VideoRecord("clip", chunks[0], start=1.5, then=VideoRecord("clip", other))
  with pytest.raises(FaultError, match="64x48 after 48x32 in the part before it") as caught:
    decode.read_clip(record, 8, Sampling(), None)
  assert caught.value.fault == Fault.ABSURD_SIZE
  assert frames(decode.read_clip(record, 3, Sampling("first"), None)) == [15, 16, 17]


def test_it_is_reencoded_as_one_file(chunks):
  encoding = Encoding(short_side=32, gop=5, crf=4, max_pixels=1 << 20)
  data = encode(crossing(chunks, 1.5, 2.5), encoding)
  clip = decode.read_clip(VideoRecord("made", data=data), 10, Sampling(), None)
  found = np.median(clip.frames, axis=(1, 2, 3)) / 4
  np.testing.assert_allclose(found, range(15, 25), atol=0.75)  # compressed twice


def test_a_clip_of_a_chunked_video_is_found_by_its_seconds(tmp_path):
  """EgoVLP's chunks are of 600 s; these are two pieces around the border."""
  write(tmp_path / "uid" / "1.mp4", range(0, 100, 4))
  write(tmp_path / "uid" / "0.mp4", [200] * 5)
  footage = Footage.below(tmp_path)
  assert frames(decode.read_clip(footage.record("uid", 600.5, 601.0), 5, Sampling(), None)) == [
    5, 6, 7, 8, 9
  ]  # fmt: skip
