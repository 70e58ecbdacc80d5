"""Frames as they are shown: whole, and cut out of the decoder's planes."""

import itertools
import os

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vfe.data.picture import Picture, Screen

HEIGHT, WIDTH = 54, 80
UNSPECIFIED, LIMITED, FULL = 2, 1, 2  # AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_MPEG, _JPEG


def painting(height=HEIGHT, width=WIDTH):
  """uint8[H, W, 3]: waves of brightness and slow ones of colour."""
  y, x = np.mgrid[:height, :width] / (height, 1)[0]
  waves = [np.sin(2 * x + y), np.cos(x - 2 * y), np.sin(3 * y)]
  return np.rint(128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def frame(pixels, picture=None):
  """A frame in a pixel format that holds a picture."""
  made = av.VideoFrame.from_ndarray(painting() if picture is None else picture, format="rgb24")
  return made.reformat(format=pixels, interpolation="BICUBIC")


def noise(pixels, height=HEIGHT, width=WIDTH):
  """A frame whose planes are random, colours around grey."""
  made = av.VideoFrame(width, height, pixels)
  rng = np.random.default_rng(0)
  for plane, (low, high) in zip(made.planes, ((40, 200), (108, 148), (108, 148)), strict=True):
    plane.update(rng.integers(low, high, plane.buffer_size, np.uint8).tobytes())
  return made


def shown(of, width=WIDTH, height=HEIGHT):
  return Picture(of, Screen(width, height))


def planes(of):
  """Y, Cb, Cr as float64."""
  return [
    np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].astype(float)
    for plane in of.planes
  ]


def between(samples, count, axis):
  """Colour for each of `count` pixels, every two of which have one sample, midway of them."""
  where = (np.arange(count) - 0.5) / 2
  line = lambda values: np.interp(where, np.arange(len(values)), values)
  return np.apply_along_axis(line, axis, samples)


def reference(of, box, size):
  """BT.601 of a frame in limited range, then Pillow's bilinear crop, in floats."""
  y, cb, cr = planes(of)
  cb, cr = (
    chroma if chroma.shape == y.shape else between(between(chroma, len(y), 0), y.shape[1], 1)
    for chroma in (cb, cr)
  )
  y, cb, cr = (y - 16) * 255 / 219, (cb - 128) * 255 / 224, (cr - 128) * 255 / 224
  rgb = y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb
  images = [Image.fromarray(channel.astype(np.float32)) for channel in rgb]
  cut = [image.crop(box).resize((size, size), Image.Resampling.BILINEAR) for image in images]
  return np.stack(cut, axis=-1).clip(0, 255)


def box_of(draw_from, height=HEIGHT, width=WIDTH):
  """A box of whole pixels whose sides are at least a third of the picture's."""
  w, h = draw_from(st.integers(width // 3, width)), draw_from(st.integers(height // 3, height))
  left, top = draw_from(st.integers(0, width - w)), draw_from(st.integers(0, height - h))
  return left, top, left + w, top + h


def within(off, box, size):
  """Without the edge, where the filter reaches out of the box: Pillow and FFmpeg differ there."""
  edge = 1 + 2 * size // min(box[2] - box[0], box[3] - box[1])
  return off[edge:-edge, edge:-edge]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([12, 32, 77]))
def test_a_cut_is_that_of_pillow_in_floats(data, size):
  """Where every pixel has its own colour there is but the rounding, and that of the weights."""
  box, of = box_of(data.draw), noise("yuv444p")
  off = np.abs(shown(of).cut(box, size, False) - reference(of, box, size))
  assert off.mean() < 2 and within(off, box, size).max() < 0.75


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([12, 32, 77]))
def test_shared_colours_lie_in_the_middle_of_their_pixels(data, size):
  """Wherever the box begins. In one of odd length they are stretched, by half a pixel at its ends,
  over which the picture changes by less than 2 levels."""
  box, of = box_of(data.draw), frame("yuv420p")
  odd = (box[2] - box[0]) % 2 or (box[3] - box[1]) % 2
  off = np.abs(shown(of).cut(box, size, False) - reference(of, box, size))
  assert off.mean() < 1 and within(off, box, size).max() < (3.5 if odd else 1.5)


@pytest.mark.parametrize("turn", itertools.product([False, True], repeat=3))
def test_a_cut_is_of_the_picture_as_shown(turn, monkeypatch):
  monkeypatch.setattr("vfe.data.picture._orientation", lambda of: turn)
  transposed, mirrored, upset = turn
  whole = painting().transpose(1, 0, 2) if transposed else painting()
  whole = whole[:: -1 if upset else 1, :: -1 if mirrored else 1]
  picture = shown(frame("gbrp"))
  assert picture.shape == whole.shape
  np.testing.assert_array_equal(picture.whole(), whole)
  expected = whole[7:47, 5:45]
  np.testing.assert_array_equal(picture.cut((5, 7, 45, 47), 40, False), expected)
  np.testing.assert_array_equal(picture.cut((5, 7, 45, 47), 40, True), expected[:, ::-1])


FORMATS = (
  "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "yuv440p", "nv12", "yuyv422", "p010le",
  "yuv420p10le", "yuv444p16le", "yuva420p", "rgb24", "bgr0", "rgba", "gbrp", "rgb48le",
)  # fmt: skip


@pytest.mark.parametrize("pixels", FORMATS)
def test_every_format_shows_the_same(pixels):
  expected = reference(frame("yuv444p"), (3, 5, 63, 45), 24)
  off = np.abs(shown(frame(pixels)).cut((3, 5, 63, 45), 24, False) - expected)
  assert off.mean() < 2  # as far as the slowest of colours move in half of four pixels


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "monob", "pal8"])
def test_formats_of_few_colours_are_shown_as_the_whole_is(pixels):
  of = frame(pixels) if pixels != "pal8" else palette()
  box = (4, 6, 64, 46)
  whole = Image.fromarray(shown(of).whole()).crop(box)
  expected = np.asarray(whole.resize((24, 24), Image.Resampling.BILINEAR))
  off = np.abs(shown(of).cut(box, 24, False) - expected.astype(float))
  assert within(off, box, 24).max() <= 2


def palette():
  return av.VideoFrame.from_ndarray(
    (painting()[:, :, 0], np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1)), format="pal8"
  )


@pytest.mark.parametrize("matrix", [1, 5, 6, 9, UNSPECIFIED])
@pytest.mark.parametrize("full", [0, LIMITED, FULL])
def test_colours_of_a_cut_are_those_of_the_whole(matrix, full):
  of = noise("yuv444p")
  of.colorspace, of.color_range = matrix, full
  picture = shown(of)
  off = np.abs(picture.cut((0, 0, 50, 50), 50, False) - picture.whole()[:50, :50].astype(int))
  assert off.max() <= 1  # rounding


@pytest.mark.parametrize("light", [0, 3, 16])  # reserved twice, and BT.2100's
def test_light_is_left_as_it_is(light):
  plain, marked = noise("yuv420p"), noise("yuv420p")
  marked.color_trc = marked.color_primaries = light
  np.testing.assert_array_equal(
    shown(marked).cut((0, 0, 50, 50), 20, False), shown(plain).cut((0, 0, 50, 50), 20, False)
  )


@pytest.mark.parametrize("matrix", [3, 8, 10, 14, 99])  # reserved, YCgCo, BT.2020's constant, ICtCp
@pytest.mark.parametrize("pixels", ["yuv420p", "gbrp", "gray"])
def test_colours_by_a_rule_that_ffmpeg_does_not_know_count_as_unspecified(matrix, pixels):
  plain, marked = frame(pixels), frame(pixels)
  marked.colorspace, marked.color_range = matrix, 3
  box = (0, 0, 50, 50)
  np.testing.assert_array_equal(shown(marked).whole(), shown(plain).whole())
  np.testing.assert_array_equal(
    shown(marked).cut(box, 20, False), shown(plain).cut(box, 20, False)
  )


def test_without_scaling_rgb_is_copied():
  cut = shown(frame("gbrp")).cut((3, 5, 43, 45), 40, False)
  np.testing.assert_array_equal(cut, painting()[5:45, 3:43])


def test_boxes_are_of_the_shrunk_picture_and_pixels_of_the_large_one():
  of = noise("yuv444p", 4 * HEIGHT, 4 * WIDTH)
  cut = shown(of).cut((3.25, 5, 43.25, 45), 24, False)
  off = np.abs(cut - reference(of, (13, 20, 173, 180), 24))
  assert within(off, (13, 20, 173, 180), 24).max() < 0.75


def test_a_frame_of_another_size_is_fitted_to_the_pictures():
  screen = Screen(WIDTH, HEIGHT)
  small = Picture(frame("yuv444p"), screen)
  large = Picture(frame("yuv444p", painting(2 * HEIGHT, 2 * WIDTH)), screen)
  assert small.shape == large.shape == small.whole().shape == large.whole().shape
  cuts = [picture.cut((8, 4, 58, 54), 24, False) for picture in (small, large, small)]
  np.testing.assert_array_equal(cuts[0], cuts[2])
  assert np.abs(cuts[0].astype(int) - cuts[1]).mean() < 3


@pytest.mark.parametrize(
  "box", [(0, 0, 1, 1), (79.6, 53.6, 80, 54), (0.5, 0, 54.5, 54), (0, 0, 80, 1)]
)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_any_box_gives_a_square(box, size):
  assert shown(frame("yuv420p")).cut(box, size, True).shape == (size, size, 3)


def test_a_very_large_picture_becomes_a_very_small_one():
  of = frame("yuv420p", np.full((2304, 4096, 3), 77, np.uint8))
  cut = shown(of, 4096, 2304).cut((0, 0, 2304, 2304), 8, False)
  assert np.abs(cut.astype(int) - 77).max() <= 2


def test_shrinking_does_not_alias():
  stripes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  stripes[:, ::2] = 255
  cut = shown(frame("yuv444p", stripes)).cut((0, 0, 48, 48), 12, False)
  assert np.ptp(cut[:, 1:-1]) <= 4  # grey, not stripes


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted on Linux")
def test_cutting_starts_no_threads():
  before = len(os.listdir("/proc/self/task"))
  picture = shown(frame("yuv420p"))
  picture.cut((0, 0, 50, 50), 24, False)
  assert len(os.listdir("/proc/self/task")) == before
