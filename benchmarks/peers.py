"""The same work by vfe and by transformers in PyTorch, in turns, in one run.

    python benchmarks/peers.py --size=b

Two pieces of work, each with as many clips a step on both sides:

pretrain  VideoMAE's pre-training step (16 frames of 224 pixels, 90 % tube mask, a decoder of four
          layers, normalised pixels as targets): forward, backward and AdamW. Both start from the
          same weights, clips and masks; the losses of their first steps are printed beside each
          other. PyTorch is given normalised float clips, we take uint8 ones and cut in the step.
forward   ViViT's forward pass over all tokens of 32 frames: transformers' VivitModel without its
          pooling (it has a class token and key biases), our encoder of the same size.

Peers: `eager` is PyTorch with attention written out, `sdpa` with its fused attention, `compiled` is
sdpa under torch.compile. Each side lives in a process of its own, which sleeps while another works;
after warming up they take turns (A B C A B C ...). Printed are the ratio of the medians of the
turns (theirs / ours in seconds: above 1 we are faster), the lowest and highest ratio of one round,
and the ratio of the peak memory (ours / theirs: below 1 we take less): on a GPU what the allocator
gave, elsewhere the resident memory of the process less what it held before it made the model.

Data are on the device beforehand. On a device that PyTorch has not (a TPU), only we are timed.
Prints a table and, as its last line, the same as JSON.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from peers_work import FRAMES, PEERS, Task, cores, describe, ours, theirs

from vfe.errors import UserError
from vfe.tools import cli

CONTEXT = multiprocessing.get_context("spawn")
NEEDED = ("torch", "transformers")  # of the peers
WARM = 3  # steps, the first of which compiles

# By device: clips a step, and steps a turn.
BATCH = {("cpu", "pretrain"): 4, ("cpu", "forward"): 1}
LARGE_BATCH = 64
TURN = {"cpu": 1}
LONG_TURN = 10


def _describe(connection: Any, size: str, pixels: int, folder: str) -> None:
  connection.send(describe(size, pixels, folder))


def _serve(connection: Any, task: Task, name: str) -> None:
  """Warms up, sends the losses of that, then times a turn for every number of steps it is sent."""
  before = _imported(name, task)
  run = ours(task) if name == "ours" else theirs(task, PEERS[name])
  connection.send([run(1) for _ in range(WARM)])
  _forget_peak(name, task)
  while steps := connection.recv():
    start = time.perf_counter()
    run(steps)
    connection.send(time.perf_counter() - start)
  connection.send(_peak(name, task) - before)


class Side:
  """One of those that take turns, in its process. `losses` are of its first steps."""

  def __init__(self, task: Task, name: str):
    self._connection, theirs = CONTEXT.Pipe()
    self._process = CONTEXT.Process(target=_serve, args=(theirs, task, name), daemon=True)
    self._process.start()
    theirs.close()
    self.name, self.seconds = name, []
    self.losses = _receive(self._connection, name)

  def turn(self, steps: int) -> None:
    """Takes a turn and notes its seconds a step."""
    self._connection.send(steps)
    self.seconds.append(_receive(self._connection, self.name) / steps)

  def end(self) -> int:
    """Ends the process; its peak memory in bytes."""
    self._connection.send(0)
    peak = _receive(self._connection, self.name)
    self._process.join()
    return peak


def _receive(connection: Any, name: str) -> Any:
  try:
    return connection.recv()
  except EOFError:
    raise UserError(f"{name}: its process ended, see above; try a smaller --batch.") from None


# Peak memory: of the device's allocator on an accelerator, else of the process.


def _imported(name: str, task: Task) -> int:
  """Imports what the side needs; bytes held then, to be taken off its peak."""
  if name == "ours":
    import jax

    import vfe.learn.step
    import vfe.models.mae  # noqa: F401

    jax.devices()
  else:
    import torch  # noqa: F401
    import transformers

    _ = transformers.VideoMAEForPreTraining, transformers.VivitModel
  return 0 if task.device != "cpu" else _resident()


def _resident() -> int:
  with contextlib.suppress(OSError):
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
  return 0


def _forget_peak(name: str, task: Task) -> None:
  """What warming up took does not count, where that can be had."""
  if task.device == "cpu":
    with contextlib.suppress(OSError):
      pathlib.Path("/proc/self/clear_refs").write_text("5")
  elif name != "ours":
    import torch

    torch.cuda.reset_peak_memory_stats()


def _peak(name: str, task: Task) -> int:
  if task.device == "cpu":
    with contextlib.suppress(OSError):
      lines = pathlib.Path("/proc/self/status").read_text().splitlines()
      return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
      1 if sys.platform == "darwin" else 1024
    )
  if name == "ours":
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
  import torch

  return torch.cuda.max_memory_allocated()


# The run.


def compare(task: Task, peers: Sequence[str], rounds: int, steps: int) -> Iterator[dict[str, Any]]:
  """A row for us and one for every peer."""
  sides = []
  for name in ("ours", *peers):
    print(f"{task.work}: {name} is warming up", file=sys.stderr, flush=True)
    sides.append(Side(task, name))
  for _ in range(rounds):
    for side in sides:
      side.turn(steps)
  peaks = [side.end() for side in sides]
  for side, peak in zip(sides, peaks, strict=True):
    each = [theirs / mine for theirs, mine in zip(side.seconds, sides[0].seconds, strict=True)]
    median = statistics.median(side.seconds)
    yield {
      "work": task.work,
      "side": side.name,
      "batch": task.batch,
      "dtype": task.dtype,
      "seconds": median,
      "clips_per_s": task.batch / median,
      "throughput_ratio": median / statistics.median(sides[0].seconds),
      "lowest_ratio": min(each),
      "highest_ratio": max(each),
      "peak_bytes": peak,
      "memory_ratio": peaks[0] / peak if peak else None,
      "first_losses": side.losses if task.work == "pretrain" else None,
    }


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _parse(argv)
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both share one GPU
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    mine, other = CONTEXT.Pipe()
    weights = f"{folder}/weights"
    args = (other, flags.size, flags.pixels, weights)
    first = CONTEXT.Process(target=_describe, args=args)
    first.start()
    other.close()
    found = _receive(mine, "vfe")
    first.join()
    device = found["device"]
    if flags.peers is None:
      flags.peers = {"cpu": ("eager", "sdpa"), "gpu": tuple(PEERS)}.get(device, ())
    _check_installed(flags.peers)
    dtype = flags.dtype or ("float32" if device == "cpu" else "bfloat16")
    print("work     | side     | clips/s | ours/theirs |   (of rounds) | peak MiB | memory", end="")
    print(" ours/theirs | losses of the first steps")
    for work in flags.work:
      batch = flags.batch or BATCH.get((device, work), LARGE_BATCH)
      task = Task(work, flags.size, flags.pixels, batch, dtype, device, weights)
      for row in compare(task, flags.peers, flags.rounds, TURN.get(device, LONG_TURN)):
        rows.append(row)
        print(_line(row), flush=True)
  print(json.dumps(_about(flags, found) | {"rows": rows}))


def _check_installed(peers: Sequence[str]) -> None:
  missing = [name for name in NEEDED if peers and importlib.util.find_spec(name) is None]
  if missing:
    raise UserError(f"{', '.join(missing)}: not installed; pip install {' '.join(NEEDED)}.")


def _parse(argv: Sequence[str]) -> Any:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--size", default="b", choices=("test", "s", "b", "l"), help="of the models")
  add("--work", nargs="+", default=list(FRAMES), choices=tuple(FRAMES))
  add("--peers", nargs="*", choices=tuple(PEERS), help="default: by device; none: only us")
  add("--pixels", type=int, default=224, help="of a frame's side")
  add("--batch", type=int, help="clips a step, default: by device and work")
  add("--dtype", choices=("float32", "bfloat16"), help="default: float32 on CPU, else bfloat16")
  add("--rounds", type=int, default=7, help="turns of each side")
  return parser.parse_args(argv)


def _line(row: dict[str, Any]) -> str:
  losses = " ".join(f"{loss:.4f}" for loss in row["first_losses"] or ())
  memory = "" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
  spread = f"{row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f}"
  return (
    f"{row['work']:8} | {row['side']:8} | {row['clips_per_s']:>7.3g} | "
    f"{row['throughput_ratio']:>11.2f} | {spread:>13} | {row['peak_bytes'] / 2**20:>8,.0f} | "
    f"{memory:>18} | {losses}"
  )


def _about(flags: Any, found: dict[str, str]) -> dict[str, Any]:
  packages = ("jax", *(NEEDED if flags.peers else ()))
  return {
    "settings": {name: value for name, value in vars(flags).items() if name != "debug"},
    **found,
    "machine": platform.machine(),
    "threads": cores(),
    "versions": {name: metadata.version(name) for name in packages},
  }


if __name__ == "__main__":
  cli.run(main)
