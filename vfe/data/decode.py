"""Clips of videos: frames chosen, decoded and cut in one pass.

How frames are found in a file is in `vfe.data.video`, what can be wrong with it in
`vfe.data.faults`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from vfe.data.image import ImageFile
from vfe.data.joined import Joined
from vfe.data.picture import Picture
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sample, Sampling
from vfe.data.video import MAX_PIXELS, Misjudged, Video, open_video


@dataclasses.dataclass(frozen=True)
class VideoInfo:
  """What a video is.

  Attributes:
    frames: how many lie within the record's (start, end).
    fps: frames a second, on average.
    seconds: from the first of them to the end of the last.
    height, width: of the picture as shown, after rotation.
    pixel_aspect: width / height of a pixel as shown; noted, not applied.
    codec: FFmpeg's name of it, e.g. "h264"; of an image, Pillow's, e.g. "jpeg".
    seekable: whether frames are found by time stamp, or by decoding from the start.
  """

  frames: int
  fps: float
  seconds: float
  height: int
  width: int
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
  """What a video is; decodes one frame of it. Raises FaultError."""
  with open_video(record, max_pixels=max_pixels) as video:
    picture = next(video.play())
    fps, seconds = video.pace()
    return VideoInfo(
      frames=video.count,
      fps=fps,
      seconds=seconds,
      height=picture.shape[0],
      width=picture.shape[1],
      pixel_aspect=video.pixel_aspect,
      codec=video.codec,
      seekable=video.seekable,
    )


def read_clip(
  record: VideoRecord,
  frames: int,
  sampling: Sampling,
  rng: np.random.Generator | None,
  *,
  max_pixels: int = MAX_PIXELS,
) -> Clip:
  """One clip at the video's own size; centred without a generator. Raises FaultError."""
  whole = lambda height, width: [np.asarray]
  return read_views(record, frames, sampling, rng, whole, max_pixels=max_pixels)[0]


def read_views(
  record: VideoRecord,
  frames: int,
  sampling: Sampling,
  rng: np.random.Generator | None,
  crops: Callable[[int, int], Sequence[Callable[[np.ndarray | Picture], np.ndarray]]],
  *,
  clips: int = 1,
  short_side: int | None = None,
  max_pixels: int = MAX_PIXELS,
) -> list[Clip]:
  """Crops of one or several clips of a video, which is decoded once. Raises FaultError.

  Args:
    rng: chooses the frames; None for evaluation.
    crops: from the picture's height and width to what is cut out of every frame, e.g.
      `lambda height, width: augment.spatial_crops(height, width, 224, 3)`. Called once, after
      the frames are chosen, so it may draw from the same generator.
    clips: how many temporal views; more than one only without a generator.
    short_side: larger pictures count as shrunk by the largest whole factor that keeps their short
      side at or above it: that is the size which the crops are given. Twice the size of the crops
      is ample. Images are shrunk so; of a video's frames crops take the pixels from the large one.

  Returns:
    clips x crops of them, clip by clip. Equal for equal bytes, arguments and generator state.
  """
  state = None if rng is None else rng.bit_generator.state
  with open_video(record, short_side=short_side, max_pixels=max_pixels) as video:
    while True:
      if rng is None:
        samples = sampling.views(video.count, frames, clips, video.times)
      else:
        rng.bit_generator.state = state
        samples = [sampling.sample(video.count, frames, rng, video.times)]
      try:
        return _cut(video, samples, crops)
      except Misjudged:  # The video knows better now: choose again, by the same chance.
        continue


def _cut(
  video: Video | ImageFile | Joined,
  samples: Sequence[Sample],
  crops: Callable[[int, int], Sequence[Callable[[np.ndarray | Picture], np.ndarray]]],
) -> list[Clip]:
  """Cuts frames as they are decoded, so that large pictures are never in memory together."""
  wanted = sorted({int(i) for sample in samples for i in sample.indices})
  cuts, views = None, None
  for index, picture in video.pictures(wanted):
    cuts = cuts if cuts is not None else crops(*picture.shape[:2])
    pieces = [cut(picture) for cut in cuts]
    if views is None:
      views = [
        [np.empty((len(sample.indices), *piece.shape), np.uint8) for piece in pieces]
        for sample in samples
      ]
    for sample, of_sample in zip(samples, views, strict=True):
      for view, piece in zip(of_sample, pieces, strict=True):
        view[sample.indices == index] = piece
  return [
    Clip(view, sample.start, sample.repeated)
    for sample, of_sample in zip(samples, views, strict=True)
    for view in of_sample
  ]
