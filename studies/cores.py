"""Jobs of a study in processes of their own, one on a core at a time."""

import concurrent.futures
import dataclasses
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any

# A large array is taken from the heap, not mapped and cleared anew at every step.
MALLOC = {
  "MALLOC_MMAP_THRESHOLD_": str(2**32),
  "MALLOC_TRIM_THRESHOLD_": str(2**34),
  "MALLOC_TOP_PAD_": str(2**28),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """arguments: of Python. after: the jobs that are waited for. missing: true of what is to be
  done, asked when its turn has come."""

  arguments: tuple[str, ...]
  after: tuple[Hashable, ...]
  missing: Callable[[], Any]


def run(jobs: Mapping[Hashable, Job]) -> None:
  """Runs all that is missing; a job stands behind those that it waits for."""
  free = queue.SimpleQueue()
  for core in sorted(os.sched_getaffinity(0)):
    free.put(core)
  with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
    tasks = {}
    for name, job in jobs.items():
      # Submitted earlier, so they are running or done: waiting for them blocks nothing for good.
      before = [tasks[other] for other in job.after]
      tasks[name] = pool.submit(_process, job, free, before)
    for task in tasks.values():
      task.result()


def _process(job: Job, free: queue.SimpleQueue, before: list[concurrent.futures.Future]) -> None:
  for task in before:
    task.result()
  if not job.missing():
    return
  core = free.get()
  try:
    os.sched_setaffinity(0, {core})  # of this thread; the process inherits it
    subprocess.run([sys.executable, *job.arguments], check=True, env={**MALLOC, **os.environ})
  finally:
    free.put(core)
