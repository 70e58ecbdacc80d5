"""Time, memory and FLOP utilisation of the training step of every stage.

    python benchmarks/step.py                                    # what suits the device at hand
    python benchmarks/step.py --stage pretrain_stored --size b l --frames 16 128 --batch 32
    python benchmarks/step.py --compile_only --frames 1024       # memory alone, nothing is run

The step is the run's own (`vfe.train.program`), on the devices at hand, on a random batch made
there; nothing is read or decoded. --config.key=value changes the recipe beside the flags.

    clips/s     of all devices together
    tokens/s    tokens that the encoder sees and that the decoder is asked for
    TFLOP       model FLOPs of a step (`vfe.models.flops`): what the model asks for, forward and
                backward, frozen parts forward; nothing that is computed again counts
    MFU         TFLOP a second over the devices' peak (bfloat16, `vfe.train.devices`); none on a CPU
    GiB         of one device, by the compiler: state, batch, temporaries, program

Without --batch, the largest power of two up to 64 a device that fits (2 on a CPU). Prints a table
and, as its last line, the same as JSON.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from vfe.learn import sharding
from vfe.stages.planned import planned
from vfe.stages.stage import Stage
from vfe.tools import cli, recipes
from vfe.train import devices as known_devices
from vfe.train import planning
from vfe.train.program import Program, program

RECIPE = "configs/lvmae_128.py"
CLASSES = {"label": 48}  # Diving48's

# Name -> the stage that it is, and the recipe's keys that make it so.
WITHOUT_TOKENIZER = {"pretrain.inputs.tokenizer": ""}
CENTRE = {"data.sampling.align": 16, "data.augment.kind": "center"}  # what stored targets are of
STAGES = {
  "tokenizer": ("tokenizer", {}),
  "pretrain": ("pretrain", {}),
  "pretrain_stored": (
    "pretrain", WITHOUT_TOKENIZER | CENTRE | {"pretrain.inputs.targets": "(stored)"}
  ),
  "pretrain_pixels": (
    "pretrain",
    WITHOUT_TOKENIZER | {"pretrain.target": "pixels", "pretrain.importance": "difference"},
  ),
  "finetune": ("finetune", {}),
}  # fmt: skip
WARM_UP = 2
REPEATS = 3
SECONDS = 2.0  # of a repeat, at the least
MOST = 64  # clips a device


def recipe(name: str, size: str, frames: int, changes: Sequence[str]) -> ml_collections.ConfigDict:
  """The recipe with which the stage `name` of `STAGES` is timed."""
  config = recipes.read([f"--config={RECIPE}:size={size},frames={frames}", *changes])
  config.update_from_flattened_dict(STAGES[name][1])
  return config


def measured(
  config: ml_collections.ConfigDict, name: str, batch: int, devices: Sequence[jax.Device], run: bool
) -> dict[str, Any]:
  """Compiles a step of so many clips and, with `run`, times it."""
  own = STAGES[name][0]
  config = planning.changed(config, own, {"batch": batch})
  mesh = sharding.make_mesh(config.mesh, devices)
  stage = planned(config, own, mesh, classes=CLASSES)
  stage.check()
  made = program(stage)
  begun = time.perf_counter()
  with jax.set_mesh(mesh):
    compiled = made.compile()
    compiling = time.perf_counter() - begun
    seconds = timed(stage, made, compiled) if run else None
  known = known_devices.known(devices[0])
  flops, tokens = stage.model_flops(), stage.tokens()
  if hasattr(stage, "asked"):
    tokens += stage.asked()
  rate = 1 / seconds if seconds else None
  return {
    "stage": name,
    "size": config.model.size if hasattr(stage, "encoder") else None,
    "frames": next(iter(stage.inputs().values())).spec.frames,
    "batch": batch,
    "devices": len(devices),
    "dtype": stage.dtype,
    "seconds": seconds,
    "clips_per_s": rate and batch * rate,
    "tokens_per_s": rate and tokens * batch * rate,
    "model_flops": flops,
    "mfu": rate and flops * rate / (known.peak * len(devices)) if known else None,
    "bytes": planning.memory_of(made, compiled.memory_analysis()).peak,
    "compile_seconds": compiling,
  }


def timed(stage: Stage, made: Program, compiled: Any) -> float:
  """Seconds a step: the median of some runs of steps that wait for each other only.

  On a CPU the host waits for every step: several host-platform devices share a few threads, and
  the collectives of two steps at once can keep each other from starting.
  """
  wait = jax.block_until_ready if stage.setting.platform == "cpu" else lambda metrics: metrics
  state = jax.jit(stage.init_state, out_shardings=made.layout)(made.rng)
  frozen, batch = filled(made.frozen), filled(made.batch)
  rows = batch["clip"]["row"]
  batch["clip"]["row"] = jax.device_put(jnp.arange(len(rows), dtype=rows.dtype), rows.sharding)
  for _ in range(WARM_UP):
    state, metrics = compiled(state, frozen, batch)
    jax.block_until_ready(metrics)
  begun = time.perf_counter()
  state, metrics = compiled(state, frozen, batch)
  jax.block_until_ready(metrics)
  steps = max(1, round(SECONDS / (time.perf_counter() - begun)))
  found = []
  for _ in range(REPEATS):
    begun = time.perf_counter()
    for _ in range(steps):
      state, metrics = compiled(state, frozen, batch)
      wait(metrics)
    jax.block_until_ready(metrics)
    found.append((time.perf_counter() - begun) / steps)
  return sorted(found)[REPEATS // 2]


def filled(shapes: Any) -> Any:
  """Arrays of these shapes and shardings: scattered bytes and floats, other integers 0, True.

  The numbers are a hash of their places: as good as random here, and compiled in a moment.
  """

  def one(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    places = jnp.arange(math.prod(leaf.shape), dtype=jnp.uint32).reshape(leaf.shape)
    hashed = places * jnp.uint32(2654435761)
    if leaf.dtype == jnp.uint8:
      drawn = (hashed >> 24).astype(jnp.uint8)
      return drawn if leaf.ndim == 5 else drawn % 8  # codes of stored targets have eight levels
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      return (0.05 * (hashed.astype(jnp.float32) / 2.0**32 - 0.5)).astype(leaf.dtype)
    return jnp.full(leaf.shape, leaf.dtype == bool, leaf.dtype)

  where = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  return jax.jit(lambda: jax.tree.map(one, shapes), out_shardings=where)()


def largest(config: Any, name: str, devices: Sequence[jax.Device], run: bool) -> dict[str, Any]:
  """`measured` with the largest power of two that the devices hold."""
  a_device = 2 if devices[0].platform == "cpu" else MOST
  while True:
    try:
      return measured(config, name, a_device * len(devices), devices, run)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error) or a_device == 1:
        raise
      a_device //= 2


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  number = lambda key, form: "-" if row[key] is None else format(row[key], form)
  cells = (
    f"{row['stage']:<15}", f"{row['size'] or '-':>4}", f"{row['frames']:>6}", f"{row['batch']:>5}",
    f"{number('seconds', '.4g'):>8}", f"{number('clips_per_s', '.4g'):>8}",
    f"{number('tokens_per_s', ',.0f'):>11}", f"{row['model_flops'] / 1e12:>8.3f}",
    f"{number('mfu', '.1%'):>6}", f"{row['bytes'] / 2**30:>7.2f}",
  )  # fmt: skip
  return " | ".join(cells)


HEAD = (
  f"{'stage':<15} | size | frames | batch |   s/step |  clips/s |    tokens/s |    TFLOP |    MFU |"
  "     GiB"
)


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags, changes = _flags(argv)
  devices = jax.devices()[: flags.devices]
  rows = []
  print(HEAD)
  done = set()
  for name in flags.stage:
    for size in flags.size:
      for frames in flags.frames:
        a_window = name == "tokenizer"  # it has one length and no size of config.model
        if a_window and name in done:
          continue
        done.add(name)
        config = recipe(name, size, frames, changes)
        run = not flags.compile_only
        if flags.batch:
          row = measured(config, name, flags.batch, devices, run)
        else:
          row = largest(config, name, devices, run)
        rows.append(row)
        print(line(row), flush=True)
  about = {
    "device": devices[0].device_kind,
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "jax": jax.__version__,
    "changes": changes,
  }
  print(json.dumps(about | {"rows": rows}))


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  small = jax.default_backend() == "cpu"
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  several = dict(nargs="+")
  stages = ["pretrain_stored", "finetune"] if small else list(STAGES)
  sizes = ["s"] if small else ["s", "b", "l"]
  add("--stage", **several, default=stages, choices=list(STAGES))
  add("--size", **several, default=sizes, choices=planning.PLANNED_SIZES)
  add("--frames", **several, type=int, default=[16] if small else [16, 64, 128, 256])
  add("--batch", type=int, help="clips of all devices together")
  add("--devices", type=int, help="use so many of those at hand")
  add("--compile_only", action="store_true", help="memory alone, nothing is run")
  return recipes.beside(parser, argv)


if __name__ == "__main__":
  cli.run(main)
