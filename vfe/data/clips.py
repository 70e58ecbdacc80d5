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
from vfe.errors import UserError

REPLACEMENTS = 16  # other videos that are tried in place of an unreadable one
SILENT = decode.Clip(np.zeros((0, 0, 0, 3), np.uint8), start=0, repeated=0)  # of a text alone

Texts = Sequence[Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Served:
  """What stands in a slot: the wanted views of a record, or a fault.

  Attributes:
    record: index of the record that is shown.
    labels: the record's classes by head.
    clips: uint8[T, S, S, 3] each, with start and repeated; none if the video cannot be read.
    texts: of each clip where the spec wants text: the arrays of its row.
    fault: of the record `faulty`, which could not be read; -1 where all is well.
  """

  record: int
  labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
  clips: Sequence[decode.Clip] = ()
  texts: Texts = ()
  fault: Fault = Fault.NONE
  faulty: int = -1


@runtime_checkable
class Reader(Protocol):
  """Decodes what a slot names. `views` are the wanted ones of the slot's rows.

  training: whether what it serves is by chance.
  """

  source: Source
  spec: ClipSpec
  training: bool

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
  training = True

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

    def texts(record: VideoRecord) -> Texts:
      draws = (np.random.default_rng([*words, 3, view]) for view in views)
      return [spec.text.row(record, rng) for rng in draws]

    return _serve(self, record, spec.sampling, np.random.default_rng([*words, 0]), crops, texts)

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
  training = False

  def __call__(self, slot: int, views: Sequence[int]) -> Served:
    spec = self.spec

    def crops(height: int, width: int) -> list[augment.Crop]:
      return augment.spatial_crops(height, width, spec.size, spec.eval_crops)

    def texts(record: VideoRecord) -> Texts:
      return [spec.text.row(record, None)] * len(views)

    try:
      served = _serve(self, slot, spec.sampling, None, crops, texts, clips=spec.eval_clips)
    except FaultError as error:
      return Served(slot, fault=error.fault, faulty=slot)
    return dataclasses.replace(served, clips=[served.clips[view] for view in views])


@dataclasses.dataclass(frozen=True)
class BlockReader:
  """T consecutive frames, cropped to the centre, without text. A slot is (record, first frame)."""

  source: Source
  spec: ClipSpec
  training = False

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
  texts: Callable[[VideoRecord], Texts],
  clips: int = 1,
) -> Served:
  record, spec = reader.source[index], reader.spec
  said = texts(record) if spec.text else ()
  if not spec.frames:
    return Served(index, record.labels, [SILENT] * len(said), said)
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
