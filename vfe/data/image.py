"""Image files as videos of one frame, with Pillow: JPEG, PNG, WebP and BMP, known by their bytes.

FFmpeg reads them too, but decodes a picture before its size can be refused, takes a `%` in a name
for a pattern and applies no EXIF orientation to some formats. Here the header alone gives the size.

What comes out is RGB as a browser shows it: turned by its EXIF orientation, transparent pixels on
white, 16 bits by their upper 8, the first picture of an animation. The frame is shown at second 0.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from vfe.data.faults import Fault, FaultError, check_size
from vfe.data.record import VideoRecord

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow's names

_HEAD = 18  # bytes, by which a file is known
_ORIENTATION = 0x0112  # EXIF's tag
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # bytes of it


def is_image(record: VideoRecord) -> bool:
  """Whether a record's bytes, or those of its file, are an image. A missing file is none."""
  if record.data is not None:
    return _known(record.data[:_HEAD])
  try:
    with open(record.path or "", "rb") as file:
      return _known(file.read(_HEAD))
  except OSError:
    return False  # the opening of it as a video says what is wrong


def _known(head: bytes) -> bool:
  if head[:2] == b"BM":  # too short to go by alone
    return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
  webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
  return webp or head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


class ImageFile:
  """An open image with the face of `vfe.data.video.Video`: one frame, at second 0.

  Attributes:
    count: 1.
    codec: Pillow's name of the format in lower case, e.g. "jpeg".
    pixel_aspect, seekable: 1 and True.
  """

  count, pixel_aspect, seekable = 1, 1.0, True

  def __init__(self, record: VideoRecord, short_side: int | None, max_pixels: int):
    self.record = record
    self._image, self._short_side = self._open(), short_side
    self.codec = self._image.format.lower()
    try:
      check_size(record.name, *self._image.size, max_pixels)
      if (record.start or 0.0) > 0 or (record.end is not None and record.end <= 0):
        raise FaultError(Fault.EMPTY_CLIP, record.name)
    except BaseException:
      self.close()
      raise

  def close(self) -> None:
    self._image.close()

  def pace(self) -> tuple[float, float]:
    """Frames a second and seconds: one of each."""
    return 1.0, 1.0

  def times(self) -> Float64[np.ndarray, "1"]:
    """When the frame is shown."""
    return np.zeros(1)

  def play(self) -> Iterator[np.ndarray]:
    """Yields the picture, uint8[H, W, 3]."""
    yield self._picture()

  def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (0, picture) for the wanted frames, of which there can be but one."""
    for index in wanted:
      yield index, self._picture()

  pictures = read  # Pillow decodes it whole in any case.

  def _open(self) -> Any:
    from PIL import Image  # not where nothing is decoded

    source = self.record.path if self.record.data is None else io.BytesIO(self.record.data)
    try:
      return Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
      raise FaultError(Fault.ABSURD_SIZE, self.record.name, str(error)) from error
    except Exception as error:  # Broken headers end in errors of many kinds.
      raise FaultError(Fault.UNOPENABLE, self.record.name, _words(error)) from error

  def _picture(self) -> UInt8[np.ndarray, "H W 3"]:
    image = self._image
    try:
      if self._short_side:  # JPEG is decoded at a half, a quarter or an eighth at once.
        factor = max(1, min(image.size) // self._short_side)
        image.draft(None, tuple(side // factor for side in image.size))
      image = _rgb(image)
    except Exception as error:  # Pillow's decoders raise many kinds on broken data.
      raise FaultError(Fault.DAMAGED, self.record.name, _words(error)) from error
    if self._short_side and min(image.size) >= 2 * self._short_side:
      image = image.reduce(min(image.size) // self._short_side)
    turn = self._turn()  # after decoding: of a PNG this decodes too, and nothing tells if it breaks
    return np.asarray(image if turn is None else image.transpose(turn))

  def _turn(self) -> Any:
    """What makes the stored picture the one shown; None for nothing, also where EXIF is broken."""
    from PIL.Image import Transpose as T

    turns = (T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE)
    turns += (T.ROTATE_270, T.TRANSVERSE, T.ROTATE_90)
    with contextlib.suppress(Exception):  # It raises whatever its bytes lead to.
      return dict(enumerate(turns, start=2)).get(self._image.getexif().get(_ORIENTATION))
    return None


def _rgb(image: Any) -> Any:
  """The image decoded, as RGB."""
  from PIL import Image

  if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off all above 255
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
  if not image.has_transparency_data:
    return image.convert("RGB")
  image = image.convert("RGBA")
  white = Image.new("RGBA", image.size, "white")
  return Image.alpha_composite(white, image).convert("RGB")


def _words(error: Exception) -> str:
  """One line without the file's name, which the fault has already."""
  if isinstance(error, OSError) and error.filename:
    return error.strerror or type(error).__name__
  words = str(error).splitlines()
  return words[0] if words and "cannot identify" not in words[0] else type(error).__name__
