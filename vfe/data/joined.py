"""A clip that lies in several files, one after the other: long videos are kept in chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from vfe.data.faults import Fault, FaultError
from vfe.data.picture import Picture


class Joined:
  """Open videos as one, with the face of `vfe.data.video.Video`.

  The first frame of a part follows the last one of the part before it by one frame interval. A
  part may turn out to have fewer frames than its packets said; the others' numbers follow.
  """

  def __init__(self, parts: Sequence[Any]):
    """parts: `Video`s, in the order of time; closed with this."""
    self._parts = parts

  def close(self) -> None:
    for part in self._parts:
      part.close()

  @property
  def count(self) -> int:
    """Frames of all parts."""
    return sum(part.count for part in self._parts)

  @property
  def codec(self) -> str:
    """Of the first part; so is the pixels' aspect."""
    return self._parts[0].codec

  @property
  def pixel_aspect(self) -> float:
    return self._parts[0].pixel_aspect

  @property
  def seekable(self) -> bool:
    return all(part.seekable for part in self._parts)

  def pace(self) -> tuple[float, float]:
    """Frames a second and seconds of the clip."""
    seconds = sum(part.pace()[1] for part in self._parts)
    return self.count / seconds, seconds

  def times(self) -> Float64[np.ndarray, "count"]:
    """Seconds from the first frame to each."""
    found, offset = [], 0.0
    for part in self._parts:
      found.append(offset + part.times())
      offset = found[-1][-1] + 1 / part.pace()[0]
    return np.concatenate(found)

  def play(self) -> Iterator[np.ndarray]:
    """Yields every frame, uint8[H, W, 3]."""
    return itertools.chain.from_iterable(part.play() for part in self._parts)

  def pictures(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    """Yields (index, picture) of the wanted frames, which are sorted and unique.

    Raises Misjudged as `Video.pictures`, and FaultError where the parts' pictures differ in size:
    a crop is chosen once.
    """
    shape, first = None, 0
    for part in self._parts:
      count = part.count
      own = [index - first for index in wanted if first <= index < first + count]
      for index, picture in part.pictures(own) if own else ():
        shape = shape or picture.shape
        if picture.shape != shape:
          sizes = "{1}x{0} after {3}x{2}".format(*picture.shape[:2], *shape[:2])
          raise FaultError(Fault.ABSURD_SIZE, part.record.name, f"{sizes} in the part before it")
        yield first + index, picture
      first += count


def open_parts(records: Iterator[Any], open_one: Any) -> Joined:
  """The parts that have frames, opened. Raises FaultError, of the first part where none has any.

  A chunk often ends a frame before or after the second it should: a part that begins in its last
  moment may be empty without the clip being so.
  """
  parts, empty = [], None
  try:
    for record in records:
      try:
        parts.append(open_one(record))
      except FaultError as error:
        if error.fault != Fault.EMPTY_CLIP:
          raise
        empty = empty or error
    if not parts:
      raise empty
  except BaseException:
    Joined(parts).close()
    raise
  return Joined(parts)
