"""How trees of arrays are written, for checkpoints and exports alike."""

from typing import Any

import jax
import numpy as np

SHARE = 1 << 20  # bytes


def tree_handler() -> Any:
  """Orbax's handler for trees of jax and numpy arrays.

  Of an array that all devices have, each writes a part, unless that is less than a megabyte: every
  part of every array is cut out by a program of its own, which has to be compiled, and small models
  have hundreds of them.
  """
  import orbax.checkpoint as ocp

  registry = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SHARE)),
    (np.ndarray, ocp.type_handlers.NumpyHandler()),
  )
  return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
