"""Which of LongViViT's claims show on the tabletop world?

    python -m studies.contrast            # runs what is missing, then writes the report
    python -m studies.contrast --report   # only the report

Three seeds, each with clips of its own. Image stage -> short clips -> long clips, as in the paper
(arXiv 2312.07395), each condition one training from the one before. Results are rows of JSON lines;
a condition that is there is not computed again, so a study that was stopped goes on.

On a GPU the seeds are one program; on a CPU each core has a process that does a seed at a time.
"""

import argparse
import concurrent.futures
import importlib.metadata
import os
import pathlib
import platform
import queue
import subprocess
import sys
import tempfile

from studies import contrast_report, records
from studies.contrast_sizes import CONDITIONS, SIZES, place
from studies.ladder import MALLOC, PACKAGES, RESULTS, SEEDS


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=["auto", *SIZES], default="auto")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the rows")
  parser.add_argument("--encoders", type=pathlib.Path, help="folder of clips and parameters")
  parser.add_argument("--report", action="store_true", help="run nothing")
  parser.add_argument("--job", help="one condition", choices=CONDITIONS)
  parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
  options = parser.parse_args(arguments)
  name = _size_here() if options.size == "auto" else options.size
  study = Study(name, options.results, options.encoders)
  if options.job:
    return study.run(options.job, tuple(options.seeds))
  if not options.report:
    run_all(study, tuple(options.seeds))
  text = contrast_report.text(records.read(study.path), name, study.size)
  study.path.with_suffix(".md").write_text(text)
  print(text)


def _size_here() -> str:
  import jax

  return "cpu" if jax.default_backend() == "cpu" else "gpu"


class Study:
  """What is there and what is missing of the study at one size."""

  def __init__(self, name: str, results: pathlib.Path, encoders: pathlib.Path | None = None):
    self.name, self.size = name, SIZES[name]
    self.path = results / f"contrast-{name}.jsonl"
    places = pathlib.Path(tempfile.gettempdir()) / f"vfe-contrast-{name}-{self.size.digest()}"
    self.encoders = encoders or places
    self.results = results

  def missing(self, job: str, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds whose row of the condition, or whose parameters that others need, are not there."""
    rows = records.select(records.read(self.path), size=self.size.digest(), condition=job)
    done = {row["seed"] for row in rows}
    needed = any(job == condition.after for condition in CONDITIONS.values())
    kept = lambda seed: not needed or place(self.encoders, job, seed).exists()
    return tuple(seed for seed in seeds if seed not in done or not kept(seed))

  def run(self, job: str, seeds: tuple[int, ...]) -> None:
    """Does a condition in this process, for the seeds that miss it, and appends its rows."""
    import jax

    from studies import contrast_jobs

    if not jax.config.jax_compilation_cache_dir:  # seeds share their programs
      jax.config.update("jax_compilation_cache_dir", str(self.encoders / "programs"))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    seeds = self.missing(job, seeds)
    if not seeds:
      return
    about = {
      "study": "contrast",
      "size": self.size.digest(),
      "device": jax.devices()[0].device_kind,
      "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
      | {"python": platform.python_version()},
    }
    for row in contrast_jobs.train(self.size, job, seeds, self.encoders):
      records.append(self.path, row | about)
      print(f"{row['condition']}, seed {row['seed']}: done", flush=True)


def run_all(study: Study, seeds: tuple[int, ...]) -> None:
  """Runs every condition that is missing: in this process, or one process a core on a CPU."""
  jobs = study.size.conditions()
  if study.name != "cpu":
    for job in jobs:
      study.run(job, seeds)
    return
  free = queue.SimpleQueue()
  for core in sorted(os.sched_getaffinity(0)):
    free.put(core)
  with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
    tasks = {}
    for job in jobs:
      for seed in seeds:
        # Submitted earlier, so it is running or done: waiting for it blocks nothing for good.
        before = tasks.get((CONDITIONS[job].after, seed))
        tasks[job, seed] = pool.submit(_process, study, job, seed, free, before)
    for task in tasks.values():
      task.result()


def _process(study: Study, job: str, seed: int, free: queue.SimpleQueue, before) -> None:
  """Runs a condition for a seed in a process of its own, on a core that is free."""
  if before is not None:
    before.result()
  if not study.missing(job, (seed,)):
    return
  core = free.get()
  try:
    os.sched_setaffinity(0, {core})  # of this thread; the process inherits it
    command = [sys.executable, "-m", "studies.contrast", "--size", study.name, "--job", job]
    command += ["--seeds", str(seed), "--results", str(study.results)]
    command += ["--encoders", str(study.encoders)]
    subprocess.run(command, check=True, env={**MALLOC, **os.environ})
  finally:
    free.put(core)


if __name__ == "__main__":
  main()
