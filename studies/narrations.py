"""Which of SViTT-Ego's claims show on the tabletop world?

    python -m studies.narrations            # runs what is missing, then writes the report
    python -m studies.narrations --report   # only the report

EgoNCE against InfoNCE, and sparse encoders against a dense one (arXiv 2406.09462, Tables 1 and 2),
by EgoMCQ: three seeds, each with videos of its own. Results are rows of JSON lines; a condition
that is there is not computed again, so a study that was stopped goes on.

On a CPU each core has a process that does a seed at a time.
"""

import argparse
import functools
import importlib.metadata
import pathlib
import platform
import tempfile
from collections.abc import Sequence

from studies import cores, narrations_report, records
from studies.contrast import size_here
from studies.ladder import PACKAGES, RESULTS, SEEDS
from studies.narrations_sizes import BASELINES, CLAIMED, CONDITIONS, SIZES

# The clips of a seed are drawn with its baselines.
JOBS = (BASELINES[0], *CONDITIONS)


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=["auto", *SIZES], default="auto")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the rows")
  parser.add_argument("--clips", type=pathlib.Path, help="folder of clips and compiled programs")
  parser.add_argument("--report", action="store_true", help="run nothing")
  parser.add_argument("--job", help="one condition", choices=JOBS)
  parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
  options = parser.parse_args(arguments)
  name = size_here() if options.size == "auto" else options.size
  study = Study(name, options.results, options.clips)
  if options.job:
    return study.run(options.job, options.seeds)
  if not options.report:
    run_all(study, options.seeds)
  text = narrations_report.text(records.read(study.path), name, study.size)
  study.path.with_suffix(".md").write_text(text)
  print(text)


class Study:
  """What is there and what is missing of the study at one size."""

  def __init__(self, name: str, results: pathlib.Path, clips: pathlib.Path | None = None):
    self.name, self.size, self.results = name, SIZES[name], results
    self.path = results / f"narrations-{name}.jsonl"
    places = pathlib.Path(tempfile.gettempdir()) / f"vfe-narrations-{name}-{self.size.digest()}"
    self.clips = clips or places

  def missing(self, job: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds whose row of the condition is not there."""
    rows = records.select(records.read(self.path), size=self.size.digest(), condition=job)
    done = {row["seed"] for row in rows}
    return tuple(seed for seed in seeds if seed not in done)

  def run(self, job: str, seeds: Sequence[int]) -> None:
    """Does a condition in this process, for the seeds that miss it, and appends its rows."""
    import jax

    from studies import narrations_baselines, narrations_jobs

    if not jax.config.jax_compilation_cache_dir:  # seeds share their programs
      jax.config.update("jax_compilation_cache_dir", str(self.clips / "programs"))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    about = {
      "study": "narrations",
      "size": self.size.digest(),
      "device": jax.devices()[0].device_kind,
      "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
      | {"python": platform.python_version()},
    }
    for seed in self.missing(job, seeds):
      if job in CONDITIONS:
        rows = [narrations_jobs.train(self.size, job, seed, self.clips)]
      else:
        rows = narrations_baselines.rows(self.size, seed, self.clips)
      for row in rows:
        records.append(self.path, row | about)
        print(f"{row['condition']}, seed {seed}: done", flush=True)


def run_all(study: Study, seeds: Sequence[int]) -> None:
  """Runs all that is missing: in this process, or one process a core on a CPU."""
  if study.name == "cpu":
    return cores.run(jobs(study, seeds))
  for name in JOBS:
    study.run(name, seeds)


def jobs(study: Study, seeds: Sequence[int]) -> dict[tuple, cores.Job]:
  """Jobs by (name, seed): what the claims are of first, and seed by seed, so that two processes
  seldom compile the same program."""
  names = [(JOBS[0], *CLAIMED), [name for name in CONDITIONS if name not in CLAIMED]]
  found = {}
  for name, seed in ((name, seed) for part in names for seed in seeds for name in part):
    arguments = ["-m", "studies.narrations", "--size", study.name, "--job", name]
    arguments += ["--seeds", str(seed), "--results", str(study.results)]
    arguments += ["--clips", str(study.clips)]
    after = () if name == JOBS[0] else ((JOBS[0], seed),)
    missing = functools.partial(study.missing, name, (seed,))
    found[name, seed] = cores.Job(tuple(arguments), after, missing)
  return found


if __name__ == "__main__":
  main()
