"""Devices to plan and to time for: those at hand, or TPUs that only their compiler knows.

Peak FLOP/s are of bfloat16 products without sparsity, the makers' figures: Google's at
docs.cloud.google.com/tpu/docs (pages v4, v5e, v5p, v6e, tpu7x), NVIDIA's in the data sheets of
A100, H100 and H200. The memory is what the TPU's compiler says that a program may fill (libtpu of
jax 0.10.2); the chips have a little more: 32, 16, 95, 32 and twice 96 GiB. A TPU7x chip is two
devices, and the figures are of one.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Sequence

import jax

from vfe.config import nearest
from vfe.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
  """peak: FLOP/s; memory: GiB that a program may fill, where the device does not say it itself."""

  peak: float
  memory: float | None = None


# By how JAX's `device_kind` begins; the first that fits, so longer ones stand first.
DEVICES = {
  "TPU v4": Device(275e12, 30.75),
  "TPU v5 lite": Device(197e12, 15.75),
  "TPU v5": Device(459e12, 95.73),
  "TPU v6 lite": Device(918e12, 31.24),
  "TPU7x": Device(2307e12 / 2, 94.74),
  "NVIDIA H200": Device(989e12),
  "NVIDIA H100 PCIe": Device(756e12),
  "NVIDIA H100": Device(989e12),
  "NVIDIA A100": Device(312e12),
}

# Generation -> (dimensions of its slices, an example, what the compiler is told besides).
# v4 and v5p run their two cores as one device ("megacore"), as on Cloud TPU VMs.
GENERATIONS = {
  "v4": (3, "v4:2x2x4", {"chip_config_name": "megacore"}),
  "v5e": (2, "v5e:4x4", {}),
  "v5p": (3, "v5p:2x2x4", {"chip_config_name": "megacore"}),
  "v6e": (2, "v6e:4x4", {}),
  "tpu7x": (3, "tpu7x:2x2x4", {}),
}
LOCAL = "local"


def known(device: jax.Device) -> Device | None:
  """The entry of a device's kind, None for a CPU or a kind that is not in the table."""
  found = (entry for kind, entry in DEVICES.items() if device.device_kind.startswith(kind))
  return next(found, None)


def capacity(device: jax.Device) -> int | None:
  """Bytes that a program may fill, None where that is not known (a CPU)."""
  stats = device.memory_stats() if device in jax.devices() else None
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"]
  entry = known(device)
  return int(entry.memory * GIB) if entry and entry.memory else None


def named(name: str) -> Sequence[jax.Device]:
  """The devices of a topology: `local`, or a TPU slice such as `v5e:4x4`.

  A slice needs the `libtpu` wheel and JAX_PLATFORMS=cpu, so ask for it in a process of its own.

  Raises:
    UserError: no such topology, or nothing here that could compile for it.
  """
  if name == LOCAL:
    return jax.devices()
  generation, _, sides = name.partition(":")
  examples = ", ".join(example for _, example, _ in GENERATIONS.values())
  names = f"use {LOCAL}, or chips by generation and sides: {examples}"
  if generation not in GENERATIONS:
    raise UserError(f"--topology={name} is unknown ({nearest(generation, GENERATIONS)}); {names}.")
  dimensions, example, options = GENERATIONS[generation]
  if not re.fullmatch("x".join([r"[1-9]\d*"] * dimensions), sides):
    raise UserError(f"--topology={name}: {generation} has {dimensions} sides, as in {example}.")
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      f"--topology={name} needs the TPU compiler, the libtpu wheel for x86 Linux: "
      f"pip install -e '.[plan]' (without it: --topology={LOCAL})."
    )
  return _slice(name, sides, options)


def _slice(name: str, sides: str, options: dict) -> Sequence[jax.Device]:
  from jax.experimental import topologies

  one = all(side == "1" for side in sides.split("x"))
  if one:
    options = {**options, "chips_per_host_bounds": (1, 1, 1)}  # hosts have four chips otherwise
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
  except (RuntimeError, ValueError) as error:
    first = str(error).splitlines()[0]
    raise UserError(f"--topology={name}: the TPU compiler does not know it ({first}).") from error
