"""Finding frames in video files, with PyAV: the wanted ones only, in file order.

What a header says (frame count, duration, rate) is not believed. The packets of the clip are read
once without decoding them, a few milliseconds a minute of video, and give the time stamp of
every frame and which packets are keyframes. Then:

* In mp4, mov, mkv and webm a frame is found by its time stamp: decoding starts at the last
  keyframe before it if that lies ahead, else goes on from where it stands. Every frame that comes
  out is held against the packets' time stamps; at the first disagreement the file is not trusted.
* A container that is not trusted (avi, mpeg, time stamps missing or twice, disagreement) is
  decoded from its start and its frames are counted as they come.

Both give the same frames, bit for bit. Frames are counted in presentation order, so a variable
frame rate needs no care; a record's (start, end) are seconds from the file's start, as a player
shows them, and pick the frames with start <= time < end. Edit lists and the display matrix
(rotation, mirroring) are applied; the pixels' aspect ratio is noted, not applied. Colours go by
the stream's matrix and range; where it names none that FFmpeg scales by, by BT.601 and the limited
range.

The index of a file is kept for the process (the last 64 files, by path, size and time of change).
Faults are in `vfe.data.faults`.
"""

from __future__ import annotations

import array
import bisect
import collections
import contextlib
import dataclasses
import io
import itertools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from jaxtyping import Float64

from vfe.data.faults import MAX_PIXELS, Fault, FaultError, check_size
from vfe.data.image import ImageFile, is_image
from vfe.data.joined import Joined, open_parts
from vfe.data.picture import Picture, Screen
from vfe.data.record import VideoRecord

_BY_TIME_STAMP = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # containers that may be trusted
_SKIPPABLE = {"h264", "hevc"}  # codecs whose unreferenced pictures need no decoding

Stamp = int | float  # in the stream's time base, or infinite

# Some files' metadata is not UTF-8. PyAV 19 never minds; earlier ones are told not to.
_LENIENT = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


@contextlib.contextmanager
def open_video(
  record: VideoRecord, *, short_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Video | ImageFile | Joined]:
  """An open `Video`, closed at the end; `short_side` as in `read_views`. Raises FaultError.

  An image is an `ImageFile`, which is read as a video of one frame; a clip in several files is a
  `Joined`.
  """

  def open_one(part: VideoRecord) -> Video | ImageFile:
    return (ImageFile if is_image(part) else Video)(part, short_side, max_pixels)

  video = open_one(record) if record.then is None else open_parts(record.parts(), open_one)
  try:
    yield video
  finally:
    video.close()


class Misjudged(Exception):
  """The video is not what its packets said; it knows better now, so choose frames again."""


@dataclasses.dataclass(frozen=True)
class _Index:
  """What the packets of a clip say, in file order.

  Attributes:
    pts, dts: presentation and decoding time stamps by packet, in the stream's time base.
    keys: numbers of the packets that are keyframes, sorted by their pts.
    order: sorted pts of the packets that are shown (edit lists hide some).
    shown: those of them within the record's (start, end).
    unstamped: how many packets have no time stamp.
    trusted: whether frames may be found by time stamp.
  """

  pts: array.array
  dts: array.array
  keys: array.array
  order: array.array
  shown: array.array
  unstamped: int
  trusted: bool

  def key_of(self, pts: int) -> int:
    """Number of the keyframe that decoding the frame at `pts` starts from."""
    at = bisect.bisect_right(self.keys, pts, key=lambda number: self.pts[number])
    return self.keys[max(0, at - 1)]


def _index(packets: Sequence[_Packet], low: Stamp, high: Stamp, seekable: bool) -> _Index:
  """The index of packets in file order; [low, high) are the time stamps that are wanted."""
  stamped = [packet for packet in packets if packet.pts is not None]
  pts = array.array("q", (packet.pts for packet in stamped))
  order = array.array("q", sorted(packet.pts for packet in stamped if not packet.hidden))
  keys = [number for number, packet in enumerate(stamped) if packet.key]
  complete = all(packet.presented for packet in packets) and len(set(pts)) == len(packets)
  return _Index(
    pts=pts,
    dts=array.array("q", (packet.dts for packet in stamped)),
    keys=array.array("q", sorted(keys, key=lambda number: pts[number])),
    order=order,
    shown=array.array("q", (stamp for stamp in order if low <= stamp < high)),
    unstamped=len(packets) - len(stamped),
    trusted=seekable and complete and bool(keys),
  )


class _Packet:
  """What the index keeps of a packet. One stamp stands in for the other where it is missing."""

  __slots__ = ("dts", "hidden", "key", "presented", "pts")

  def __init__(self, packet: av.Packet):
    pts, dts = packet.pts, packet.dts
    self.presented = pts is not None
    self.pts = pts if pts is not None else dts
    self.dts = dts if dts is not None else pts
    self.key, self.hidden = packet.is_keyframe, packet.is_discard


_indices: collections.OrderedDict[tuple, _Index] = collections.OrderedDict()
_indices_lock = threading.Lock()


class Video:
  """An open video file: `count` frames within the record's (start, end), read by index.

  Attributes:
    count: how many frames there are; in a container that is not trusted, how many packets, until
      decoding has shown better.
    stream: PyAV's.
    index: what its packets say.
    transposed: whether the picture as shown lies on its side against the stored one; known after
      the first frame.
  """

  def __init__(self, record: VideoRecord, short_side: int | None, max_pixels: int):
    self.record = record
    self.transposed = False
    self._container = None
    try:
      self._open()
      width, height = self.stream.width, self.stream.height
      check_size(record.name, width, height, max_pixels)
      factor = max(1, min(width, height) // short_side) if short_side else 1
      self._screen = Screen(width // factor, height // factor)
      self.index = self._cached_index()
      self.count = len(self.index.shown) + self.index.unstamped
      if not self.count:
        raise self.fault(Fault.EMPTY_CLIP if self.index.order else Fault.NO_FRAMES)
    except BaseException:
      self.close()
      raise

  def close(self) -> None:
    if self._container is not None:
      self._container.close()

  def fault(self, fault: Fault, detail: str = "") -> FaultError:
    """The fault with the record's name, to be raised."""
    return FaultError(fault, self.record.name, detail)

  def pace(self) -> tuple[float, float]:
    """Frames a second and seconds of the clip, from the time stamps."""
    tick, shown = self.stream.time_base, self.index.shown
    rate = self.stream.average_rate
    if len(shown) > 1 and shown[-1] > shown[0]:
      rate = (len(shown) - 1) / ((shown[-1] - shown[0]) * tick)
    fps = float(rate or 1)
    return fps, self.count / fps

  def times(self) -> Float64[np.ndarray, "count"]:
    """Seconds from the first frame to each; evenly where time stamps do not tell."""
    shown = np.asarray(self.index.shown)
    if len(shown) == self.count and (np.diff(shown) > 0).all():
      return (shown - shown[0]) * float(self.stream.time_base)
    return np.arange(self.count) / self.pace()[0]

  @property
  def codec(self) -> str:
    """FFmpeg's name of it, e.g. "h264"."""
    return self.stream.codec.canonical_name

  @property
  def pixel_aspect(self) -> float:
    """Width / height of a pixel as shown; known after the first frame."""
    aspect = self.stream.sample_aspect_ratio or Fraction(1)
    return float(1 / aspect if self.transposed else aspect)

  @property
  def seekable(self) -> bool:
    """Whether frames are found by time stamp, or by decoding from the start."""
    return self.index.trusted

  def play(self) -> Iterator[np.ndarray]:
    """Yields every frame within (start, end), uint8[H, W, 3], as many as there turn out to be."""
    done = 0
    while done < self.count:
      with contextlib.suppress(Misjudged):  # All up to there was as counting finds it too.
        for index, picture in self.read(range(done, self.count)):
          done = index + 1
          yield picture

  def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, picture uint8[H, W, 3]) of the wanted frames, which are sorted and unique.

    Raises Misjudged if `count` was wrong or frames were not where their packets said. It is not
    by then: choose frames again.
    """
    for index, picture in self.pictures(wanted):
      yield index, picture.whole()

  def pictures(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    """As `read`, before any pixels are made: for crops, which cost less than the whole picture."""
    find = self._by_time_stamp if self.index.trusted else self._from_the_start
    for index, frame in find(wanted):
      picture = Picture(frame, self._screen)
      self.transposed = picture.transposed
      yield index, picture

  # Opening.

  def _open(self) -> None:
    self.close()
    source = self.record.path if self.record.data is None else io.BytesIO(self.record.data)
    try:
      if isinstance(source, str):
        self._about = os.stat(source)  # FFmpeg tells a missing file from a broken one less surely.
      self._container = av.open(source, **_LENIENT)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
      raise self.fault(Fault.MISSING, _words(error)) from error
    except (FFmpegError, OSError) as error:
      raise self.fault(Fault.UNOPENABLE, _words(error)) from error
    self.stream = _best(self._container.streams.video)
    if self.stream is None:
      raise self.fault(Fault.NO_VIDEO_STREAM)
    if self.stream.codec_context is None:
      raise self.fault(Fault.NO_DECODER)
    self.stream.codec_context.thread_count = 1  # Workers are the parallelism.

  # Which frames there are.

  def _span(self) -> tuple[Stamp, Stamp]:
    """The record's (start, end) as time stamps; infinite where it has none."""
    origin = Fraction(self._container.start_time or 0, av.time_base)

    def stamp(seconds):  # to the microsecond, so that 0.1 s is not after the frame at 0.1 s
      microseconds = Fraction(round(seconds * 1_000_000), 1_000_000)
      return math.ceil((microseconds + origin) / self.stream.time_base)

    start, end = self.record.start, self.record.end
    return (
      -math.inf if start is None else stamp(start),
      math.inf if end is None else stamp(end),
    )

  def _cached_index(self) -> _Index:
    if self.record.path is None or self.record.data is not None:
      return self._scan()
    about = self._about
    key = (self.record.path, about.st_mtime_ns, about.st_size, self.record.start, self.record.end)
    with _indices_lock:
      if key in _indices:
        _indices.move_to_end(key)
        return _indices[key]
    index = self._scan()
    with _indices_lock:
      _indices[key] = index
      while len(_indices) > 64:
        _indices.popitem(last=False)
    return index

  def _scan(self) -> _Index:
    """Reads the packets of the clip; of the whole file if the clip's alone cannot be found."""
    low, high = self._span()
    seekable = self._container.format.name in _BY_TIME_STAMP
    if seekable and low > -math.inf:
      with contextlib.suppress(FFmpegError):
        self._container.seek(int(low), stream=self.stream)
        index = self._scan_from_here(low, high, seekable)
        if index.trusted and index.pts[index.keys[0]] <= low:
          return index
      self._open()
    return self._scan_from_here(low, high, seekable)

  def _scan_from_here(self, low: Stamp, high: Stamp, seekable: bool) -> _Index:
    packets = []
    with contextlib.suppress(FFmpegError):  # A file cut short ends where it ends.
      for packet in _packets(self._container, self.stream):
        if packet.size and not packet.is_corrupt:
          packets.append(_Packet(packet))
        if seekable and packet.dts is not None and packet.dts >= high:
          break  # A frame is never shown before it is decoded: the rest lies past the end.
    return _index(packets, low, high, seekable)

  # Finding them.

  def packets_from(self, key: int) -> Iterator[tuple[int, av.Packet]]:
    """(number, packet) from that keyframe, or one before it, on. Raises Misjudged."""
    pts, dts = self.index.pts, self.index.dts
    for stamp in (pts[key], dts[key]):  # Containers differ in which one they seek by.
      with contextlib.suppress(FFmpegError):
        self._container.seek(stamp, stream=self.stream)
        packets = _packets(self._container, self.stream)
        first = next(packets)
        if first.is_keyframe and first.pts is not None and first.pts <= pts[key]:
          number = pts.index(first.pts) if first.pts in pts else 0
          return enumerate(itertools.chain([first], packets), number)
    self._distrust()

  def _by_time_stamp(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """From keyframe to keyframe. Raises Misjudged if what is decoded is not what was indexed."""
    run = None
    targets = frozenset(self.index.shown[i] for i in wanted)
    try:
      for i in wanted:
        pts = self.index.shown[i]
        key = self.index.key_of(pts)
        if run is None or run.over or key > run.fed:
          if run is not None:
            run.close()
          run = _Run(self, key, targets)
        frame = run.advance(pts)
        if frame is not None:
          yield i, frame
        elif run.damage:
          seconds = float(pts * self.stream.time_base)
          raise self.fault(Fault.DAMAGED, f"frame {i} at {seconds:.2f} s: {run.damage[0]}")
        else:
          self._distrust()
    finally:
      if run is not None:
        run.close()

  def _distrust(self) -> None:
    """From now on by counting from the start."""
    self.index = dataclasses.replace(self.index, trusted=False)
    raise Misjudged

  def _from_the_start(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes everything up to the last wanted frame. Raises Misjudged if they are fewer."""
    self._open()
    low, high = self._span()
    pending, count, damage = collections.deque(wanted), 0, []
    for frame in _decoded(self.stream, _packets(self._container, self.stream), damage):
      if frame.pts is not None and not low <= frame.pts < high:
        continue
      if count == pending[0]:
        yield pending.popleft(), frame
        if not pending:
          return
      count += 1
    if damage:
      raise self.fault(Fault.DAMAGED, f"frame {pending[0]}: {damage[0]}")
    if not count:
      whole = low == -math.inf and high == math.inf
      raise self.fault(Fault.NO_FRAMES if whole else Fault.EMPTY_CLIP)
    self.count = count
    raise Misjudged


class _Run:
  """Decoding from a keyframe on.

  Attributes:
    fed: number of the next packet.
    over: whether no more frames come.
    damage: what broke; empty if nothing did.
  """

  def __init__(self, video: Video, key: int, targets: frozenset[int]):
    self.fed, self.over, self.damage = key, False, []
    self._order = video.index.order
    self._from = video.index.pts[key]
    self._next = bisect.bisect_left(self._order, self._from)
    self._skips = video.stream.codec.canonical_name in _SKIPPABLE
    self._frames = _decoded(video.stream, self._packets(video, key, targets), self.damage)

  def close(self) -> None:
    """Lets go of the decoder, whose pictures are large: the packets know this run, and it them."""
    self._frames.close()

  def advance(self, pts: int) -> av.VideoFrame | None:
    """The frame at `pts`; None if it does not come, or one before it is not what was indexed."""
    for frame in self._frames:
      if frame.pts is None:
        return None
      if frame.pts < self._from:
        continue  # It leans on what lies before the keyframe (open groups of pictures).
      if not self._expected(frame.pts):
        return None
      if frame.pts == pts:
        return frame
    self.over = True
    return None

  def _expected(self, pts: int) -> bool:
    """Whether the frame follows the one before in the index, but for those skipped or lost."""
    at = bisect.bisect_left(self._order, pts, self._next)
    known = at < len(self._order) and self._order[at] == pts
    follows = at == self._next or self._skips or bool(self.damage)
    self._next = at + 1
    return known and follows

  def _packets(
    self, video: Video, key: int, targets: frozenset[int]
  ) -> Iterator[av.Packet]:
    context = video.stream.codec_context
    for number, packet in video.packets_from(key):
      self.fed = number + 1
      if self._skips:
        context.skip_frame = "DEFAULT" if packet.pts in targets else "NONREF"
      yield packet


def _best(streams: Sequence[Any]) -> Any:
  """The stream that a player shows: a decodable one, marked as default, the largest, the first.

  None if there is none, or only cover pictures. FFmpeg's own choice goes by bit rates, which
  Matroska does not know.
  """

  def merit(stream):
    decodable = stream.codec_context is not None
    default = bool(stream.disposition & Disposition.default)
    return decodable, default, stream.width * stream.height if decodable else 0

  moving = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
  return max(moving, key=merit, default=None)


def _packets(container: Any, stream: Any) -> Iterator[av.Packet]:
  """The stream's packets; the last one is empty and flushes the decoder.

  Empty packets in between (frames that an avi dropped) would flush it too early.
  """
  try:
    for packet in container.demux(stream):
      if packet.size or packet.dts is None:
        yield packet
  except IndexError:
    pass  # At the end PyAV also flushes streams that appeared midway, which it does not know.


def _decoded(
  stream: Any, packets: Iterator[av.Packet], damage: list[str]
) -> Iterator[av.VideoFrame]:
  """Frames in presentation order, up to a broken packet; what broke is appended to `damage`."""
  try:
    for packet in packets:
      if packet.is_corrupt:
        damage.append("a packet is cut short")
        break
      yield from packet.decode()
  except FFmpegError as error:
    damage.append(_words(error))
  if damage:
    with contextlib.suppress(FFmpegError):
      yield from stream.decode(None)  # What was decoded before the break but not yet shown.


def _words(error: Exception) -> str:
  """The system's words without the file's name, which the fault has already."""
  return getattr(error, "strerror", None) or str(error)
