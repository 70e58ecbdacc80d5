"""Re-encodes videos into ArrayRecord shards that are quick to read at random.

    python -m vfe.tools.prepare --source=manifest --path=labels.csv --out=shards/mine
    python -m vfe.main --config=... --config.data.source=shards --config.data.path=shards/mine

Every clip (its start and end cut out, its rotation applied, its sound left out) becomes H.264 at a
constant frame rate with the short side and the keyframe interval given; frames are neither dropped
nor doubled. Videos that cannot be read are left out and named in dataset.json with the reason.
Stopped, it goes on with the same command: finished shards are kept. All paths are local.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vfe.data import decode, shards, sources
from vfe.data.faults import FaultError, reason
from vfe.data.record import Source, VideoRecord
from vfe.errors import UserError
from vfe.tools import cli

_PLAN = "prepare.json"
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Encoding:
  """How a clip is written.

  Attributes:
    short_side: pixels; a smaller picture keeps its size. Sides are rounded to even numbers.
    gop: frames from one keyframe to the next; decoding starts at a keyframe.
    crf: x264's quality, 0 (lossless) to 51; 6 more is about half the bytes.
    max_pixels: a larger picture is skipped as ABSURD_SIZE.
  """

  short_side: int = 256
  gop: int = 16
  crf: int = 20
  max_pixels: int = decode.MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file to write: these records of a split's source."""

  path: Path
  split: str
  first: int
  last: int  # not included

  @property
  def note(self) -> Path:
    """Says that the shard is finished, and what it left out."""
    return self.path.with_suffix(".json")


def encode(record: VideoRecord, encoding: Encoding) -> bytes:
  """The clip as an mp4 file. Raises FaultError if it cannot be read to its end."""
  buffer = io.BytesIO()
  with decode.open_video(record, max_pixels=encoding.max_pixels) as video:
    fps, _ = video.pace()
    with av.open(buffer, "w", format="mp4") as container:
      stream = None
      for picture in video.play():
        if stream is None:
          stream = _stream(container, picture, fps, encoding)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="AREA")
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
  return buffer.getvalue()


def _stream(
  container: Any, picture: UInt8[np.ndarray, "H W 3"], fps: float, encoding: Encoding
) -> Any:
  height, width = picture.shape[:2]
  factor = min(1.0, encoding.short_side / min(height, width))
  rate = Fraction(max(fps, 0.01)).limit_denominator(1001)
  options = {
    "crf": str(encoding.crf),
    "preset": "fast",
    "g": str(encoding.gop),
    "sc_threshold": "0",  # keyframes at the interval only, none for a cut
    "bf": "0",  # a frame needs those before it, back to the keyframe, and none after it
  }
  stream = container.add_stream("libx264", rate=rate, options=options)
  stream.height, stream.width = (max(2, round(side * factor / 2) * 2) for side in (height, width))
  stream.pix_fmt = "yuv420p"
  stream.codec_context.thread_count = 1  # the same bytes on every machine
  return stream


def write(shard: Shard, source: Source, encoding: Encoding) -> None:
  """Writes a shard and then its note."""
  skipped: list[Mapping[str, str]] = []

  def encoded() -> Iterator[VideoRecord]:
    for index in range(shard.first, shard.last):
      record = source[index]
      try:
        data = encode(record, encoding)
      except FaultError as error:
        skipped.append(_skip(shard.split, error))
      else:
        yield VideoRecord(record.name, data=data, labels=record.labels, text=record.text)

  videos = shards.write_shard(shard.path, encoded())
  _write_json(shard.note, {"videos": videos, "skipped": skipped})


def _skip(split: str, error: FaultError) -> dict[str, str]:
  return {
    "split": split,
    "name": error.name,
    "fault": error.fault.name,
    "reason": reason(error.fault),
    "detail": error.detail,
  }


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _parse(argv)
  data = ConfigDict(
    {"source": flags.source, "path": flags.path, "eval_path": flags.eval_path, "heads": flags.heads}
  )
  encoding = Encoding(flags.short_side, flags.gop, flags.crf, flags.max_pixels)
  splits = _open_splits(data)
  out = Path(flags.out)
  plan = _plan(data, encoding, flags.shard_size, splits)
  _start(out, plan)
  if (out / shards.DESCRIPTION).is_file():
    print(f"{out}: complete already")
    return
  wanted = _shards(out, splits, flags.shard_size)
  _write_all([s for s in wanted if not s.note.is_file()], splits, encoding, flags.workers)
  _finish(out, plan, wanted)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--source", required=True, choices=["folder", "manifest", "shards"], help="what --path is")
  add("--path", required=True, help="folder of videos, .csv or .jsonl manifest, folder of shards")
  add("--eval_path", help="the same for validation, where --path has no such split")
  add("--heads", nargs="+", help="label columns of a manifest")
  add("--out", required=True, help="folder for the shards")
  add("--short_side", type=_at_least(2), default=Encoding.short_side, help="pixels")
  add("--gop", type=_at_least(1), default=Encoding.gop, help="frames between keyframes")
  add("--crf", type=_at_least(0), default=Encoding.crf, help="x264's quality, 0 to 51")
  add("--max_pixels", type=_at_least(1), default=Encoding.max_pixels, help="larger ones are faults")
  add("--shard_size", type=_at_least(1), default=256, help="videos a shard")
  add("--workers", type=_at_least(1), default=os.cpu_count(), help="processes")
  return parser.parse_args(argv)


def _at_least(lowest: int) -> Any:
  def number(text: str) -> int:
    if not text.isdigit() or int(text) < lowest:
      raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} on")
    return int(text)

  return number


def _open_splits(data: ConfigDict) -> dict[str, Source]:
  found = {split: sources.open_split(data, split) for split in _SPLITS}
  if found["train"] is None:
    raise UserError(f"--path={data.path} holds no train split.")
  return {split: source for split, source in found.items() if source is not None}


def _plan(
  data: ConfigDict, encoding: Encoding, shard_size: int, splits: Mapping[str, Source]
) -> Mapping[str, Any]:
  """All that the shards depend on; two runs with the same plan write the same shards."""
  return {
    "source": {key: value for key, value in data.items() if value is not None},
    "encoding": dataclasses.asdict(encoding),
    "shard_size": shard_size,
    "heads": {head: list(names) for head, names in splits["train"].heads.items()},
    "videos": {split: len(source) for split, source in splits.items()},
    "digest": _digest(splits),
  }


def _digest(splits: Mapping[str, Source]) -> str:
  """Of all names and labels, so that another list is not taken for this one."""
  digest = hashlib.sha256()
  for split, source in splits.items():
    for index in range(len(source)):
      record = source[index]
      digest.update(json.dumps([split, record.name, dict(record.labels)]).encode())
  return digest.hexdigest()


def _start(out: Path, plan: Mapping[str, Any]) -> None:
  """Writes the plan into a new folder, or finds the same one there."""
  if out.exists() and not out.is_dir():
    raise UserError(f"--out={out} is a file; name a folder.")
  if (out / _PLAN).is_file():
    begun = json.loads((out / _PLAN).read_text())
    different = [key for key in plan if begun.get(key) != plan[key]]
    if different:
      name = different[0] if different[0] in ("encoding", "shard_size") else "list of videos"
      was = f" ({begun[name]}, now {plan[name]})" if name in plan else ""
      raise UserError(
        f"--out={out} was begun with another {name}{was}; name another folder, or remove it."
      )
    return
  if out.is_dir() and any(out.iterdir()):
    other = min(out.iterdir()).name
    raise UserError(f"--out={out} holds other files ({other}); name a new or empty folder.")
  out.mkdir(parents=True, exist_ok=True)
  _write_json(out / _PLAN, plan)


def _shards(out: Path, splits: Mapping[str, Source], size: int) -> list[Shard]:
  found = []
  for split, source in splits.items():
    count = -(-len(source) // size)
    for i in range(count):
      path = out / f"{split}-{i:05d}-of-{count:05d}.array_record"
      found.append(Shard(path, split, i * size, min((i + 1) * size, len(source))))
  return found


def _write_all(
  wanted: Sequence[Shard], splits: Mapping[str, Source], encoding: Encoding, workers: int
) -> None:
  workers = min(workers, len(wanted))
  if workers <= 1:
    for i, shard in enumerate(wanted):
      write(shard, splits[shard.split], encoding)
      print(f"{shard.path.name} ({i + 1} of {len(wanted)})", flush=True)
    return
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(workers, context, _set_job, (splits, encoding)) as pool:
    for i, name in enumerate(pool.map(_write_one, wanted)):
      print(f"{name} ({i + 1} of {len(wanted)})", flush=True)


_job: tuple[Mapping[str, Source], Encoding]


def _set_job(splits: Mapping[str, Source], encoding: Encoding) -> None:
  """Sends a worker process what all its shards need, once."""
  global _job
  _job = splits, encoding


def _write_one(shard: Shard) -> str:
  splits, encoding = _job
  write(shard, splits[shard.split], encoding)
  return shard.path.name


def _finish(out: Path, plan: Mapping[str, Any], written: Sequence[Shard]) -> None:
  """Gathers the notes of the shards into dataset.json."""
  notes = {shard: json.loads(shard.note.read_text()) for shard in written}
  splits: dict[str, Any] = {}
  for shard, note in notes.items():
    if note["videos"]:
      split = splits.setdefault(shard.split, {"videos": 0, "shards": {}})
      split["videos"] += note["videos"]
      split["shards"][shard.path.name] = note["videos"]
  skipped = [video for note in notes.values() for video in note["skipped"]]
  if "train" not in splits:
    raise UserError(
      f"{plan['source']['path']}: not one training video can be read; the first: "
      f"{skipped[0]['name']}: {skipped[0]['reason']}."
    )
  described = {
    "heads": plan["heads"], "encoding": plan["encoding"], "splits": splits, "skipped": skipped
  }
  _write_json(out / shards.DESCRIPTION, described)
  for shard in written:
    shard.note.unlink()
  counts = ", ".join(f"{split['videos']} {name}" for name, split in splits.items())
  print(f"{out}: {counts} videos; {len(skipped)} skipped, named in {shards.DESCRIPTION}")


def _write_json(path: Path, value: Any) -> None:
  beside = path.with_name(path.name + ".tmp")
  beside.write_text(json.dumps(value, indent=2) + "\n")
  beside.rename(path)


if __name__ == "__main__":
  cli.run(main)
