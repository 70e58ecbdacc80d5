"""What a worker of `vfe.tools.prepare` does: some videos of a source become one shard.

Jobs pickle small and stand alone, so that processes of one machine and the workers of an Apache
Beam runner do the same. Two workers may do the same job at once: what they write is the same.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from etils import epath
from jaxtyping import UInt8

from vfe.data import decode, shards
from vfe.data.faults import Fault, FaultError, reason
from vfe.data.image import is_image
from vfe.data.record import Source, VideoRecord, is_url
from vfe.data.sources import ListedSource


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How a clip is written.

  Attributes:
    short_side: pixels; a smaller picture keeps its size, and so does an image file. Sides are
      rounded to even numbers.
    gop: frames from one keyframe to the next; decoding starts at a keyframe.
    crf: x264's quality, 0 (lossless) to 51; 6 more is about half the bytes.
    max_pixels: a larger picture is skipped as ABSURD_SIZE.
  """

  short_side: int = 256
  gop: int = 16
  crf: int = 20
  max_pixels: int = decode.MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class Part:
  """Records first to last (not included) of a source that does not hold them in memory."""

  source: Source
  first: int
  last: int

  def __iter__(self) -> Iterator[VideoRecord]:
    return (self.source[index] for index in range(self.first, self.last))


@dataclasses.dataclass(frozen=True)
class Job:
  """One shard to write.

  Attributes:
    path: the shard, on local disk or in a bucket (gs://).
    split: which these records are of.
    records: what goes into it, in order.
  """

  path: str
  split: str
  records: Sequence[VideoRecord] | Part
  encoding: Encoding

  @property
  def name(self) -> str:
    """The shard's file name."""
    return epath.Path(self.path).name

  @property
  def note(self) -> epath.Path:
    """Says that the shard is finished, how many videos it holds, what it left out and why, and
    which of the job's records these are."""
    return epath.Path(self.path).with_suffix(".json")


def part(source: Source, first: int, last: int) -> Sequence[VideoRecord] | Part:
  """Records of a source, as little as a job needs: listed ones alone, others through the source."""
  if isinstance(source, ListedSource):
    return [_placed(record) for record in source.records[first:last]]
  return Part(source, first, last)


def _placed(record: VideoRecord) -> VideoRecord:
  """A worker may start in another folder; the name stays as it was given."""
  if record.path is None or is_url(record.path):
    return record
  then = record.then and _placed(record.then)
  return dataclasses.replace(record, path=os.path.abspath(record.path), then=then)


def write(job: Job) -> dict[str, Any]:
  """Writes a shard, then its note, which is returned."""
  skipped: list[dict[str, str]] = []
  missing: list[int] = []

  def encoded() -> Iterator[VideoRecord]:
    for i, record in enumerate(job.records):
      try:
        data = encode(_with_bytes(record), job.encoding)
      except FaultError as error:
        skipped.append(_skip(job.split, error))
        missing.append(i)
      else:
        yield VideoRecord(record.name, data=data, labels=record.labels, text=record.text)

  videos = shards.write_shard(job.path, encoded())
  note = {"videos": videos, "skipped": skipped, "missing": missing}
  write_json(job.note, note)
  return note


def encode(record: VideoRecord, encoding: Encoding) -> bytes:
  """The clip as an mp4 file; an image as it is. Raises FaultError if it cannot be read to its end.

  A video of one picture would halve an image's colours and take longer to open than the image.
  """
  if is_image(record):
    decode.probe(record, max_pixels=encoding.max_pixels)
    return record.data if record.data is not None else epath.Path(record.path).read_bytes()
  buffer = io.BytesIO()
  with decode.open_video(record, max_pixels=encoding.max_pixels) as video:
    fps, _ = video.pace()
    with av.open(buffer, "w", format="mp4") as container:
      stream = None
      for picture in video.play():
        if stream is None:
          stream = _stream(container, picture, fps, encoding)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="AREA")
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
  return buffer.getvalue()


def _stream(
  container: Any, picture: UInt8[np.ndarray, "H W 3"], fps: float, encoding: Encoding
) -> Any:
  height, width = picture.shape[:2]
  factor = min(1.0, encoding.short_side / min(height, width))
  rate = Fraction(max(fps, 0.01)).limit_denominator(1001)
  options = {
    "crf": str(encoding.crf),
    "preset": "fast",
    "g": str(encoding.gop),
    "sc_threshold": "0",  # keyframes at the interval only, none for a cut
    "bf": "0",  # a frame needs those before it, back to the keyframe, and none after it
  }
  stream = container.add_stream("libx264", rate=rate, options=options)
  stream.height, stream.width = (max(2, round(side * factor / 2) * 2) for side in (height, width))
  stream.pix_fmt = "yuv420p"
  stream.codec_context.thread_count = 1  # the same bytes on every machine
  return stream


def _with_bytes(record: VideoRecord) -> VideoRecord:
  """A video in a bucket is fetched whole: FFmpeg opens local files and bytes."""
  if record.path is None or not is_url(record.path):
    return record
  try:
    data = epath.Path(record.path).read_bytes()
  except FileNotFoundError as error:
    raise FaultError(Fault.MISSING, record.name) from error
  return dataclasses.replace(record, path=None, data=data)


def _skip(split: str, error: FaultError) -> dict[str, str]:
  return {
    "split": split,
    "name": error.name,
    "fault": error.fault.name,
    "reason": reason(error.fault),
    "detail": error.detail,
  }


def write_json(path: epath.Path, value: Any) -> None:
  """Writes a JSON file; nobody ever sees a part of it."""
  beside = shards.beside(path)
  beside.write_text(json.dumps(value, indent=2) + "\n")
  beside.replace(path)
