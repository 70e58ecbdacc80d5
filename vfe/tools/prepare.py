"""Re-encodes videos into ArrayRecord shards that are quick to read at random.

    python -m vfe.tools.prepare --source=manifest --path=labels.csv --out=shards/mine
    python -m vfe.main --config=... --config.data.source=shards --config.data.path=shards/mine

    python -m vfe.tools.prepare --source=manifest --path=labels.csv --out=gs://you/mine \\
      --runner=DataflowRunner -- --project=... --region=... --temp_location=gs://you/tmp

Every clip (its start and end cut out, its rotation applied, its sound left out) becomes H.264 at a
constant frame rate with the short side and the keyframe interval given; frames are neither dropped
nor doubled. Images are kept as they are. Videos that cannot be read are left out and named in
dataset.json with the reason. Stopped, it goes on with the same command: finished shards are kept.

By default the processes of this machine do it; --runner= names a runner of Apache Beam instead,
whose options stand after `--`. The shards are the same, and a run begun one way may be finished
the other. --path is read on this machine; the videos and --out are where the workers reach them,
in a bucket (gs://) too.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from vfe.data import captioned, questions, reencode, shards, sources
from vfe.data.record import Source, is_url
from vfe.data.reencode import Encoding, Job
from vfe.data.scenes import Narrated
from vfe.errors import UserError
from vfe.tools import beam, cli

_PLAN = "prepare.json"
_JOBS = "prepare.jobs"
_SOURCES = tuple(name for name in sources.SOURCES if name != "tabletop")
_SPLITS = ("train", "validation", "test")
_LOCAL = "local"


def main(argv: Sequence[str]) -> None:
  """The command line."""
  ours, options = beam.split_options(argv)
  flags = _parse(ours)
  if flags.variant and flags.source not in {*captioned.READERS, *questions.READERS}:
    raise UserError(
      f"--variant={flags.variant}: --source={flags.source} has no variants; leave it out."
    )
  data = ConfigDict(
    {
      "source": flags.source, "path": flags.path, "eval_path": flags.eval_path,
      "heads": flags.heads, "variant": flags.variant,
    }
  )
  encoding = Encoding(flags.short_side, flags.gop, flags.crf, flags.max_pixels)
  splits = _open_splits(data)
  runner = beam.DIRECT if options and flags.runner == _LOCAL else flags.runner
  options = None if runner == _LOCAL else beam.pipeline_options(runner, options)
  out = epath.Path(flags.out if is_url(flags.out) else os.path.abspath(flags.out))
  plan = _plan(data, encoding, flags.shard_size, splits)
  _start(out, plan)
  if (out / shards.DESCRIPTION).is_file():
    print(f"{out}: complete already")
    return
  jobs = _jobs(out, splits, flags.shard_size, encoding)
  left = [job for job in jobs if not job.note.exists()]
  if options is None:
    _write_all(left, flags.workers)
  elif left:
    beam.write_shards(left, out / _JOBS, options)
  _finish(out, plan, jobs, splits)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--source", required=True, choices=_SOURCES, help="what --path is")
  add("--path", required=True, help="the folder or list, as data.path= of a config")
  add("--eval_path", help="the same for validation, where --path has no such split")
  add("--heads", nargs="+", help="label columns of a manifest")
  add("--variant", help="the protocol of a data set that has several, as data.variant=")
  add("--out", required=True, help="folder for the shards, local or gs://")
  add("--short_side", type=cli.at_least(2), default=Encoding.short_side, help="pixels")
  add("--gop", type=cli.at_least(1), default=Encoding.gop, help="frames between keyframes")
  add("--crf", type=cli.at_least(0), default=Encoding.crf, help="x264's quality, 0 to 51")
  add("--max_pixels", type=cli.at_least(1), default=Encoding.max_pixels, help="larger: a fault")
  add("--shard_size", type=cli.at_least(1), default=256, help="videos a shard")
  add("--workers", type=cli.at_least(1), default=os.cpu_count(), help="processes, with no --runner")
  beam.add_runner(parser, _LOCAL)
  return parser.parse_args(argv)


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
  """Of all names, labels and texts, so that another list is not taken for this one."""
  digest = hashlib.sha256()
  for split, source in splits.items():
    for index in range(len(source)):
      record = source[index]
      text = [dict(record.text)] if record.text else []
      digest.update(json.dumps([split, record.name, dict(record.labels), *text]).encode())
  return digest.hexdigest()


def _start(out: epath.Path, plan: Mapping[str, Any]) -> None:
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
  reencode.write_json(out / _PLAN, plan)


def _jobs(
  out: epath.Path, splits: Mapping[str, Source], size: int, encoding: Encoding
) -> list[Job]:
  found = []
  for split, source in splits.items():
    count = -(-len(source) // size)
    for i in range(count):
      path = out / f"{split}-{i:05d}-of-{count:05d}.array_record"
      records = reencode.part(source, i * size, min((i + 1) * size, len(source)))
      found.append(Job(os.fspath(path), split, records, encoding))
  return found


def _write_all(jobs: Sequence[Job], workers: int) -> None:
  """Writes shards in processes of this machine."""
  if min(workers, len(jobs)) <= 1:
    for i, job in enumerate(jobs):
      reencode.write(job)
      print(f"{job.name} ({i + 1} of {len(jobs)})", flush=True)
    return
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(min(workers, len(jobs)), context) as pool:
    for i, _ in enumerate(pool.map(reencode.write, jobs)):
      print(f"{jobs[i].name} ({i + 1} of {len(jobs)})", flush=True)


def _finish(
  out: epath.Path, plan: Mapping[str, Any], jobs: Sequence[Job], opened: Mapping[str, Source]
) -> None:
  """Gathers the notes of the shards into dataset.json, beside it the scenes of narrated clips."""
  notes = [json.loads(job.note.read_text()) for job in jobs]
  splits: dict[str, Any] = {}
  for job, note in zip(jobs, notes, strict=True):
    if note["videos"]:
      split = splits.setdefault(job.split, {"videos": 0, "shards": {}})
      split["videos"] += note["videos"]
      split["shards"][job.name] = note["videos"]
  skipped = [video for note in notes for video in note["skipped"]]
  if "train" not in splits:
    raise UserError(
      f"{plan['source']['path']}: not one training video can be read; the first: "
      f"{skipped[0]['name']}: {skipped[0]['reason']}."
    )
  for name in splits:
    if isinstance(opened[name], Narrated):
      kept = _kept([note for job, note in zip(jobs, notes, strict=True) if job.split == name], plan)
      splits[name] |= shards.write_narrated(out, name, opened[name], kept)
  described = {
    "heads": plan["heads"], "encoding": plan["encoding"], "splits": splits, "skipped": skipped
  }
  reencode.write_json(out / shards.DESCRIPTION, described)
  for path in (out / _JOBS, *(job.note for job in jobs), *out.glob(f".*{shards.UNFINISHED}")):
    path.unlink(missing_ok=True)
  counts = ", ".join(f"{split['videos']} {name}" for name, split in splits.items())
  print(f"{out}: {counts} videos; {len(skipped)} skipped, named in {shards.DESCRIPTION}")


def _kept(notes: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> np.ndarray:
  """Which records of a split are in its shards, from the shards' notes in order."""
  found = []
  for i, note in enumerate(notes):
    count = note["videos"] + len(note["missing"])
    found.append(i * plan["shard_size"] + np.delete(np.arange(count), note["missing"]))
  return np.concatenate(found)


if __name__ == "__main__":
  cli.run(main)
