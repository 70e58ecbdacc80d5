"""What a training step takes, by the compiler, on devices that need not be there; what fits."""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from vfe import config as configs
from vfe.errors import UserError
from vfe.learn import sharding
from vfe.models.vivit import SIZES
from vfe.stages.planned import planned
from vfe.stages.stage import Stage
from vfe.train import devices as known_devices
from vfe.train import hlo
from vfe.train.program import Program, program

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
FINENESS = 16  # a search ends when the answer is known to one part in so many
MOST_PROBES = 24
PLANNED_SIZES = tuple(size for size in SIZES if size not in ("test", "demo"))


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device. temporaries are activations, gradients and workspace; rest is the padding
  of what a step is given and what it returns besides the state."""

  parameters: int
  optimizer: int
  averages: int
  frozen: int
  batch: int
  temporaries: int
  program: int
  rest: int

  @property
  def peak(self) -> int:
    """All of it: the state's new values lie where the old ones were."""
    return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Plan:
  """A step of a stage on some devices. memory and traffic are None where it did not compile for
  want of memory; needs are the bytes of one device then, and the peak else. traffic is None too
  where the compiler's program cannot be read. capacity is None where it is not known, and then fits
  is True."""

  stage: str
  device: str
  devices: int
  mesh: dict[str, int]
  batch: int
  frames: int
  pixels: int
  size: str
  tokens: int
  model_flops: int
  seconds: float  # of compiling
  memory: Memory | None
  traffic: hlo.Traffic | None
  needs: int
  capacity: int | None

  @property
  def fits(self) -> bool:
    """Whether one device holds it."""
    return self.memory is not None and (self.capacity is None or self.needs <= self.capacity)

  def as_json(self) -> dict[str, Any]:
    """Plain JSON of everything."""
    peak = self.memory.peak if self.memory else None
    return dataclasses.asdict(self) | {"fits": self.fits, "peak": peak}


def plan(config: ml_collections.ConfigDict, name: str, devices: Sequence[jax.Device]) -> Plan:
  """Compiles the step of a stage for the devices; nothing is run and no array is made.

  Raises:
    UserError: what a run would raise for this config.
  """
  mesh = sharding.make_mesh(config.mesh, devices)
  stage = planned(config, name, mesh)
  stage.check()
  made = program(stage)
  begun = time.monotonic()
  try:
    with jax.set_mesh(mesh):
      compiled = made.compile()
    memory, traffic = memory_of(made, compiled.memory_analysis()), traffic_of(compiled)
    needs = memory.peak
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    memory, traffic, needs = None, None, needed(str(error))
  data = stage.config.data
  return Plan(
    stage=name,
    device=devices[0].device_kind,
    devices=len(devices),
    mesh=dict(mesh.shape),
    batch=stage.config.batch,
    frames=next(iter(stage.inputs().values())).spec.frames,
    pixels=data.size,
    size=config.model.size,
    tokens=stage.tokens(),
    model_flops=stage.model_flops(),
    seconds=time.monotonic() - begun,
    memory=memory,
    traffic=traffic,
    needs=needs,
    capacity=known_devices.capacity(devices[0]),
  )


def traffic_of(compiled: Any) -> hlo.Traffic | None:
  """The program's collectives; None where this jaxlib cannot read what its compiler wrote (seen of
  a large program for 64 chips of v6e, jaxlib 0.10.2 and libtpu 0.0.52)."""
  try:
    return hlo.traffic(compiled.as_text())
  except jax.errors.JaxRuntimeError:
    return None


def needed(message: str) -> int:
  """Bytes that a device would need, from the compiler's refusal; 0 where it names none."""
  found = re.search(r"\(([\d.]+)([KMGT]?)i?B?\) exceeds", message)
  found = found or re.search(r"Used ([\d.]+)([KMGT]?) of", message)
  return int(float(found[1]) * UNITS[found[2]]) if found else 0


def memory_of(made: Program, analysis: Any) -> Memory:
  """The compiler's `memory_analysis()` of a step, by what it is for."""
  groups = made.state.groups.values()
  parts = {
    "parameters": on_one_device([group.params for group in groups]),
    "optimizer": on_one_device([group.opt_state for group in groups]),
    "averages": on_one_device(made.state.ema),
    "frozen": on_one_device(made.frozen),
    "batch": on_one_device(made.batch),
  }
  arguments = analysis.argument_size_in_bytes
  returned = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  return Memory(
    **parts,
    temporaries=analysis.temp_size_in_bytes,
    program=analysis.generated_code_size_in_bytes,
    rest=arguments - sum(parts.values()) + returned,
  )


def on_one_device(tree: Any) -> int:
  """Bytes of a tree of sharded shapes on one of its devices."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
  )


# What fits.


def fit(
  config: ml_collections.ConfigDict,
  name: str,
  devices: Sequence[jax.Device],
  what: str,
  say: Callable[[str], None],
) -> Plan:
  """The plan of the largest `what` of `FITS` that fits, the rest as configured.

  Batch and frames are found by doubling and bisection, led by a straight line through what was
  found, to one part in 16; say is told of every step. If not even the least fits, its plan.

  Raises:
    UserError: devices of unknown memory, or a stage that the question makes no sense for.
  """
  if known_devices.capacity(devices[0]) is None:
    raise UserError(
      f"--fit={what}: how much memory {devices[0].device_kind} has is not known; name a topology."
    )
  mesh = sharding.make_mesh(config.mesh, devices)
  values = configs.choose(FITS, what, "--fit")(planned(config, name, mesh))

  def probe(index: int) -> Plan:
    value = values[index]
    found = plan(changed(config, name, {what: value}), name, devices)
    verdict = "fits" if found.fits else "does not fit"
    say(f"{name}: {what} {value} {verdict}, {found.needs / 2**30:.2f} GiB ({found.seconds:.0f} s)")
    return found

  return largest(probe, len(values))


def largest(probe: Callable[[int], Plan], count: int) -> Plan:
  """The plan of the largest index below `count` that fits; of 0 if none does."""
  low, best, high = 0, probe(0), count
  if not best.fits:
    return best
  seen, guess = [(0, best.needs)], 1
  for _ in range(MOST_PROBES):
    if high - low <= max(1, low // FINENESS):
      break
    found = probe(guess)
    if found.fits:
      low, best = guess, found
      seen.append((guess, found.needs))
    else:
      high = guess
    guess = _next(seen[-2:], low, high, best.capacity)
  return best


def _next(seen: list[tuple[int, int]], low: int, high: int, capacity: int) -> int:
  """Where the line through the last two that fit meets the capacity, at least a step from both
  ends; without a line, twice or the middle."""
  step = max(1, low // FINENESS)
  if len(seen) == 2 and seen[1][1] > seen[0][1]:
    (x0, y0), (x1, y1) = seen
    met = x1 + int((capacity - y1) * (x1 - x0) / (y1 - y0))
    met = min(met, 16 * low)  # a short line does not reach far
  else:
    met = 2 * low
  if not low < met < high:
    met = low + step if met <= low else (low + high) // 2
  return max(low + 1, min(met, high - 1))


def changed(
  config: ml_collections.ConfigDict, name: str, values: dict[str, Any]
) -> ml_collections.ConfigDict:
  """A copy of the recipe with one stage's batch or frames, or the model's size, changed."""
  copy = config.copy_and_resolve_references()
  for what, value in values.items():
    if what == "batch":
      copy[name].batch = value
    elif what == "frames":
      own = copy[name].get("data", {})
      (own if "frames" in own else copy.data).frames = value
    else:
      copy.model.size = value
  return copy


def _batches(stage: Stage) -> range:
  mesh = stage.setting.mesh.shape
  rows = mesh["data"] * mesh["fsdp"] * stage.config.accumulate
  return range(rows, rows << 20, rows)


def _frames(stage: Stage) -> range:
  """Multiples of a token's frames, and of the window of the tokenizer that the targets are of."""
  if not hasattr(stage, "encoder"):
    raise UserError(f"--fit=frames: stage {stage.name} takes windows of one length; try batch.")
  tokenizer, stored = getattr(stage, "tokenizer", None), getattr(stage, "stored", None)
  window = tokenizer.window if tokenizer else stored.model["window"] if stored else 1
  unit = math.lcm(stage.encoder.tubelet[0], window)
  return range(unit, unit << 20, unit)


def _sizes(stage: Stage) -> tuple[str, ...]:
  if not hasattr(stage, "encoder"):
    raise UserError(f"--fit=size: stage {stage.name} has no part of config.model; try batch.")
  return PLANNED_SIZES


# What --fit takes -> the values that come into question for a stage, from the least.
FITS = {"batch": _batches, "frames": _frames, "size": _sizes}
