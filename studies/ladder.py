"""Does LVMAE's pre-training help, and up to which rung of the tabletop world's ladder?

    python -m studies.ladder            # runs what is missing, then writes the report
    python -m studies.ladder --report   # only the report

Three seeds, each with videos of its own. The encoder is pre-trained on the top rung's videos
without labels, then on every rung (appearance, verb, order, routine) fine-tuned beside the same
network from scratch, and probed frozen beside an untrained one. Results are rows of JSON lines; a
row that is there is not computed again, so a study that was stopped goes on.

On a GPU the seeds are one program; on a CPU each core has a process that does a seed at a time,
because small steps run no faster on several cores.
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

from studies import ladder_report, records
from studies.cores import MALLOC
from studies.ladder_sizes import CONDITIONS, FACTORS, SIZES

SEEDS = (0, 1, 2)
RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("jax", "flax", "optax", "numpy")
PRETRAIN = "pretrain"  # the job that the jobs of all rungs wait for


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=["auto", *SIZES], default="auto")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the rows")
  parser.add_argument("--encoders", type=pathlib.Path, help="folder of the pre-trained encoders")
  parser.add_argument("--report", action="store_true", help="run nothing")
  parser.add_argument("--job", help="one job, e.g. pretrain or verb", choices=[PRETRAIN, *FACTORS])
  parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
  options = parser.parse_args(arguments)
  name = _size_here() if options.size == "auto" else options.size
  study = Study(name, options.results, options.encoders)
  if options.job:
    return study.run(options.job, tuple(options.seeds))
  if not options.report:
    run_all(study, tuple(options.seeds))
  text = ladder_report.text(records.read(study.path), name, study.size)
  study.path.with_suffix(".md").write_text(text)
  print(text)


def _size_here() -> str:
  import jax

  return "cpu" if jax.default_backend() == "cpu" else "gpu"


class Study:
  """What is there and what is missing of the study at one size."""

  def __init__(self, name: str, results: pathlib.Path, encoders: pathlib.Path | None = None):
    self.name, self.size = name, SIZES[name]
    self.path = results / f"ladder-{name}.jsonl"
    places = pathlib.Path(tempfile.gettempdir()) / f"vfe-ladder-{name}-{self.size.digest()}"
    self.encoders = encoders or places
    self.results = results

  def missing(self, job: str, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds for which the job has not been done."""
    rows = records.select(records.read(self.path), size=self.size.digest())
    if job == PRETRAIN:
      done = {row["seed"] for row in records.select(rows, condition="pre-training")}
      return tuple(s for s in seeds if s not in done or not self._encoder(s).exists())
    have = lambda seed: {row["condition"] for row in records.select(rows, rung=job, seed=seed)}
    return tuple(seed for seed in seeds if not set(CONDITIONS) <= have(seed))

  def _encoder(self, seed: int) -> pathlib.Path:
    return self.encoders / f"encoder-{seed}.npz"

  def run(self, job: str, seeds: tuple[int, ...]) -> None:
    """Does a job in this process, for the seeds that miss it, and appends its rows."""
    import jax

    from studies import ladder_jobs

    if not jax.config.jax_compilation_cache_dir:  # seeds and conditions share their programs
      jax.config.update("jax_compilation_cache_dir", str(self.encoders / "programs"))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    seeds = self.missing(job, seeds)
    if not seeds:
      return
    if job == PRETRAIN:
      rows = ladder_jobs.pretrain(self.size, seeds, self.encoders)
    else:
      rows = ladder_jobs.evaluate(self.size, job, seeds, self.encoders)
    about = {
      "study": "ladder",
      "size": self.size.digest(),
      "device": jax.devices()[0].device_kind,
      "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
      | {"python": platform.python_version()},
    }
    for row in rows:
      records.append(self.path, row | about)
      print(f"{row['condition']}, {row['rung']}, seed {row['seed']}: done", flush=True)


def run_all(study: Study, seeds: tuple[int, ...]) -> None:
  """Runs every job that is missing: in this process, or one process a core on a CPU."""
  jobs = [PRETRAIN, *FACTORS]
  if study.name != "cpu":
    for job in jobs:
      study.run(job, seeds)
    return
  free = queue.SimpleQueue()
  for core in sorted(os.sched_getaffinity(0)):
    free.put(core)
  with concurrent.futures.ThreadPoolExecutor(free.qsize()) as pool:
    # All of the pre-training first: a seed's rungs then find its encoder, whichever core is free.
    pretrained = {seed: pool.submit(_process, study, PRETRAIN, seed, free) for seed in seeds}
    tasks = []
    for seed in seeds:
      pretrained[seed].result()
      tasks += [pool.submit(_process, study, rung, seed, free) for rung in FACTORS]
    for task in tasks:
      task.result()


def _process(study: Study, job: str, seed: int, free: queue.SimpleQueue) -> None:
  """Runs a job for a seed in a process of its own, on a core that is free."""
  if not study.missing(job, (seed,)):
    return
  core = free.get()
  try:
    os.sched_setaffinity(0, {core})  # of this thread; the process inherits it
    command = [sys.executable, "-m", "studies.ladder", "--size", study.name, "--job", job]
    command += ["--seeds", str(seed), "--results", str(study.results)]
    command += ["--encoders", str(study.encoders)]
    subprocess.run(command, check=True, env={**MALLOC, **os.environ})
  finally:
    free.put(core)


if __name__ == "__main__":
  main()
