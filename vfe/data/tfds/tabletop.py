"""The tabletop world as a TFDS data set: Beam's workers draw it."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

import tensorflow_datasets as tfds

from vfe.data.record import VideoRecord
from vfe.data.tabletop import files
from vfe.data.tabletop.draw import render
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.world import FEWEST_FRAMES, RUNGS, World, heads
from vfe.data.tfds.base import Items, VideoBuilder

Item = tuple[World, str, int]  # world, split, index


@dataclasses.dataclass(eq=False)
class WorldConfig(tfds.core.BuilderConfig):
  """A world, and how many of its videos; `name` is the folder that they are kept in."""

  world: World = dataclasses.field(default_factory=World)
  videos: int = 4096
  eval_videos: int = 512

  @classmethod
  def of(cls, world: World, videos: int, eval_videos: int) -> WorldConfig:
    """Named by what the world is, so that another one goes to another folder."""
    name = f"{world.rung}_{world.size}px_{world.frames}f_{videos}_{eval_videos}_{world.digest()}"
    description = f"{world}, {videos} training and {eval_videos} evaluation videos"
    return cls(
      name=name, description=description, world=world, videos=videos, eval_videos=eval_videos
    )


def read(item: Item) -> VideoRecord:
  """Runs on a worker: one video of a world, drawn and encoded."""
  world, split, index = item
  scene = scenario(world, index, split)
  with tempfile.TemporaryDirectory(prefix="vfe-tabletop-") as folder:
    path = pathlib.Path(folder) / "video.mp4"
    files.encode(render(world, scene), path)
    data = path.read_bytes()
  labels, text = files.annotations(world, scene)
  return VideoRecord(name=f"{split}/{index:06d}", data=data, labels=labels, text=text)


class VfeTabletop(VideoBuilder):
  """The tabletop world (docs/tabletop.md), a config for each rung."""

  BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
    WorldConfig(name=rung, world=World(rung=rung, frames=max(128, FEWEST_FRAMES[rung])))
    for rung in RUNGS
  ]

  read = staticmethod(read)

  def heads(self):
    return heads(self.builder_config.world.rung)

  def items(self, manual_dir: Callable[[], pathlib.Path]) -> Items:
    config = self.builder_config
    counts = {"train": config.videos, "validation": config.eval_videos}
    return {
      split: [(config.world, split, index) for index in range(count)]
      for split, count in counts.items()
    }
