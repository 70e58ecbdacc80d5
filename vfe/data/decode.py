"""Videos into frames, with PyAV."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from vfe.data import augment
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling

MAX_PIXELS = 8192 * 4608  # a little more than 8K


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """What is known of a video without decoding it.

  Attributes:
    frames: how many it shows within the record's (start, end); by counting packets.
    fps: frames a second, on average.
    seconds: from the first frame to the end of the last.
    height, width: of the picture as shown, after rotation.
    rotation: degrees counter-clockwise by which the stored picture is turned: 0, 90, 180, 270.
    pixel_aspect: width / height of a pixel; noted, not applied.
    codec: FFmpeg's name of it, e.g. "h264".
    seekable: whether frames are found by time stamp and keyframe, or by decoding from the start.
  """

  frames: int
  fps: float
  seconds: float
  height: int
  width: int
  rotation: int
  pixel_aspect: float
  codec: str
  seekable: bool


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames of one clip, RGB.

  Attributes:
    frames: uint8[T, H, W, 3]; of crops, uint8[T, S, S, 3].
    start: index of the first frame within the record's (start, end).
    repeated: how many of the last frames repeat the video's last one because it is short.
  """

  frames: UInt8[np.ndarray, "T H W 3"]
  start: int
  repeated: int


def probe(record: VideoRecord, *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
  """What is known of a video without decoding it. Raises FaultError."""
  raise NotImplementedError


def read_clip(
  record: VideoRecord,
  frames: int,
  sampling: Sampling,
  rng: np.random.Generator | None,
  *,
  max_pixels: int = MAX_PIXELS,
) -> Clip:
  """One clip at the video's own size. Deterministic (centred) without a generator."""
  raise NotImplementedError


def read_views(
  record: VideoRecord,
  frames: int,
  sampling: Sampling,
  rng: np.random.Generator | None,
  crops: Callable[[int, int], Sequence[augment.Crop]],
  *,
  clips: int = 1,
  max_pixels: int = MAX_PIXELS,
) -> list[Clip]:
  """Crops of one or several clips of a video, decoded once.

  Args:
    crops: from the picture's (height, width) to the crops taken of every frame, e.g.
      `lambda height, width: augment.spatial_crops(height, width, 224, 3)`.
    clips: how many temporal views, evenly over the video; 1 with a generator.

  Returns:
    clips x crops of them, clip by clip.
  """
  raise NotImplementedError
