"""Batches on their way from a process's host memory to the mesh."""

from typing import Any

import jax

from vfe.learn import sharding

# What a batch carries for the host only: it would cost a transfer and is never computed on.
HOST_ONLY = ("record", "view", "start", "repeated", "fault", "faulty")


def to_mesh(batch: dict[str, Any], where: jax.sharding.Sharding, keep: tuple[str, ...] = ()) -> Any:
  """The arrays that are computed on, as global arrays over the mesh."""
  batch = {k: v for k, v in batch.items() if k not in HOST_ONLY or k in keep}
  return sharding.to_global(batch, where)
