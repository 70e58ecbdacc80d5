"""Scenes: clips of the same stretch of a video, which are hard to tell from each other.

In scene-aware training every second clip is a neighbour of the one before it: EgoVLP's hard
negatives (arXiv 2206.01670, EgoClip_EgoMCQ_dataset.py), drawn so that the two do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from vfe.data.record import Source
from vfe.errors import UserError

SECONDS = 60.0  # of a scene: neg_param of EgoVLP's and EgoVLPv2's configs


class Scenes:
  """Which scene every clip is of, and when it is.

  Args:
    scene: equal numbers for the clips of a scene, which is of one video.
    start, end: of every clip, seconds in that video.
  """

  def __init__(
    self,
    scene: Int64[np.ndarray, "n"],
    start: Float64[np.ndarray, "n"],
    end: Float64[np.ndarray, "n"],
  ):
    self._scene, self._start, self._end = scene, start, end
    self._order = np.argsort(scene, kind="stable")
    self._sorted = scene[self._order]

  @property
  def arrays(self) -> Mapping[str, np.ndarray]:
    """What makes the same scenes again."""
    return {"scene": self._scene, "start": self._start, "end": self._end}

  def of(self, clips: Int64[np.ndarray, "m"]) -> Scenes:
    """The scenes of some of the clips, which are numbered from 0 in that order."""
    return Scenes(**{name: array[clips] for name, array in self.arrays.items()})

  def members(self, index: int) -> Int64[np.ndarray, "m"]:
    """The clips of a clip's scene, itself among them, in order."""
    of = self._scene[index]
    first, last = np.searchsorted(self._sorted, [of, of + 1])
    return self._order[first:last]

  def neighbour(self, index: int, rng: np.random.Generator) -> int:
    """Another clip of the scene, all as likely, of those that do not overlap with this one.

    Where all overlap, any other; where there is no other, the clip itself. Clips that only touch
    do not overlap.
    """
    members = self.members(index)
    others = members[members != index]
    apart = (self._start[others] >= self._end[index]) | (self._end[others] <= self._start[index])
    among = next(clips for clips in (others[apart], others, members) if len(clips))
    return int(among[rng.integers(len(among))])


@runtime_checkable
class Scened(Protocol):
  """A source that knows its clips' scenes."""

  scenes: Scenes


@runtime_checkable
class Narrated(Scened, Protocol):
  """A source of narrated clips.

  Attributes:
    taxonomy: how many classes there are of nouns and of verbs, by name.
  """

  taxonomy: Mapping[str, int]


def scenes_of(source: Source) -> Scenes:
  """The scenes of a source. Raises UserError where it knows none."""
  if not isinstance(source, Scened):
    raise UserError(
      f"{source.name}: knows no scenes to draw neighbours from; use data.source='egoclip' "
      f"or shards of it, or train without neighbours."
    )
  return source.scenes


def numbered(
  video: Int64[np.ndarray, "n"], time: Float64[np.ndarray, "n"], seconds: float = SECONDS
) -> Int64[np.ndarray, "n"]:
  """Scene numbers: of the same video, in the same stretch of so many seconds from its start."""
  stretch = np.floor(time / seconds).astype(np.int64)
  return video * (int(stretch.max(initial=0)) + 1) + stretch
