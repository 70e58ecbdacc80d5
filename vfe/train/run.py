"""A recipe's graph of stages, run in order: skipped where complete, resumed where not.

In several processes the first one reads and writes what a workdir says of a stage, and the others
are told (`hosts.decided`), so that no two of them can see it in different states.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections

from vfe import config as configs
from vfe.errors import UserError
from vfe.evaluate.evaluation import Evaluation
from vfe.learn import exports, hosts, sharding
from vfe.stages import stage_class
from vfe.stages.inputs import check, resolve
from vfe.stages.stage import Setting, Stage
from vfe.train import checkpoints, loop, report, stop
from vfe.train.clock import Clock

DONE, ABOUT = "done.json", "about.json"
# What --eval may be asked for otherwise than a stage was trained with: on which data, and how.
MEASURES = (
  "data", "eval_batch", "generate", "measures", "questions", "retrieval", "written", "zero_shot",
)  # fmt: skip
PACKAGES = (
  "vfe", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "clu", "ml_collections",
  "av", "numpy",
)  # fmt: skip


def recipe(
  config: ml_collections.ConfigDict,
  *,
  workdir: pathlib.Path,
  only: str | None = None,
  redo: str | None = None,
  evaluate: bool = False,
  yes: bool = False,
  command: list[str] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> dict[str, Any]:
  """Runs the stages of a recipe, or one of them, and writes `results.json` and a table.

  Args:
    config: the recipe; see configs/.
    workdir: where each stage has a folder of its name.
    only: a stage to run alone; its inputs must be there.
    redo: a finished stage to make anew; what it made is kept in `<stage>.old-<n>`.
    evaluate: measure finished stages again, into `<stage>/eval`, instead of running any.
    yes: go on with what would take this machine very long.
    command: what was typed, for the record.
    devices: those to run on, default all there are.

  Returns:
    What `results.json` holds: {"stages": {name: {"steps", "seconds", "metrics"}}}.
  """
  names = configs.stage_names(config)
  for flag, value in (("--stage", only), ("--redo", redo)):
    if value and value not in names:
      raise UserError(f"{flag}={value} is not a stage ({configs.nearest(value, names)}).")
  names_to_run = [only] if only else names
  check(config, names_to_run)
  results = {}
  with hosts.joined(**config.hosts), contextlib.ExitStack() as opened:
    clock = Clock()
    opened.enter_context(stop.at_once(clock.say))
    _cache_compiled_programs()
    _refuse_another_config(config)
    mesh = sharding.make_mesh(config.mesh, devices)
    clock.say(f"{_devices(mesh)}, workdir {workdir}")
    if redo:
      hosts.decided(lambda: _set_aside(workdir / redo, clock))
    for name in names_to_run:
      with jax.set_mesh(mesh):  # attention reads the ambient mesh, nothing else does
        if evaluate:
          results[name] = _evaluate_again(config, name, workdir, mesh, clock)
        else:
          results[name] = _stage(config, name, workdir, mesh, clock, yes, command or [])
    if hosts.first():
      report.write(workdir, names, DONE, replaced=results if evaluate else {})
  return {"stages": results}


def _stage(config, name, workdir, mesh, clock, yes, command) -> dict[str, Any]:
  folder = workdir / name
  identity = configs.identity(config, name)
  done = hosts.decided(lambda: _complete(config, name, workdir, identity))
  if done:
    clock.say(f"{name}: complete ({done['result']['steps']} steps), skipped")
    return done["result"]

  inputs = resolve(config, name, workdir)
  about = {
    "identity": identity,
    "inputs": {role: export.digest for role, export in inputs.items()},
  }
  begun = hosts.decided(lambda: _begun(folder, name, about))
  stage = _make(config, name, folder, mesh, inputs)
  stage.check()
  for note in stage.notes():
    clock.say(f"{name}: {note}")
  if hosts.first():
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / ABOUT, about | (_record(config, command) if not begun else _kept(begun)))
  result = _run(stage, folder, about, clock, yes)
  if hosts.first():
    _write(folder / DONE, about | {"result": result})
  return result


def _complete(config, name, workdir, identity) -> dict[str, Any]:
  """What a finished stage left about itself; empty where it has not finished."""
  done = _read(workdir / name / DONE)
  if done:
    _refuse_changed(workdir / name, name, done, identity)
    _refuse_new_inputs(workdir / name, name, done, config, workdir)
  return done


def _begun(folder: pathlib.Path, name: str, about: dict[str, Any]) -> dict[str, Any]:
  """What a stage with a checkpoint left about itself; empty where it has none.

  Before its first checkpoint a stage has nothing to lose: its config may still be corrected.
  """
  begun = _read(folder / ABOUT) if any(folder.glob(f"{checkpoints.FOLDER}/[0-9]*")) else {}
  if begun:
    _refuse_changed(folder, name, begun, about["identity"])
    _refuse_other_digests(folder, name, begun["inputs"], about["inputs"])
  return begun


def _make(config, name, folder, mesh, inputs) -> Stage:
  kind = stage_class(config[name].kind, f"config.{name}.kind")
  return kind(Setting(name, config, folder, inputs, mesh))


def _run(stage: Stage, folder: pathlib.Path, about: dict, clock: Clock, yes: bool) -> dict:
  begun, steps = clock.seconds_since_start(), 0
  if stage.trains:
    trained = loop.train(stage, meta=about, clock=clock, yes=yes)
    exports.write(folder / "export", *stage.export(trained.params), files=stage.files())
    steps, metrics = stage.steps, trained.metrics
  else:
    metrics = stage.run(clock.say)
  return {"steps": steps, "seconds": clock.seconds_since_start() - begun, "metrics": metrics}


def _evaluate_again(config, name, workdir, mesh, clock) -> dict[str, Any]:
  folder = workdir / name
  done = hosts.decided(lambda: _read(folder / DONE))
  if not done:
    raise UserError(f"--eval: stage {name!r} has not finished in {workdir}; train it first.")
  identity = configs.identity(config, name)
  trained = done["identity"][name]
  identity[name] |= {key: trained[key] for key in MEASURES if key in trained}
  _refuse_changed(folder, name, done, identity)
  if not stage_class(config[name].kind, f"config.{name}.kind").trains:
    return done["result"]
  stage = _make(config, name, folder, mesh, resolve(config, name, workdir))
  params = hosts.put(exports.read(folder / "export").params, sharding.replicated(mesh))
  frozen = hosts.put(stage.frozen, sharding.shardings(stage.frozen, mesh))
  begun = clock.seconds_since_start()
  metrics: dict[str, float] = {}
  if hosts.first():
    (folder / "eval").mkdir(exist_ok=True)
  for evaluator in stage.evaluators():
    clock.say(f"{name}: evaluating {evaluator.name}")
    metrics |= Evaluation(evaluator, mesh).run(params, frozen, folder / "eval")
  seconds = clock.seconds_since_start() - begun
  return {"steps": done["result"]["steps"], "seconds": seconds, "metrics": metrics}


def _refuse_another_config(config: ml_collections.ConfigDict) -> None:
  mine = configs.plain(config.to_dict())
  changed = configs.differences(hosts.decided(lambda: mine), mine)
  if changed:
    raise UserError(
      f"process {jax.process_index()} was started with another config than the first "
      f"({'; '.join(changed[:3])}); give the same command to all."
    )


def _refuse_changed(folder: pathlib.Path, name: str, made: dict, identity: dict) -> None:
  changed = configs.differences(made["identity"], identity)
  if changed:
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise UserError(
      f"{folder} was made with another config ({'; '.join(changed[:3])}{more}); "
      f"choose another --workdir, or --redo={name}."
    )


def _refuse_new_inputs(folder, name, done, config, workdir) -> None:
  digests = {}
  for role, value in config[name].get("inputs", {}).items():
    export = workdir / value / "export" / exports.FILE if value else None
    if export and export.is_file():
      digests[role] = json.loads(export.read_text())["digest"]
  _refuse_other_digests(folder, name, {r: done["inputs"][r] for r in digests}, digests)


def _refuse_other_digests(folder, name, made: dict, now: dict) -> None:
  for role, digest in now.items():
    if made.get(role) != digest:
      raise UserError(
        f"{folder} was made with another {role} (digest {made.get(role)}, now {digest}); "
        f"make it anew with --redo={name}, or choose another --workdir."
      )


def _set_aside(folder: pathlib.Path, clock: Clock) -> None:
  if not folder.exists():
    return
  number = 1
  while (old := folder.with_name(f"{folder.name}.old-{number}")).exists():
    number += 1
  shutil.move(folder, old)
  clock.say(f"{folder.name}: what was made before is kept in {old}")


def _record(config: ml_collections.ConfigDict, command: list[str]) -> dict[str, Any]:
  return {
    "config": configs.plain(config.to_dict()),
    "command": command,
    "versions": {"python": platform.python_version()} | dict(_versions()),
    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def _versions() -> Iterator[tuple[str, str]]:
  for package in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      yield package, importlib.metadata.version(package)


def _kept(begun: dict[str, Any]) -> dict[str, Any]:
  return {key: begun[key] for key in ("config", "command", "versions", "started")}


def _devices(mesh: jax.sharding.Mesh) -> str:
  processes = jax.process_count()
  several = f" of {processes} processes" if processes > 1 else ""
  return f"{mesh.size} {mesh.devices.flat[0].platform} device(s){several}"


def _cache_compiled_programs() -> None:
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vfe" / "xla"
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(cache))


def _read(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: pathlib.Path, value: dict[str, Any]) -> None:
  beside = path.with_suffix(".partial")
  beside.write_text(json.dumps(value, indent=2) + "\n")
  beside.rename(path)
