"""Does a language model say what a frozen video encoder sees, and more than segments tell it?

    python -m studies.captions            # runs what is missing, then writes the report
    python -m studies.captions --report   # only the report

LongViViT's second half (arXiv 2312.07395) on the tabletop world: three seeds, each with the clips
and the encoders of `studies.contrast`, which are made first where they are missing, and a language
model of its own, trained on texts alone. Results are rows of JSON lines; a condition that is there
is not computed again, so a study that was stopped goes on.

On a CPU each core has a process that does a seed at a time.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
import tempfile
from collections.abc import Sequence

from studies import captions_report, contrast, cores, records
from studies.captions_sizes import CONDITIONS, ENCODERS, LANGUAGE, SIZES
from studies.contrast_sizes import place
from studies.ladder import PACKAGES, RESULTS, SEEDS

JOBS = (LANGUAGE, *CONDITIONS)


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", choices=["auto", *SIZES], default="auto")
  parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the rows")
  parser.add_argument("--encoders", type=pathlib.Path, help="the contrastive study's folder")
  parser.add_argument("--parameters", type=pathlib.Path, help="folder of what is trained here")
  parser.add_argument("--report", action="store_true", help="run nothing")
  parser.add_argument("--job", help="one condition", choices=JOBS)
  parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
  options = parser.parse_args(arguments)
  name = contrast.size_here() if options.size == "auto" else options.size
  study = Study(name, options.results, options.encoders, options.parameters)
  if options.job:
    return study.run(options.job, tuple(options.seeds))
  if not options.report:
    run_all(study, tuple(options.seeds))
  text = captions_report.text(records.read(study.path), name, study.size)
  study.path.with_suffix(".md").write_text(text)
  print(text)


class Study:
  """What is there and what is missing of the study at one size."""

  def __init__(
    self,
    name: str,
    results: pathlib.Path,
    encoders: pathlib.Path | None = None,
    parameters: pathlib.Path | None = None,
  ):
    self.name, self.size = name, SIZES[name]
    self.path = results / f"captions-{name}.jsonl"
    self.before = contrast.Study(self.size.contrast, results, encoders)
    places = pathlib.Path(tempfile.gettempdir()) / f"vfe-captions-{name}-{self.size.digest()}"
    self.parameters = parameters or places
    self.results = results

  def missing(self, job: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds whose row of the condition, or whose language model, is not there."""
    rows = records.select(records.read(self.path), size=self.size.digest(), condition=job)
    done = {row["seed"] for row in rows}
    kept = lambda seed: job != LANGUAGE or place(self.parameters, job, seed).exists()
    return tuple(seed for seed in seeds if seed not in done or not kept(seed))

  def blind(self, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds whose encoders are not there."""
    there = lambda seed: all(place(self.before.encoders, name, seed).exists() for name in ENCODERS)
    return tuple(seed for seed in seeds if not there(seed))

  def run(self, job: str, seeds: Sequence[int]) -> None:
    """Does a condition in this process, for the seeds that miss it, and appends its rows."""
    import jax

    from studies import captions_jobs

    if not jax.config.jax_compilation_cache_dir:  # seeds share their programs
      jax.config.update("jax_compilation_cache_dir", str(self.parameters / "programs"))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    about = {
      "study": "captions",
      "size": self.size.digest(),
      "device": jax.devices()[0].device_kind,
      "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
      | {"python": platform.python_version()},
    }
    for seed in self.missing(job, seeds):
      if job == LANGUAGE:
        rows = captions_jobs.train_language(self.size, seed, self.parameters)
      else:
        rows = captions_jobs.train(self.size, job, seed, self.parameters, self.before.encoders)
      for row in rows:
        records.append(self.path, row | about)
        print(f"{row['condition']}, seed {seed}: done", flush=True)


def run_all(study: Study, seeds: Sequence[int]) -> None:
  """Runs all that is missing: in this process, or one process a core on a CPU."""
  if study.name == "cpu":
    return cores.run(jobs(study, seeds))
  for name in _encoders():
    study.before.run(name, study.blind(seeds))
  for name in JOBS:
    study.run(name, seeds)


def jobs(study: Study, seeds: Sequence[int]) -> dict[tuple, cores.Job]:
  """Conditions by (name, seed), behind those of the contrastive study that make their encoders."""
  found = {}
  renamed = lambda names: tuple(("encoder", *name) for name in names)
  for name, job in contrast.jobs(study.before, _encoders(), study.blind(seeds)).items():
    found["encoder", *name] = dataclasses.replace(job, after=renamed(job.after))
  encoders = {seed: tuple(name for name in found if name[-1] == seed) for seed in seeds}
  for name in JOBS:
    for seed in seeds:
      arguments = ["-m", "studies.captions", "--size", study.name, "--job", name]
      arguments += ["--seeds", str(seed), "--results", str(study.results)]
      arguments += ["--encoders", str(study.before.encoders)]
      arguments += ["--parameters", str(study.parameters)]
      after = () if name == LANGUAGE else ((LANGUAGE, seed), *encoders[seed])
      missing = functools.partial(study.missing, name, (seed,))
      found[name, seed] = cores.Job(tuple(arguments), after, missing)
  return found


def _encoders() -> list[str]:
  """The conditions of the contrastive study that make the encoders, in their order."""
  needed = set(ENCODERS)
  for name in reversed(contrast.CONDITIONS):
    if name in needed:
      needed |= {contrast.CONDITIONS[name].after} - {None}
  return [name for name in contrast.CONDITIONS if name in needed]


if __name__ == "__main__":
  main()
