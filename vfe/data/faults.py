"""What can be wrong with a video or image file, and what becomes of it.

| Fault             | When                                                               |
|-------------------|--------------------------------------------------------------------|
| MISSING           | there is no such file, or it may not be read                       |
| UNOPENABLE        | it is empty, neither video nor image, or its header is lost        |
| NO_VIDEO_STREAM   | sound only, or only a cover picture                                |
| NO_DECODER        | this build of FFmpeg cannot decode the video stream                |
| NO_FRAMES         | the video stream holds not one picture that decodes                |
| ABSURD_SIZE       | more than `data.max_pixels` in a picture, or a side below 8; the   |
|                   | files of one clip show pictures of different sizes                 |
| EMPTY_CLIP        | no frame of the video lies within the record's (start, end)        |
| DAMAGED           | a wanted frame does not decode                                     |

Every one has the same outcome: reading raises `FaultError`; the pipeline puts the fault's number
in the batch, serves another video by its rule, and the loop counts and logs path and reason.
Above the share `data.max_fault_share` it is an error.

What is *not* a fault:

* A clip shorter than asked: its frames are sampled and the last one is repeated (`repeated` says
  how often).
* A file cut short whose header survived: the frames that are there make the video, as if it had
  been that short. Only the last, halved frame is lost.
* Damage elsewhere: it costs the frames from the broken packet to the next keyframe. A clip that
  wants none of them is whole; a clip that wants one is DAMAGED. Nothing is repeated over a hole.
* A wrong or missing frame count, duration or frame rate in the header: see `vfe.data.video`.
"""

import enum

MAX_PIXELS = 8192 * 4608  # a little more than 8K; a larger picture is the fault ABSURD_SIZE
MIN_SIDE = 8


class Fault(enum.IntEnum):
  """The number that travels in the batch; 0 says that all is well."""

  NONE = 0
  MISSING = 1
  UNOPENABLE = 2
  NO_VIDEO_STREAM = 3
  NO_DECODER = 4
  NO_FRAMES = 5
  ABSURD_SIZE = 6
  EMPTY_CLIP = 7
  DAMAGED = 8


_REASONS = {
  Fault.NONE: "no fault",
  Fault.MISSING: "the file is missing or may not be read",
  Fault.UNOPENABLE: "the file does not open as a video",
  Fault.NO_VIDEO_STREAM: "the file has no video stream",
  Fault.NO_DECODER: "no decoder for the video's codec",
  Fault.NO_FRAMES: "the video has no frame that decodes",
  Fault.ABSURD_SIZE: "the picture's size is absurd",
  Fault.EMPTY_CLIP: "no frame of the video lies within the clip's start and end",
  Fault.DAMAGED: "a wanted frame does not decode",
}


def reason(fault: int) -> str:
  """The fault in words, for a log line: 'the file has no video stream'."""
  return _REASONS[Fault(fault)]


class FaultError(Exception):
  """A video that cannot be served. Raised by `vfe.data.video` and `image`, caught by the pipeline.

  Attributes:
    fault: which `Fault`.
    name: the record's name, by which a person finds the file.
    detail: what was seen, e.g. '20000x20000 pixels'; may be empty.
  """

  def __init__(self, fault: Fault, name: str, detail: str = ""):
    # All three are arguments of Exception: it crosses from a worker process by pickle.
    super().__init__(fault, name, detail)
    self.fault, self.name, self.detail = fault, name, detail

  def __str__(self) -> str:
    return f"{self.name}: {reason(self.fault)}" + (f" ({self.detail})" if self.detail else "")


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
  """Raises FaultError where a picture is larger than max_pixels, or a side below MIN_SIDE."""
  if width * height > max_pixels or min(width, height) < MIN_SIDE:
    detail = f"{width}x{height}, allowed are sides from {MIN_SIDE} and {max_pixels} pixels"
    raise FaultError(Fault.ABSURD_SIZE, name, detail)
