"""The world as real H.264 files: written once to a cache, reused, and read as a source."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import secrets
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vfe.config import choose
from vfe.data.record import VideoRecord
from vfe.data.tabletop import text
from vfe.data.tabletop.asking import choices, questions
from vfe.data.tabletop.draw import render
from vfe.data.tabletop.story import Scenario, labels, scenario
from vfe.data.tabletop.workers import share_out
from vfe.data.tabletop.world import FPS, SPLITS, World, heads
from vfe.errors import UserError

log = logging.getLogger(__name__)

GOP = 16
# x264's lookahead is off because its decisions differ from run to run on pictures this small, even
# in one thread (seen with libavcodec 62.28, at 32 and 64 pixels: other bytes for the same frames).
ENCODING = {
  "crf": "14",
  "preset": "veryfast",
  "g": str(GOP),
  "rc-lookahead": "0",
  "sc_threshold": "0",
  "threads": "1",
}


def encode(video: UInt8[np.ndarray, "T H W 3"], path: str | pathlib.Path, fps: int = FPS) -> None:
  """Writes an mp4 file: H.264, 4:2:0, a keyframe every 16 frames, the index in front of the data.

  One thread, so that the bytes are a function of the frames and the codec's version.
  """
  options = {"movflags": "+faststart"}
  with av.open(str(path), "w", format="mp4", options=options) as container:
    stream = container.add_stream("libx264", rate=fps, options=ENCODING)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    for number, pixels in enumerate(video):
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts = number
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def cache_folder() -> pathlib.Path:
  """Where worlds are kept: $VFE_CACHE/tabletop, else the user's cache folder."""
  own = os.environ.get("VFE_CACHE")
  if own:
    return pathlib.Path(own) / "tabletop"
  user = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(user) / "vfe" / "tabletop"


def world_folder(world: World, folder: str | pathlib.Path | None = None) -> pathlib.Path:
  """The folder of one world's files: its settings, generator, encoding and codec in the name."""
  codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
  encoding = zlib.crc32(json.dumps(ENCODING, sort_keys=True).encode())
  name = f"{world.rung}-{world.size}px-{world.frames}f-{world.digest()}"
  return pathlib.Path(folder or cache_folder()) / f"{name}-avcodec{codec}-{encoding:08x}"


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write, renamed to the path when all of it is there: nobody ever sees a part of it."""
  beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
  try:
    yield beside
    os.replace(beside, path)
  finally:
    beside.unlink(missing_ok=True)


def _name(index: int) -> str:
  return f"{index:06d}.mp4"


def encode_missing(
  world: World, split: str, indices: list[int], folder: str | pathlib.Path
) -> None:
  """Writes those of the videos that are not there yet.

  Each process begins at another place of the list, so that several at the same work share it; what
  two of them write at once is the same.
  """
  begin = (os.getpid() * 2654435761) % max(1, len(indices))
  for index in indices[begin:] + indices[:begin]:
    path = pathlib.Path(folder) / _name(index)
    if not path.exists():
      with _beside(path) as beside:
        encode(render(world, scenario(world, index, split)), beside)


def row(world: World, split: str, index: int) -> dict:
  """A video's line in the manifest, which is one that `data.source=manifest` reads as well."""
  scene = scenario(world, index, split)
  classes = heads(world.rung)
  values = labels(scene)
  return {
    "path": f"{split}/{_name(index)}",
    "split": split,
    **{f"label_{head}": names[values[head]] for head, names in classes.items()},
    **text.texts(scene),
  }


def _current(manifest: pathlib.Path, world: World, split: str) -> bool:
  """Whether it is there and has the columns of today: texts have been added to old worlds."""
  if not manifest.exists():
    return False
  with manifest.open(encoding="utf-8") as lines:
    return json.loads(lines.readline()).keys() == row(world, split, 0).keys()


def annotations(world: World, scene: Scenario) -> tuple[dict[str, int], dict[str, Any]]:
  """All that a record of the video tells: the rung's labels by head, and its texts."""
  values = labels(scene)
  return {head: values[head] for head in heads(world.rung)}, {
    **text.texts(scene),
    "narrations": text.narrations(scene),
    "questions": questions(world, scene),
  }


def write_cache(
  world: World, split: str, count: int, folder: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Makes sure that the first `count` videos of a split are there, and returns their manifest.

  <world>/<split>/000000.mp4 ... and <world>/<split>-<count>.jsonl, with paths relative to it. What
  is there is kept; two processes may do it at once; one that was killed is gone on with.
  """
  if split not in SPLITS:
    raise UserError(f"tabletop split {split!r} is not one of {', '.join(SPLITS)}.")
  place = world_folder(world, folder)
  videos = place / split
  manifest = place / f"{split}-{count}.jsonl"
  try:
    videos.mkdir(parents=True, exist_ok=True)
    there = {entry.name for entry in os.scandir(videos)}
    missing = [index for index in range(count) if _name(index) not in there]
    if missing:
      log.info("writing %d tabletop videos, once, to %s", len(missing), videos)
      share_out(encode_missing, world, split, missing, str(videos))
    if not _current(manifest, world, split):
      lines = [json.dumps(row(world, split, index)) for index in range(count)]
      with _beside(manifest) as beside:
        beside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
  except OSError as error:
    remedy = "set VFE_CACHE to a folder that can be written and has room"
    raise UserError(f"tabletop cache {place}: {error.strerror or error}; {remedy}.") from None
  return manifest


def world_of(data: Mapping | ConfigDict) -> World:
  """The world that a data config asks for (`data.tabletop`; size and frames default to data's)."""
  own = dict(data["tabletop"])
  for key in ("frames", "size"):
    own[key] = own.get(key) or data[key]
  own["objects"] = tuple(own.get("objects") or World.objects)
  fields = World.__dataclass_fields__
  return World(**{key: value for key, value in own.items() if key in fields})


# data.variant -> the (video, number of a question on it or None) of every record.
VARIANTS = {
  "videos": lambda source: [(video, None) for video in range(source.videos)],
  "questions": lambda source: [
    (video, number)
    for video in range(source.videos)
    for number in range(len(questions(source.world, scenario(source.world, video, source.split))))
  ],
}


class TabletopSource:
  """A split of the world as a source of files; they are written when it is first opened.

  data: the data config. `tabletop.videos` counts the training videos, `tabletop.eval_videos` those
  of the other splits. With variant "questions" every question on a video is a record of its own,
  with the texts of the video and what `vfe.data.tabletop.choices` gives.
  """

  name = "tabletop"

  def __init__(self, data: Mapping | ConfigDict, split: str):
    self.world = world_of(data)
    self.split = split
    self.heads = heads(self.world.rung)
    self.videos = int(data["tabletop"]["videos" if split == "train" else "eval_videos"])
    if self.videos < 1:
      raise UserError(f"data.tabletop has {self.videos} videos for {split}; use 1 or more.")
    self._records = choose(VARIANTS, data.get("variant") or "videos", "data.variant")(self)
    self._folder = write_cache(self.world, split, self.videos).parent / split
    size, frames = self.world.size, self.world.frames
    asked = f", {len(self)} questions on them" if data.get("variant") == "questions" else ""
    log.info(
      "tabletop world, rung %s: an epoch of %s has %d videos of %d frames, %dx%d pixels%s",
      *(self.world.rung, split, self.videos, frames, size, size, asked),
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> VideoRecord:
    if not 0 <= index < len(self):
      raise IndexError(index)
    video, question = self._records[int(index)]
    path = str(self._folder / _name(video))
    scene = scenario(self.world, video, self.split)
    values, texts = annotations(self.world, scene)
    if question is None:
      return VideoRecord(name=path, path=path, labels=values, text=texts)
    asked = choices(self.world, scene)[question]
    text = {**texts, **asked}
    return VideoRecord(name=f"{path}, {asked['id']}", path=path, labels=values, text=text)
