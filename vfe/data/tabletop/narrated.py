"""The world as EgoClip and EgoMCQ have Ego4D: narrated events, and which of five clips is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vfe.config import choose
from vfe.data.ego4d.egomcq import choice_records
from vfe.data.ego4d.footage import Footage
from vfe.data.record import Source, VideoRecord
from vfe.data.scenes import Scenes, numbered
from vfe.data.sources import ListedSource
from vfe.data.tabletop.asking import INTER_VIDEO, INTRA_VIDEO, multiple_choice
from vfe.data.tabletop.files import VARIANTS, TabletopSource
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import SCENE_SECONDS, narrations
from vfe.data.tabletop.world import NOUNS, VERBS
from vfe.errors import UserError

NARRATIONS = "narrations"  # data.variant


def open_tabletop(data: Mapping | ConfigDict, split: str) -> Source:
  """A split of the world. With variant "narrations" every narrated event is a record in training,
  and at evaluation every clip that EgoMCQ's questions choose among."""
  variant = data.get("variant") or "videos"
  choose({**VARIANTS, NARRATIONS: Narrated}, variant, "data.variant")
  if variant != NARRATIONS:
    return TabletopSource(data, split)
  videos = TabletopSource({**data, "variant": None}, split)
  return Narrated(videos) if split == "train" else _asked(videos)


class Narrated:
  """The events of a split's videos, each a clip with its texts `caption`, `nouns` and `verbs`.

  Attributes:
    scenes: events in the same eight seconds of a video share one.
    taxonomy: how many classes there are of nouns and of verbs, by name.
  """

  name = "tabletop narrations"
  heads: Mapping[str, tuple[str, ...]] = {}
  taxonomy: Mapping[str, int] = {"nouns": len(NOUNS), "verbs": len(VERBS)}

  def __init__(self, videos: TabletopSource):
    self._footage = _footage(videos)
    self._rows = [row for index in range(videos.videos) for row in _rows(videos, index)]
    video = np.array([row["video"] for row in self._rows], np.int64)
    columns = ("narration_time", "clip_start", "clip_end")
    time, start, end = (np.array([row[name] for row in self._rows], float) for name in columns)
    self.scenes = Scenes(numbered(video, time, SCENE_SECONDS), start, end)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> VideoRecord:
    if not 0 <= index < len(self):
      raise IndexError(index)
    row = self._rows[index]
    text = {
      "caption": row["clip_text"], "nouns": tuple(row["tag_noun"]), "verbs": tuple(row["tag_verb"])
    }  # fmt: skip
    return self._footage.record(row["video_uid"], row["clip_start"], row["clip_end"], text=text)


def _rows(videos: TabletopSource, index: int) -> Iterator[dict[str, Any]]:
  """The narrations of a video, each with its number as `video`."""
  for row in narrations(scenario(videos.world, index, videos.split)):
    yield {**row, "video": index}


def _footage(videos: TabletopSource) -> Footage:
  uid = lambda index: scenario(videos.world, index, videos.split).uid
  return Footage.of({uid(index): videos[index].path for index in range(videos.videos)})


def _asked(videos: TabletopSource) -> ListedSource:
  """The clips of the inter-video and intra-video questions on a split's videos."""
  rows = [
    (f"tabletop, {name} question {key}", f"{name}-{key}", row)
    for name, kind in (("inter", INTER_VIDEO), ("intra", INTRA_VIDEO))
    for key, row in multiple_choice(videos.world, videos.split, videos.videos, kind).items()
  ]
  if not rows:
    raise UserError(
      f"data.tabletop.eval_videos={videos.videos} gives no questions of five clips; use 5 or more."
    )
  return ListedSource("tabletop EgoMCQ", {}, choice_records(rows, _footage(videos)))
