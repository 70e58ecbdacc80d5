"""The reading of a row of video from its record: in training, at evaluation, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vfe.data import augment, decode
from vfe.data.faults import Fault, FaultError
from vfe.data.record import Source, VideoRecord
from vfe.data.sampling import Sample, Sampling, Times
from vfe.data.spec import ClipSpec
from vfe.data.text import caption_of, captions_of
from vfe.errors import UserError

REPLACEMENTS = 16  # other videos that are tried in place of an unreadable one


@dataclasses.dataclass(frozen=True)
class Served:
  """What stands in a slot: the wanted views of a record, or a fault.

  Attributes:
    record: index of the record that is shown.
    labels: the record's classes by head.
    clips: uint8[T, S, S, 3] each, with start and repeated; none if the video cannot be read.
    captions: of each clip where the spec wants text: one in training, at evaluation the first C.
    fault: of the record `faulty`, which could not be read; -1 where all is well.
  """

  record: int
  labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
  clips: Sequence[decode.Clip] = ()
  captions: Sequence[Sequence[str]] = ()
  fault: Fault = Fault.NONE
  faulty: int = -1


@runtime_checkable
class Reader(Protocol):
  """Decodes what a slot names. `views` are the wanted ones of the slot's rows.

  captions is () where a row carries one caption, (C,) where it carries C.
  """

  source: Source
  spec: ClipSpec

  @property
  def captions(self) -> tuple[int, ...]: ...

  def __call__(self, slot: Any, views: Sequence[int]) -> Served: ...


@dataclasses.dataclass(frozen=True)
class TrainReader:
  """A random clip of the slot's record, each view a random crop of it.

  A slot is (record index, four random words); all that is random comes from the words. A record
  that cannot be read is replaced by the first readable one of at most REPLACEMENTS others, drawn
  from the same words; when all fail, UserError.
  """

  source: Source
  spec: ClipSpec
  captions = ()

  def __call__(self, slot: tuple[int, Sequence[int]], views: Sequence[int]) -> Served:
    record, words = slot
    try:
      return self._serve(record, words, views)
    except FaultError as error:
      first = last = error
    others = self._others(record, words)
    for other in others:
      try:
        served = self._serve(other, words, views)
      except FaultError as error:
        last = error
      else:
        return dataclasses.replace(served, fault=first.fault, faulty=record)
    raise UserError(f"{first}; nor can {len(others)} others be read in its place (last: {last}).")

  def _serve(self, record: int, words: Sequence[int], views: Sequence[int]) -> Served:
    spec = self.spec

    def crops(height: int, width: int) -> list[augment.Crop]:
      return [spec.augment.crop(np.random.default_rng([*words, 1, view]), height, width, spec.size)
              for view in views]

    def captions(record: VideoRecord) -> list[list[str]]:
      draws = (np.random.default_rng([*words, 3, view]) for view in views)
      return [[caption_of(record, spec.text.key, rng)] for rng in draws]

    return _serve(self, record, spec.sampling, np.random.default_rng([*words, 0]), crops, captions)

  def _others(self, record: int, words: Sequence[int]) -> list[int]:
    """Distinct records other than this one, in the order in which they are tried."""
    count = len(self.source) - 1
    rng = np.random.default_rng([*words, 2])
    steps = 1 + rng.choice(count, size=min(REPLACEMENTS, count), replace=False) if count else []
    return [(record + int(step)) % len(self.source) for step in steps]


@dataclasses.dataclass(frozen=True)
class EvalReader:
  """The clips x crops of a record, nothing random. A slot is a record's index."""

  source: Source
  spec: ClipSpec

  @property
  def captions(self) -> tuple[int, ...]:
    return (self.spec.text.captions,) if self.spec.text else ()

  def __call__(self, slot: int, views: Sequence[int]) -> Served:
    spec = self.spec

    def crops(height: int, width: int) -> list[augment.Crop]:
      return augment.spatial_crops(height, width, spec.size, spec.eval_crops)

    def captions(record: VideoRecord) -> list[tuple[str, ...]]:
      return [captions_of(record, spec.text.key)[: spec.text.captions]] * len(views)

    try:
      served = _serve(self, slot, spec.sampling, None, crops, captions, clips=spec.eval_clips)
    except FaultError as error:
      return Served(slot, fault=error.fault, faulty=slot)
    return dataclasses.replace(served, clips=[served.clips[view] for view in views])


@dataclasses.dataclass(frozen=True)
class BlockReader:
  """T consecutive frames, cropped to the centre, without text. A slot is (record, first frame)."""

  source: Source
  spec: ClipSpec
  captions = ()

  def __call__(self, slot: tuple[int, int], views: Sequence[int]) -> Served:
    del views  # a block has one
    record, first = slot

    def crops(height: int, width: int) -> list[augment.Crop]:
      return [augment.center(height, width, self.spec.size)]

    try:
      return _serve(self, record, _Block(first=first), None, crops, lambda record: ())
    except FaultError as error:
      return Served(record, fault=error.fault, faulty=record)


@dataclasses.dataclass(frozen=True)
class _Block(Sampling):
  """Consecutive frames from `first` on, the last one repeated past the end."""

  first: int = 0

  def sample(
    self, count: int, frames: int, rng: np.random.Generator | None, times: Times | None = None
  ) -> Sample:
    indices = np.arange(self.first, self.first + frames, dtype=np.int64)
    return Sample(np.minimum(indices, count - 1), self.first, int((indices >= count).sum()))


def _serve(
  reader: Reader,
  index: int,
  sampling: Sampling,
  rng: np.random.Generator | None,
  crops: Callable[[int, int], Sequence[augment.Crop]],
  captions: Callable[[VideoRecord], Sequence[Sequence[str]]],
  clips: int = 1,
) -> Served:
  record, spec = reader.source[index], reader.spec
  said = captions(record) if spec.text else ()
  views = decode.read_views(
    record,
    spec.frames,
    sampling,
    rng,
    crops,
    clips=clips,
    short_side=2 * spec.size,  # the box of a crop has half the picture's sides at the least
    max_pixels=spec.max_pixels,
  )
  return Served(index, record.labels, views, said)
