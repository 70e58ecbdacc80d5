"""Which of LongViViT's claims show on the tabletop world?

    python -m studies.contrast            # runs what is missing, then writes the report
    python -m studies.contrast --report   # only the report

Three seeds, each with clips of its own. Image stage -> short clips -> long clips, as in the paper
(arXiv 2312.07395), each condition one training from the one before. Results are rows of JSON lines;
a condition that is there is not computed again, so a study that was stopped goes on.

On a GPU the seeds are one program; on a CPU each core has a process that does a seed at a time.
"""

import argparse
import functools
import importlib.metadata
import pathlib
import platform
import tempfile
from collections.abc import Sequence

from studies import contrast_report, cores, records
from studies.contrast_sizes import CONDITIONS, SIZES, place
from studies.ladder import PACKAGES, RESULTS, SEEDS


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=["auto", *SIZES], default="auto")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the rows")
  parser.add_argument("--encoders", type=pathlib.Path, help="folder of clips and parameters")
  parser.add_argument("--report", action="store_true", help="run nothing")
  parser.add_argument("--job", help="one condition", choices=CONDITIONS)
  parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
  options = parser.parse_args(arguments)
  name = size_here() if options.size == "auto" else options.size
  study = Study(name, options.results, options.encoders)
  if options.job:
    return study.run(options.job, tuple(options.seeds))
  if not options.report:
    run_all(study, tuple(options.seeds))
  text = contrast_report.text(records.read(study.path), name, study.size)
  study.path.with_suffix(".md").write_text(text)
  print(text)


def size_here() -> str:
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
  names = study.size.conditions()
  if study.name == "cpu":
    return cores.run(jobs(study, names, seeds))
  for name in names:
    study.run(name, seeds)


def jobs(study: Study, names: Sequence[str], seeds: Sequence[int]) -> dict[tuple, cores.Job]:
  """Conditions by (name, seed); those with whose parameters others begin stand before them."""
  found = {}
  for name in names:
    for seed in seeds:
      arguments = ["-m", "studies.contrast", "--size", study.name, "--job", name]
      arguments += ["--seeds", str(seed), "--results", str(study.results)]
      arguments += ["--encoders", str(study.encoders)]
      after = CONDITIONS[name].after
      waits, missing = ((after, seed),) if after else (), functools.partial(study.missing, name)
      found[name, seed] = cores.Job(tuple(arguments), waits, functools.partial(missing, (seed,)))
  return found


if __name__ == "__main__":
  main()
