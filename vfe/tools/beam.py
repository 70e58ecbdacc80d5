"""Apache Beam for the tools that can run on it: their flags, and jobs spread over its workers.

    python -m vfe.tools.prepare ... --runner=DirectRunner
    python -m vfe.tools.prepare ... --runner=DataflowRunner -- --project=mine --region=us-east1 ...

What stands after `--` goes to Beam as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from vfe.data import reencode
from vfe.errors import UserError

DIRECT = "DirectRunner"

Place = tuple[str, int, int]  # file, first byte, bytes


def split_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Our flags, and Beam's, which stand after `--`."""
  argv = list(argv)
  at = argv.index("--") if "--" in argv else len(argv)
  return argv[:at], argv[at + 1 :]


def add_runner(parser: argparse.ArgumentParser, default: str) -> None:
  """The flag that chooses a runner."""
  parser.add_argument(
    "--runner", default=default, help="a runner of Apache Beam; its options stand after --"
  )


def pipeline_options(runner: str, options: Sequence[str]) -> Any:
  """`apache_beam.options.pipeline_options.PipelineOptions` of a runner, which must exist."""
  load()
  module = importlib.import_module("apache_beam.options.pipeline_options")
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      chosen = module.PipelineOptions([f"--runner={runner}", *options])
      chosen.get_all_options()  # reads the values, which it would do later
      runner = chosen.view_as(module.StandardOptions).runner
      importlib.import_module("apache_beam.runners").create_runner(runner)
  except (ValueError, ImportError, SystemExit) as error:
    usage = isinstance(error, SystemExit)
    reason = said.getvalue().strip().splitlines()[-1] if usage else " ".join(str(error).split())
    raise UserError(f"{' '.join([f'--runner={runner}', *options])}: {reason}") from error
  return chosen


def load() -> Any:
  """The module apache_beam."""
  try:
    return importlib.import_module("apache_beam")
  except ImportError as error:
    raise UserError(
      f"Apache Beam does not import ({error}); pip install -e '.[beam]', or leave --runner out."
    ) from error


def write_shards(jobs: Sequence[reencode.Job], listing: epath.Path, options: Any) -> None:
  """Writes shards on Beam's workers, and waits for them.

  Args:
    jobs: of `reencode.write`; one is one element.
    listing: a file that the workers can read. The jobs travel through it, because runners limit
      the size of a pipeline itself (Dataflow: 10 MB).
    options: of the pipeline.
  """
  beam = load()
  places = list(_list(jobs, listing))
  try:
    pipeline = beam.Pipeline(options=options)
  except (ValueError, ImportError) as error:
    raise UserError(f"Apache Beam: {' '.join(str(error).split())}") from error
  with pipeline:
    _ = pipeline | "Shards" >> beam.Create(places) | "Write" >> beam.Map(_write)


def _list(jobs: Sequence[reencode.Job], listing: epath.Path) -> Iterator[Place]:
  with listing.open("wb") as file:
    first = 0
    for job in jobs:
      data = pickle.dumps(job)
      file.write(data)
      yield os.fspath(listing), first, len(data)
      first += len(data)


def _write(place: Place) -> None:
  """Runs on a worker: one shard, counted where the runner shows counters."""
  path, first, length = place
  with epath.Path(path).open("rb") as file:
    file.seek(first)
    job = pickle.loads(file.read(length))
  note = reencode.write(job)
  counter = load().metrics.Metrics.counter
  counter("vfe", "shards").inc()
  counter("vfe", "videos").inc(note["videos"])
  counter("vfe", "skipped").inc(len(note["skipped"]))
