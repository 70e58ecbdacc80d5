"""The mesh, and which dimension of which array lies over which of its axes.

Apart from `vfe.nn.attention`, which reads the ambient mesh, this is all there is of sharding: the
models know nothing of it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vfe.config import nearest
from vfe.errors import UserError
from vfe.learn.paths import is_stacked, map_named

AXES = ("data", "fsdp", "tensor", "context")
BATCH_AXES = ("data", "fsdp")

Sizes = Mapping[str, int] | ml_collections.ConfigDict

# A leaf that this names is whole on every device, whatever the default would do.
REPLICATED = "replicated"
IF_IT_DIVIDES = "?"

# (regex over the leaf's name, an axis name or None for each dimension after the layers' one). An
# axis that is followed by ? is left out where it has one device or does not divide the dimension.
Rule = tuple[str, str | Sequence[str | None]]

# The tensor axis: heads and hidden units lie over it, so that a layer's two products need one sum.
# Keys and values that heads share may be too few. Relative positions [R, H] lie with their heads.
# The words of a vocabulary lie over it, too, so that their logits, which are larger than all else,
# are never whole on a device.
TENSOR_RULES: tuple[Rule, ...] = (
  (r"(^|/)attention/query/kernel$", (None, "tensor")),
  (r"(^|/)attention/query/bias$", ("tensor",)),
  (r"(^|/)attention/(key|value)/kernel$", (None, "tensor?")),
  (r"(^|/)attention/(key|value)/bias$", ("tensor?",)),
  (r"(^|/)attention/out/kernel$", ("tensor", None)),
  (r"(^|/)blocks/relative$", (None, "tensor?")),
  (r"(^|/)mlp/(up|gate)/kernel$", (None, "tensor")),
  (r"(^|/)mlp/up/bias$", ("tensor",)),
  (r"(^|/)mlp/down/kernel$", ("tensor", None)),
  (r"(^|/)(word/embedding|head)$", ("tensor?", None)),
)


def make_mesh(sizes: Sizes | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over all devices with the axes data, fsdp, tensor and context.

  Args:
    sizes: devices along each axis, 1 where it is not given; -1 for one axis takes what is left.
      Default: all along `data`.
    devices: those to use, default `jax.devices()`; a planner gives devices that it compiles for.

  Raises:
    UserError: an unknown axis, or sizes whose product is not the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  given = {"data": -1} if sizes is None else dict(sizes.items())
  for axis in given:
    if axis not in AXES:
      raise UserError(f"mesh.{axis} is not an axis of the mesh ({nearest(axis, AXES)}).")
  shape = {axis: given.get(axis, 1) for axis in AXES}
  text = ", ".join(f"{axis}={size}" for axis, size in shape.items())
  fixed = math.prod(size for size in shape.values() if size != -1)
  rest = [axis for axis, size in shape.items() if size == -1]
  if len(rest) > 1 or fixed < 1 or any(size < -1 for size in shape.values()):
    raise UserError(f"mesh {text}: sizes are positive, and -1 for at most one axis.")
  if len(devices) % fixed or (not rest and fixed != len(devices)):
    remedy = "sizes that divide it" if rest else "-1 for one of them"
    raise UserError(f"mesh {text} does not fit {len(devices)} devices; use {remedy}.")
  for axis in rest:
    shape[axis] = len(devices) // fixed
  return jax.make_mesh(
    tuple(shape.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading dimension over data and fsdp; the others are whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Raises UserError where the rows of a step do not divide evenly over the mesh."""
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  if batch % (rows * accumulate):
    parts = f" in {accumulate} accumulated parts" if accumulate > 1 else ""
    raise UserError(
      f"batch={batch} does not divide over {rows} devices (data x fsdp){parts}; "
      f"use a multiple of {rows * accumulate}."
    )


def to_global(batch: Any, sharding: NamedSharding) -> Any:
  """The global arrays of which this process holds the given rows.

  batch: a tree of arrays, leading dimension the rows of this process's devices in ascending
  order (`vfe.data.pipeline.local_rows` says which). Processes that share rows give the same.
  """
  return jax.make_array_from_process_local_data(sharding, batch)


def shardings(shapes: Any, mesh: Mesh, rules: Sequence[Rule] = TENSOR_RULES) -> Any:
  """A NamedSharding for every leaf of a State, or of any tree of arrays.

  A rule gives its dimensions their axes. Of the dimensions that are then free, `fsdp` takes the
  largest that its size divides (the first of equals), unless the rule has placed it already. What
  remains is replicated. Names end in the parameter's path in the optimiser's state and the
  average too, so that these lie where their parameters lie.

  Args:
    shapes: arrays or shapes (`jax.eval_shape` of what makes the state).
    mesh: from `make_mesh`.
    rules: (regex, spec) pairs; spec has an axis name or None for each dimension (for leaves of
      stacked blocks without the layers' dimension, which stays whole: the scan runs over it), or is
      "replicated". "tensor?" is that axis where it can be used. Default: those of the transformer's
      layers, and of words, over `tensor`.

  Raises:
    UserError: two rules match a leaf with different specs, or a spec does not fit its leaf.
  """
  return map_named(
    lambda name, leaf: NamedSharding(mesh, _spec(name, tuple(leaf.shape), mesh, rules)), shapes
  )


def describe(shapes: Any, tree: Any) -> tuple[int, int]:
  """Bytes of all leaves, and bytes on one device under the shardings in `tree`."""
  leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(tree), strict=True))
  size = lambda shape, leaf: math.prod(shape) * np.dtype(leaf.dtype).itemsize
  return (
    sum(size(leaf.shape, leaf) for leaf, _ in leaves),
    sum(size(sharding.shard_shape(leaf.shape), leaf) for leaf, sharding in leaves),
  )


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Sequence[Rule]) -> PartitionSpec:
  rule = _matching(name, rules)
  if rule == REPLICATED:
    return PartitionSpec()
  first = 1 if is_stacked(name) and shape else 0  # the scan's axis is never split
  axes: list[str | None] = [None] * len(shape)
  if rule is not None and shape:
    _check(name, shape[first:], rule, mesh)
    axes[first:] = [
      _usable(axis, size, mesh) for axis, size in zip(rule, shape[first:], strict=True)
    ]
  fsdp = mesh.shape["fsdp"]
  if fsdp > 1 and "fsdp" not in axes:
    free = [
      i for i in range(first, len(shape)) if axes[i] is None and shape[i] and shape[i] % fsdp == 0
    ]
    if free:
      axes[max(free, key=lambda i: (shape[i], -i))] = "fsdp"
  return PartitionSpec(*axes)


def _matching(name: str, rules: Sequence[Rule]) -> str | tuple[str | None, ...] | None:
  found = {
    regex: spec if isinstance(spec, str) else tuple(spec)
    for regex, spec in rules
    if re.search(regex, name)
  }
  if len(set(found.values())) > 1:
    listed = "; ".join(f"{regex!r} -> {spec}" for regex, spec in found.items())
    raise UserError(f"sharding rules disagree on {name}: {listed}. Narrow one of them.")
  return next(iter(found.values()), None)


def _usable(axis: str | None, size: int, mesh: Mesh) -> str | None:
  if axis is None or not axis.endswith(IF_IT_DIVIDES):
    return axis
  axis = axis.removesuffix(IF_IT_DIVIDES)
  return axis if mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None


def _check(name: str, shape: tuple[int, ...], rule: Any, mesh: Mesh) -> None:
  used = [axis.removesuffix(IF_IT_DIVIDES) for axis in rule if axis is not None]
  unknown = [axis for axis in used if axis not in AXES]
  if isinstance(rule, str) or unknown or len(set(used)) < len(used) or len(rule) != len(shape):
    raise UserError(
      f"sharding rule {rule} for {name} {list(shape)} is not {REPLICATED!r} nor, for each of its "
      f"dimensions, None or another one of {', '.join(AXES)}."
    )
  for axis, size in zip(rule, shape, strict=True):
    if axis in AXES and size % mesh.shape[axis]:
      raise UserError(
        f"sharding rule {rule} for {name} {list(shape)}: {size} does not divide over "
        f"{axis}={mesh.shape[axis]}; use a mesh.{axis} that divides it."
      )
