"""What decoded frames look like: RGB as shown, whole or cut and scaled.

A crop goes through one FFmpeg filter graph, from the decoder's own planes to pixels of its size:
what lies outside of it is never converted, and nothing in between is rounded to RGB. The filter is
bilinear with antialiasing (it grows with the factor) for brightness and colour alike; samples of
colour lie in the middle of the pixels that share them. On one machine and version of FFmpeg equal
frames give equal pixels; the arithmetic is the one that does not depend on the processor.
"""

from __future__ import annotations

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from vfe.data.augment import Box

_UNSPECIFIED = 2  # AVCOL_SPC_, AVCOL_TRC_ and AVCOL_PRI_UNSPECIFIED
_MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}  # AVCOL_SPC_, those that the scaler knows
_RANGES = {0, 1, 2}  # AVCOL_RANGE_
_SCALING = "bilinear+accurate_rnd+bitexact"


class Picture:
  """A frame as it is shown; its pixels are made when they are asked for.

  Attributes:
    shape: (H, W, 3) of the whole picture.
    transposed: whether it lies on its side against the stored frame.
  """

  def __init__(self, frame: av.VideoFrame, screen: Screen):
    self._frame, self._screen = _described(frame), screen
    self.transposed, self._mirrored, self._upset = screen.turn(frame)
    width, height = screen.size
    self.shape = (width, height, 3) if self.transposed else (height, width, 3)

  def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
    """The whole picture."""
    del copy  # It is made here.
    return self.whole().astype(dtype or np.uint8, copy=False)

  def whole(self) -> UInt8[np.ndarray, "H W 3"]:
    """The whole picture. A larger frame is shrunk by the mean of the pixels."""
    pixels = self._screen.pixels(self._frame)
    if self.transposed:
      pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[_along(self._upset), _along(self._mirrored)])

  def cut(self, box: Box, size: int, flip: bool) -> UInt8[np.ndarray, "S S 3"]:
    """A box (left, top, right, bottom) of it as a square, mirrored left to right if `flip`.

    The box is rounded to whole pixels of the frame, which may be larger than the picture.
    """
    planes = self._screen.planes(self._frame, self._stored(box), size)
    out = np.empty((size, size, 3), np.uint8)
    for channel, plane in enumerate(planes):
      plane = plane.T if self.transposed else plane
      out[:, :, channel] = plane[_along(self._upset), _along(self._mirrored != flip)]
    return out

  def _stored(self, box: Box) -> Box:
    """The box where it lies before the picture is turned."""
    height, width = self.shape[:2]
    left, top, right, bottom = box
    if self._mirrored:
      left, right = width - right, width - left
    if self._upset:
      top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if self.transposed else (left, top, right, bottom)


class Screen:
  """Makes pixels of a stream's frames, all of the first one's size and turned as that one is.

  Attributes:
    size: width and height of the pictures before they are turned.
  """

  def __init__(self, width: int, height: int):
    self.size = width, height
    self._reformatter = VideoReformatter()
    self._cutters: dict[tuple, _Cutter] = {}
    self._turn: tuple[bool, bool, bool] | None = None

  def turn(self, frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How the stored picture becomes the one shown: transposed, then mirrored, then upset."""
    if self._turn is None:
      # Of a frame whose side data was asked for PyAV lets go only when garbage is collected.
      small = self._reformatter.reformat(frame, 8, 8, "gray", interpolation="POINT", threads=1)
      self._turn = _orientation(small)
    return self._turn

  def pixels(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """The whole frame, RGB, not turned."""
    frame = self._reformatter.reformat(
      frame, *self.size, "rgb24", interpolation="AREA", threads=1
    )
    return frame.to_ndarray()

  def planes(self, frame: av.VideoFrame, box: Box, size: int) -> list[UInt8[np.ndarray, "S S"]]:
    """Red, green and blue of a box of the picture before it is turned."""
    key = _kind(frame), box, size
    if key not in self._cutters:
      across, down = frame.width / self.size[0], frame.height / self.size[1]
      x, width = _whole_pixels(box[0] * across, box[2] * across, frame.width)
      y, height = _whole_pixels(box[1] * down, box[3] * down, frame.height)
      self._cutters[key] = _Cutter(frame, x, y, width, height, size)
    return self._cutters[key](frame)


class _Cutter:
  """A filter graph for frames of one kind: box x, y, width, height to a square of `size`."""

  def __init__(self, like: av.VideoFrame, x: int, y: int, width: int, height: int, size: int):
    across, down = 64 // like.format.chroma_width(64), 64 // like.format.chroma_height(64)
    if not _apart(like.format):
      x -= x % across  # The crop filter counts in bytes, and would begin within a sample.
    self._graph = Graph()
    self._graph.threads = 1  # Workers are the parallelism.
    add = self._graph.add
    nodes = [
      self._source(like),
      add("crop", x=str(x), y=str(y), w=str(width), h=str(height), exact="1"),
      add(
        "scale", w=str(size), h=str(size), flags=_SCALING,
        in_h_chr_pos=_chroma(x, width, across), in_v_chr_pos=_chroma(y, height, down),
      ),
      add("format", pix_fmts="gbrp"),
      add("buffersink"),
    ]  # fmt: skip
    self._graph.link_nodes(*nodes).configure()
    self._in, self._out = nodes[0], nodes[-1]

  def _source(self, like: av.VideoFrame) -> FilterContext:
    name, width, height, matrix, full = _kind(like)
    return self._graph.add(
      "buffer", video_size=f"{width}x{height}", pix_fmt=name, colorspace=str(matrix),
      range=str(full), time_base="1/1",
    )  # fmt: skip

  def __call__(self, frame: av.VideoFrame) -> list[UInt8[np.ndarray, "S S"]]:
    self._in.push(frame)
    cut = self._out.pull()
    green, blue, red = (
      np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
      for plane in cut.planes
    )
    return [red, green, blue]


def _described(frame: av.VideoFrame) -> av.VideoFrame:
  """The frame without what FFmpeg would refuse it for: colours by rare rules count as unspecified.

  Of light (transfer, primaries) nothing is said, as nothing is converted.
  """
  frame.color_trc = frame.color_primaries = _UNSPECIFIED
  if frame.colorspace not in _MATRICES:
    frame.colorspace = _UNSPECIFIED
  if frame.color_range not in _RANGES:
    frame.color_range = 0
  return frame


def _kind(frame: av.VideoFrame) -> tuple[str, int, int, int, int]:
  return frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range


def _apart(pixels: av.VideoFormat) -> bool:
  """Whether every component is a plane of single bytes."""
  parts = pixels.components
  return all(part.bits == 8 for part in parts) and len({part.plane for part in parts}) == len(parts)


def _whole_pixels(low: float, high: float, limit: int) -> tuple[int, int]:
  """Where a stretch begins and how long it is, in pixels of a frame that has `limit` of them."""
  length = min(limit, max(1, round(high - low)))
  return min(max(0, int(low + 0.5)), limit - length), length


def _chroma(start: int, length: int, shared: int) -> str:
  """Where the first sample of colour lies that the crop filter leaves, in 256ths of a pixel.

  It keeps whole samples, each shared by 1, 2 or 4 pixels in a row: the first may begin before
  `start` and the last end past the box, of which the scaler would stretch them to the box's length;
  halving the excess centres that error. -513 stands for nothing to say.
  """
  if shared == 1:
    return "-513"
  middle = 128 * (shared - 1)
  return str(min(512, middle - 256 * (start % shared) + 128 * (-length % shared)))


def _along(reverse: bool) -> slice:
  return slice(None, None, -1 if reverse else 1)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
  """The turn that the frame's side data tell.

  The display matrix holds a, b, u, c, d, v, ... in 16.16 (2.30) fixed point: a stored point (x, y)
  is shown at (a x + c y, b x + d y). Oblique angles go to the nearest right one.
  """
  side = frame.side_data.get(SideData.DISPLAYMATRIX)
  if side is None:
    return False, False, False
  a, b, _, c, d = (int(n) for n in np.frombuffer(bytes(side), np.int32)[:5])
  if abs(a) + abs(d) >= abs(b) + abs(c):
    return False, a < 0, d < 0
  return True, c < 0, b < 0
