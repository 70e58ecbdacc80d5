import pathlib

import numpy as np
import pytest

from vfe.data import decode
from vfe.data.record import VideoRecord
from vfe.data.segments import Retold, Segments, joined
from vfe.data.sources import ListedSource
from vfe.data.tabletop import World, encode, render, scenario
from vfe.data.tabletop.world import FPS

FRAMES = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A video of 40 frames, the last 24 of them once more, and one that cannot be read."""
  folder = tmp_path_factory.mktemp("videos")
  world = World(rung="verb", frames=FRAMES, size=32)
  path = folder / "a.mp4"
  encode(render(world, scenario(world, 0, "train")), path)
  (folder / "bad.mp4").write_bytes(b"no video")
  records = [
    VideoRecord("a", str(path), text={"caption": "one"}),
    VideoRecord("late", str(path), start=16 / FPS, end=None),
    VideoRecord("bad", str(folder / "bad.mp4")),
  ]
  return ListedSource("some", {}, records)


def test_segments_are_as_long_as_asked_and_lose_no_frame(source):
  cut = Segments.cut(source, 16 / FPS)
  assert cut.of == [0, 0, 0, 1, 1, 2]
  counts = []
  for i in range(5):
    with decode.open_video(cut[i]) as video:
      counts.append(video.count)
  assert counts == [16, 16, 8, 16, 8]
  assert cut[4].name == "late, part 2" and cut[0].text["caption"] == "one"


def test_a_segment_shows_its_own_frames(source):
  with decode.open_video(source[0]) as video:
    whole = dict(video.read(range(FRAMES)))
  with decode.open_video(Segments.cut(source, 16 / FPS)[4]) as video:
    part = dict(video.read(range(8)))
  for i in range(8):
    np.testing.assert_array_equal(part[i], whole[32 + i])


def test_captions_are_told_in_their_order():
  assert joined(["a ball falls. ", " "]) == "Part 1: a ball falls. Part 2: nothing happens."


def test_records_can_be_told_anew(source):
  told = Retold(source, {0: {"segments": "Part 1: x."}})
  assert told[0].text == {"caption": "one", "segments": "Part 1: x."}
  assert told[1] == source[1] and len(told) == 3 and pathlib.Path(told[2].path).name == "bad.mp4"
