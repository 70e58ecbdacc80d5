"""Useful frames a second and core: from 1080p originals and from prepared shards, beside others.

    python benchmarks/decode.py

A useful frame is one that was asked for and came out as RGB; what is decoded on the way to it costs
and does not count. Two kinds of clips of 16 frames: `strided`, every fourth frame from a random
place on, and `random`, one frame from each sixteenth of the video. All readers are asked for the
same frames, and for every clip get the video anew from where it lies, as a data set's reader does:
they open the original's file, or fetch its record from the shard and open its bytes.

pyav        the loop of PyAV's documentation: seek, decode on, keep the wanted frames
decord      VideoReader.get_batch in one thread (package eva-decord)
torchcodec  VideoDecoder.get_frames_at in one thread
vfe         vfe's decoder, frames at the size they have, as the three above
decoder     vfe's decoder, large frames shrunk on leaving it, as they would be to be cropped later
pipeline    all that a training step waits for: the same frames, through `train_dataset`: the random
            crop and its scaling to 224 pixels, the stacking into batches, Grain

The CPU-seconds are of the process, all its threads; the pipeline works in threads of it too, and
makes several batches a round, as memory that is touched for the first time costs more than later.
Readers take turns; printed are medians, of rates and of the ratios within a round. The originals
(1920 x 1080, 30 frames a second, H.264, a keyframe every 250 frames) are made at first and kept in
the user's cache folder, and `vfe.tools.prepare` makes the shards of them with its defaults.

Prints a table and, as its last line, the same as JSON. Neither JAX nor an accelerator is used.
"""

import dataclasses
import functools
import importlib
import io
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import av
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vfe.data import pipeline, sources
from vfe.data.record import Source, VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.spec import ClipSpec
from vfe.data.tabletop.files import cache_folder
from vfe.data.video import open_video
from vfe.errors import UserError
from vfe.tools import cli, prepare

FRAMES, SIZE = 16, 224
BATCH = 2  # clips in a batch of the pipeline
TIMES = 1024  # that each video stands in the list
RATE, KEYFRAMES = 30, 250
STRIDE = 4
SPAN = (FRAMES - 1) * STRIDE + 1  # frames from the first to the last of a strided clip
KINDS = {"strided": Sampling("strided", stride=STRIDE), "random": Sampling("segment")}

Clip = tuple[int, Sequence[int]]  # a record's index, and which of its frames


# The material.


def scene(frames: int, height: int, width: int, seed: int) -> Iterator[np.ndarray]:
  """uint8[H, W, 3] pictures: a camera that drifts over a ground, things that move, and grain."""
  rng = np.random.default_rng(seed)
  ground = _ground(rng, 2 * height, 2 * width)
  side, grain = height // 8, rng.integers(0, 5, (2 * height, 2 * width, 1), np.uint8)
  things = [(*rng.integers(0, (height, width)), *rng.integers(-9, 10, 2)) for _ in range(6)]
  for i in range(frames):
    y, x = int(height * (0.5 + 0.5 * np.sin(i / 90))), int(width * (0.5 + 0.5 * np.cos(i / 120)))
    picture = ground[y : y + height, x : x + width].copy()
    for number, (top, left, down, right) in enumerate(things):
      top, left = (top + i * down) % (height - side), (left + i * right) % (width - side)
      picture[top : top + side, left : left + side] = 40 * number
    dy, dx = rng.integers(0, (height, width))
    yield picture + grain[dy : dy + height, dx : dx + width]


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """Noise of which the coarse is stronger than the fine, as in pictures of the world."""
  total = np.zeros((height, width, 3), np.float32)
  for cell, strength in ((256, 0.5), (64, 0.25), (16, 0.15), (4, 0.1)):
    noise = rng.integers(0, 251, (height // cell + 2, width // cell + 2, 3), np.uint8)
    layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    total += strength * np.asarray(layer, np.float32)
  return total.astype(np.uint8)


def encode(path: pathlib.Path, frames: int, height: int, width: int, seed: int) -> None:
  """Writes such a video beside, then renames it."""
  beside = path.with_name(f".{path.name}.{os.getpid()}")
  options = {"g": str(KEYFRAMES), "sc_threshold": "0", "preset": "fast", "crf": "23"}
  with av.open(str(beside), "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=RATE, options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    for picture in scene(frames, height, width, seed):
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode(None))
  beside.rename(path)


@dataclasses.dataclass(frozen=True)
class Repeated:
  """A source over and over: Grain's shuffle takes milliseconds a record in a list of a few."""

  source: Source

  @property
  def name(self) -> str:
    return self.source.name

  @property
  def heads(self) -> Mapping[str, tuple[str, ...]]:
    return self.source.heads

  def __len__(self) -> int:
    return TIMES * len(self.source)

  def __getitem__(self, index: int) -> VideoRecord:
    return self.source[index % len(self.source)]


def material(folder: pathlib.Path, videos: int, frames: int, height: int) -> dict[str, Source]:
  """The originals and their shards, made where they are not there yet."""
  codec = ".".join(map(str, av.library_versions["libavcodec"]))
  folder = folder / f"{height}p-{videos}x{frames}-avcodec{codec}"
  originals, shards = folder / "originals", folder / "shards"
  originals.mkdir(parents=True, exist_ok=True)
  for i in range(videos):
    path = originals / f"{i:02}.mp4"
    if not path.exists():
      print(f"making {path}", file=sys.stderr, flush=True)
      encode(path, frames, height, round(height * 16 / 9 / 2) * 2, i)
  prepare.main(["--source=folder", f"--path={originals}", f"--out={shards}"])
  paths = {"originals": ("folder", originals), "shards": ("shards", shards)}
  return {
    name: Repeated(sources.open_source(ConfigDict({"source": kind, "path": str(path)}), "train"))
    for name, (kind, path) in paths.items()
  }


# The readers: (record, sorted indices) -> uint8[T, H, W, 3].


def with_pyav(record: VideoRecord, indices: Sequence[int]) -> np.ndarray:
  wanted, pictures = set(indices), []
  with av.open(_file(record)) as container:
    stream = container.streams.video[0]
    tick = 1 / (stream.average_rate * stream.time_base)
    container.seek(int(indices[0] * tick), stream=stream)
    for frame in container.decode(stream):
      number = round(frame.pts / tick)
      if number in wanted:
        pictures.append(frame.to_ndarray(format="rgb24"))
      if number >= indices[-1]:
        break
  return np.stack(pictures)


def with_decord(record: VideoRecord, indices: Sequence[int]) -> np.ndarray:
  import decord

  return decord.VideoReader(_file(record), num_threads=1).get_batch(indices).asnumpy()


def with_torchcodec(record: VideoRecord, indices: Sequence[int]) -> np.ndarray:
  from torchcodec.decoders import VideoDecoder

  source = record.path if record.data is None else record.data
  decoder = VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1)
  return decoder.get_frames_at(list(indices)).data.numpy()


def with_vfe(
  record: VideoRecord, indices: Sequence[int], short_side: int | None = None
) -> np.ndarray:
  with open_video(record, short_side=short_side) as video:
    return np.stack([picture for _, picture in video.read(indices)])


def _file(record: VideoRecord) -> str | io.BytesIO:
  return record.path if record.data is None else io.BytesIO(record.data)


READERS: dict[str, Callable[..., np.ndarray]] = {
  "pyav": with_pyav,
  "decord": with_decord,
  "torchcodec": with_torchcodec,
  "vfe": with_vfe,
  "decoder": functools.partial(with_vfe, short_side=2 * SIZE),
}
OTHERS = {"decord": "decord", "torchcodec": "torchcodec.decoders"}  # and what must be there


def loads(reader: str) -> bool:
  """Whether what a reader needs is installed, and works."""
  try:
    importlib.import_module(OTHERS.get(reader, "av"))
  except (ImportError, OSError, RuntimeError):  # torchcodec finds no FFmpeg: RuntimeError
    return False
  return True


# The measuring.


@dataclasses.dataclass
class Account:
  """What a reader has spent, a round an entry."""

  frames: int = 0
  cpu: list[float] = dataclasses.field(default_factory=list)
  wall: list[float] = dataclasses.field(default_factory=list)

  def add(self, work: Callable[[], int]) -> None:
    """Accounts for work that returns how many useful frames it gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    self.frames = work()
    self.cpu.append(time.process_time() - cpu)
    self.wall.append(time.perf_counter() - wall)

  def row(self) -> dict[str, Any]:
    """Medians over the rounds, and the CPU-seconds of each."""
    cpu, wall = statistics.median(self.cpu), statistics.median(self.wall)
    return {
      "frames_per_s_core": self.frames / cpu,
      "cpu_ms_a_frame": 1e3 * cpu / self.frames,
      "wall_ms_a_frame": 1e3 * wall / self.frames,
      "cpu_s": self.cpu,
    }


def measure(
  source: Source,
  sampling: Sampling,
  readers: Sequence[str],
  *,
  clips: int,
  length: int,
  rounds: int,
) -> dict[str, Account]:
  """Accounts by reader; every one reads the clips that the pipeline serves, once a round."""
  spec = ClipSpec(FRAMES, SIZE, sampling)
  wanted: list[Clip] = []
  for record, words in pipeline.slots(source, seed=0)[:clips]:
    sample = sampling.sample(length, FRAMES, np.random.default_rng([*words, 0]))
    wanted.append((record, sample.indices.tolist()))

  def through_the_pipeline() -> int:
    dataset = pipeline.train_dataset(source, spec, seed=0, batch=BATCH, rows=np.arange(BATCH))
    with pipeline.iterate(dataset[: clips // BATCH], buffer=1) as batches:
      return sum(batch["video"].shape[0] * batch["video"].shape[1] for batch in batches)

  work = {
    name: functools.partial(_all_of, READERS[name], source, wanted)
    for name in readers
    if name in READERS
  }
  work["pipeline"] = through_the_pipeline
  for name in work:
    work[name]()  # warm
  accounts = {name: Account() for name in work}
  for _ in range(rounds):
    for name, account in accounts.items():
      account.add(work[name])
  return accounts


def _all_of(
  reader: Callable[..., np.ndarray], source: Source, wanted: Sequence[Clip]
) -> int:
  return sum(len(reader(source[record], indices)) for record, indices in wanted)


def main(argv: Sequence[str]) -> None:
  """The command line."""
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--videos", type=int, default=4, help="originals")
  add("--frames", type=int, default=600, help="frames of each")
  add("--height", type=int, default=1080, help="pixels of their short side")
  add("--clips", type=int, default=6, help=f"of every kind, a round; a multiple of {BATCH}")
  add("--rounds", type=int, default=5)
  add("--folder", default=str(cache_folder().parent / "benchmarks"), help="where videos are kept")
  flags = parser.parse_args(argv)
  if flags.frames < SPAN:
    raise UserError(f"--frames={flags.frames}: a strided clip takes {SPAN}; use more.")
  if flags.clips % BATCH or not flags.clips:
    raise UserError(f"--clips={flags.clips}: a batch has {BATCH}; use a multiple of it.")
  made = material(pathlib.Path(flags.folder), flags.videos, flags.frames, flags.height)
  readers = [name for name in READERS if loads(name)]
  rows = []
  print("from      | clips   | reader     | useful frames/s a core | CPU ms/frame | wall ms/frame")
  for name, source in made.items():
    for kind, sampling in KINDS.items():
      found = measure(
        source, sampling, readers, clips=flags.clips, length=flags.frames, rounds=flags.rounds
      )
      for reader, account in found.items():
        row = account.row()
        rows.append({"source": name, "clips": kind, "reader": reader} | row)
        print(
          f"{name:9} | {kind:7} | {reader:10} | {row['frames_per_s_core']:>22.1f} | "
          f"{row['cpu_ms_a_frame']:>12.2f} | {row['wall_ms_a_frame']:>13.2f}", flush=True,
        )  # fmt: skip
  absent = [name for name in READERS if name not in readers]
  if absent:
    print(f"not installed: {', '.join(absent)}")
  ratios = _ratios(rows)
  for line, ratio in ratios.items():
    print(f"{line}: {ratio:.2f}")
  print(json.dumps(_about(flags) | {"rows": rows, "absent": absent, "ratios": ratios}))


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  rate = {(r["source"], r["clips"], r["reader"]): r["frames_per_s_core"] for r in rows}
  cpu = {(r["source"], r["clips"], r["reader"]): r["cpu_s"] for r in rows}
  found = {}
  for kind in KINDS:
    for reader in ("decoder", "pipeline"):
      shards, originals = rate["shards", kind, reader], rate["originals", kind, reader]
      found[f"{kind} clips, {reader}: frames/s a core, shards / originals"] = shards / originals
    for source in ("originals", "shards"):
      rounds = zip(cpu[source, kind, "pipeline"], cpu[source, kind, "decoder"], strict=True)
      found[f"{kind} clips, {source}: CPU-seconds a frame, pipeline / decoder"] = (
        statistics.median(ours / bare for ours, bare in rounds)
      )
  return found


def _about(flags: Any) -> dict[str, Any]:
  return {
    "settings": {name: value for name, value in vars(flags).items() if name != "debug"},
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "versions": {"av": av.__version__, "grain": metadata.version("grain")},
  }


if __name__ == "__main__":
  cli.run(main)
