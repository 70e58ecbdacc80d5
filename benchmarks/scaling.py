"""Time and memory of a training step against the frames of a clip, and against devices.

    python benchmarks/scaling.py                                  # what suits the device at hand
    python benchmarks/scaling.py --frames 16 64 256 1024 --devices 1 --timed_frames 256
    python benchmarks/scaling.py --frames 128 --devices 1 2 4 8 --axis data fsdp context

Each line is `benchmarks/step.py` in a process of its own. Along `data` and `fsdp` the batch grows
with the devices (--batch clips each), along `context` and `tensor` it does not. Above
--timed_frames a step is compiled, which tells its memory, and not run. On a machine without
accelerators the devices are XLA's host-platform ones: they share the cores, so their times say
nothing of scaling, and their memory does. --config.key=value changes the recipe.

GiB and the ratios are of one device. Prints a table and, as its last line, the same as JSON.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from vfe.errors import UserError
from vfe.learn.sharding import AXES, BATCH_AXES
from vfe.tools import cli, recipes

STEP = pathlib.Path(__file__).with_name("step.py")
ON_THE_HOST = "--xla_force_host_platform_device_count"


def measured(
  flags: argparse.Namespace, changes: Sequence[str], frames: int, devices: int, axis: str
) -> dict[str, Any]:
  """A row of `benchmarks/step.py`, with the axis over which its devices lie."""
  batch = flags.batch * (devices if axis in BATCH_AXES else 1)
  command = [
    sys.executable, str(STEP), "--stage", flags.stage, "--size", flags.size,
    f"--frames={frames}", f"--batch={batch}", f"--devices={devices}", *changes,
    *(f"--config.mesh.{each}={devices if each == axis else 1}" for each in AXES),
  ]  # fmt: skip
  if frames > flags.timed_frames:
    command.append("--compile_only")
  environment = dict(os.environ)
  if jax.default_backend() == "cpu":
    given = environment.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{given} {ON_THE_HOST}={devices}"
  done = subprocess.run(command, env=environment, capture_output=True, text=True)
  if done.returncode:
    raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("vfe: "))
  (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
  return {"axis": axis if devices > 1 else None} | row


def cases(flags: argparse.Namespace) -> Iterator[tuple[int, int, str]]:
  """(frames, devices, axis): all frames on the first number of devices, then the other numbers."""
  first, *others = flags.devices
  for frames in flags.frames:
    yield frames, first, flags.axis[0]
  for axis in flags.axis:
    for devices in others:
      yield flags.frames[0], devices, axis


def line(row: dict[str, Any], first: dict[str, Any]) -> str:
  """A row of the table; ratios are to the first row."""
  ratio = lambda key: f"{row[key] / first[key]:6.2f}" if row[key] and first[key] else f"{'-':>6}"
  seconds = f"{row['seconds']:8.4g}" if row["seconds"] else f"{'-':>8}"
  cells = (
    f"{row['frames']:>6}", f"{row['devices']:>7}", f"{row['axis'] or '-':>7}", f"{row['batch']:>5}",
    seconds, ratio("seconds"), f"{row['bytes'] / 2**30:7.3f}", ratio("bytes"),
  )  # fmt: skip
  return " | ".join(cells)


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags, changes = _flags(argv)
  print(f"{flags.stage}, size {flags.size}, {jax.devices()[0].device_kind}")
  print("frames | devices |    axis | batch |   s/step |  ratio |     GiB |  ratio")
  rows: list[dict[str, Any]] = []
  for case in cases(flags):
    rows.append(measured(flags, changes, *case))
    print(line(rows[-1], rows[0]), flush=True)
  about = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "jax": jax.__version__}
  print(json.dumps(about | {"changes": changes, "rows": rows}))


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  small = jax.default_backend() == "cpu"
  there = len(jax.devices())
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  several = dict(nargs="+")
  add("--stage", default="pretrain_stored", help="of benchmarks/step.py")
  add("--size", default="s" if small else "b")
  add("--frames", **several, type=int, default=[16, 32, 64, 128, 256] + [512, 1024] * (not small))
  add("--timed_frames", type=int, default=32 if small else 1024, help="the longest that are run")
  powers = [2**i for i in range(there.bit_length()) if 2**i <= there]
  add("--devices", **several, type=int, default=[1, 2, 4, 8] if small else powers)
  add("--axis", **several, default=["data", "fsdp"], choices=AXES)
  add("--batch", type=int, default=1, help="clips a device (along context and tensor: of all)")
  return recipes.beside(parser, argv)


if __name__ == "__main__":
  cli.run(main)
