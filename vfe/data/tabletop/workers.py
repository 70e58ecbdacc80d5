"""Drawing in several processes, without touching what the caller's process holds.

Workers are plain Python processes that import what they need and no more: a fork of a process that
runs JAX may hang, and multiprocessing's spawn would run the caller's script again.

    python -m vfe.data.tabletop.workers   # reads one job, a line of JSON, from its input
"""

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from vfe.data.tabletop.draw import render
from vfe.data.tabletop.story import labels, scenario
from vfe.data.tabletop.world import World

ENOUGH = 48  # videos; fewer are done here, before processes would have started


def cores() -> int:
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(
  function: Callable, world: World, split: str, indices: list[int], target: str
) -> None:
  """Runs function(world, split, indices, target) on the videos in as many processes as help.

  function: a module's, for the processes import it by its name. target: a path, for it.
  Raises RuntimeError with a worker's last words when one fails.
  """
  count = 1 if len(indices) < ENOUGH else min(cores(), 32)
  job = lambda part: {
    "function": f"{function.__module__}:{function.__name__}",
    "world": dataclasses.asdict(world),
    "split": split,
    "indices": part,
    "target": target,
  }
  if count == 1:
    return run(job(indices))
  root = pathlib.Path(__file__).resolve().parents[3]
  path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
  command = [sys.executable, "-m", "vfe.data.tabletop.workers"]
  processes = [
    subprocess.Popen(
      command,
      env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
      stdin=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(count)
  ]
  try:
    for number, process in enumerate(processes):
      process.stdin.write(json.dumps(job(indices[number::count])))
      process.stdin.close()
    for process in processes:
      words = process.stderr.read()
      if process.wait() != 0:
        raise RuntimeError(f"a worker of the tabletop world failed: {words.strip()[-400:]}")
  finally:
    for process in processes:
      process.kill()
      process.wait()
      process.stderr.close()


def run(job: dict) -> None:
  """Does one job in this process."""
  world = World(**{**job["world"], "objects": tuple(job["world"]["objects"])})
  module, name = job["function"].split(":")
  function = getattr(importlib.import_module(module), name)
  function(world, job["split"], job["indices"], job["target"])


def draw(world: World, split: str, indices: list[int], target: str) -> None:
  """Draws videos into their rows of an .npy file of all frames."""
  frames = np.load(target, mmap_mode="r+")
  for index in indices:
    frames[index] = render(world, scenario(world, index, split))
  frames.flush()


def arrays(
  world: World, split: str, count: int
) -> tuple[UInt8[np.ndarray, "n T S S 3"], dict[str, np.ndarray]]:
  """The first `count` videos, not encoded, and their labels int32[n] by head: for studies.

  labels holds the rung's heads and the control's (what is on the table).
  """
  shape = (count, world.frames, world.size, world.size, 3)
  with tempfile.TemporaryDirectory(prefix="vfe-tabletop-") as folder:
    path = os.path.join(folder, "frames.npy")
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    share_out(draw, world, split, list(range(count)), path)
    video = np.load(path)
  rows = [labels(scenario(world, index, split)) for index in range(count)]
  return video, {head: np.array([r[head] for r in rows], np.int32) for head in rows[0]}


if __name__ == "__main__":
  run(json.loads(sys.stdin.read()))
