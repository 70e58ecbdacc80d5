"""Several processes that make one run: how they find each other, agree, and end.

Every process runs the same program on its own devices. The first one decides what depends on
files, so that all do the same, and writes what only one may write. A run of one process needs
nothing of this: each function is then what it is without the others.
"""

import atexit
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the only way to the store that the processes share
from jax.experimental import multihost_utils

from vfe.errors import UserError

OURS = ("VFE_COORDINATOR", "VFE_PROCESSES", "VFE_PROCESS")
METHOD = "VFE_CLUSTER"

# Where a launcher's own variables say that there are several processes, JAX finds the rest. What is
# listed must be there; the number says how many there are.
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")

FOREVER = 7 * 24 * 3600 * 1000  # ms: of a process that has died, the heartbeat tells
TOGETHER = 3000  # ms in which processes that fail for the same reason come to their end

T = TypeVar("T")
_turns = itertools.count()


@contextlib.contextmanager
def joined(*, heartbeat_timeout_seconds: int) -> Iterator[None]:
  """Connects the processes that a launcher has started, and lets none wait for one that failed.

  Nothing may have touched a device before. Inside, an error of one process alone ends it at once;
  the others end when they miss its heartbeat, or before that where it breaks a computation.

  Args:
    heartbeat_timeout_seconds: silence after which a process counts as dead, for all of them.

  Raises:
    UserError: the launcher's variables do not fit together, or the processes did not connect.
  """
  found = launched(os.environ)
  if found is not None and not jax.distributed.is_initialized():
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
      jax.distributed.initialize(**found, heartbeat_timeout_seconds=heartbeat_timeout_seconds)
    except (RuntimeError, ValueError, KeyError) as error:
      reason = " ".join(str(error).split())[:200]
      raise UserError(
        f"the processes of this run did not connect ({reason}); {_told(os.environ)}."
      ) from error
  if jax.process_count() > 1 and client() is None:
    raise UserError(
      f"{jax.process_count()} processes share these devices and know nothing of each other; start "
      f"them with a script of launch/, or set {METHOD}=gcetpu on every host of a TPU slice."
    )
  try:
    yield
  except BaseException as error:
    if client() is not None:
      atexit.register(_end, _exit_code(error))  # runs before JAX's, which waits for all
    raise


def launched(environment: Mapping[str, str]) -> dict[str, Any] | None:
  """What `jax.distributed.initialize` is to be given, None for a process on its own.

  Looked for in this order: VFE_COORDINATOR (host:port of the first process), VFE_PROCESSES and
  VFE_PROCESS, which our launchers set; VFE_CLUSTER, the name of one of JAX's ways to find out
  (`gcetpu`, `gketpu`, `k8s`, `slurm`, `ompi`, `mpi4py`); the variables of SLURM, of Open MPI, and
  of TPU pods on Kubernetes.

  Raises:
    UserError: a variable of ours is missing or not in its range.
  """
  if any(name in environment for name in OURS):
    return _ours(environment)
  if environment.get(METHOD):
    return {"cluster_detection_method": environment[METHOD]}
  for variables in (SLURM, OPEN_MPI):
    if all(name in environment for name in variables) and int(environment[variables[-1]]) > 1:
      return {}
  hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
  slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
  return {} if len(hosts.split(",")) * slices > 1 else None


def first() -> bool:
  """Whether this is the process that writes logs and results."""
  return jax.process_index() == 0


def client() -> Any:
  """The store of the processes of this run (keys, barriers); None where there is one process."""
  return distributed.global_state.client


def decided(choose: Callable[[], T]) -> T:
  """What `choose` returns on the first process, or the UserError that it raises, on all of them.

  The others do not call it, and wait until it has returned: it may read and write files. What it
  returns is plain JSON. Every process makes the same calls in the same order.
  """
  store = client()
  if store is None:
    return choose()
  key = f"vfe/decided/{next(_turns)}"
  if first():
    try:
      told = {"value": choose()}
    except UserError as error:
      store.key_value_set(key, json.dumps({"error": str(error)}))
      raise
    store.key_value_set(key, json.dumps(told))
  told = json.loads(store.blocking_key_value_get(key, FOREVER))
  if "error" in told:
    raise UserError(told["error"])
  return told["value"]


def summed(numbers: Mapping[str, float | int]) -> dict[str, float | int]:
  """The sums over all processes, which give the same names. Waits for all of them.

  It is a computation on the devices: on the CPU no other that needs several processes may be under
  way, as nothing would keep the two in the same order everywhere.
  """
  if client() is None:
    return dict(numbers)
  mine = np.asarray(list(numbers.values()), np.float32)
  total = multihost_utils.process_allgather(mine).sum(axis=0)
  return dict(zip(numbers, total.tolist(), strict=True))


def compiled(function: Any, *given: Any) -> Any:
  """A jitted function compiled for its arguments, once every process has compiled it.

  Without that, a process that found the program in its cache would wait for the others inside of
  the computation, where the patience is that of the transport: 30 seconds on the CPU.
  """
  made = function.lower(*given).compile()
  if client() is not None:
    client().wait_at_barrier(f"vfe/compiled/{next(_turns)}", FOREVER)
  return made


def put(tree: Any, layout: Any) -> Any:
  """Global arrays of values that every process holds whole. Nothing is sent between processes.

  layout: a sharding for each leaf, or one for all.
  """
  if isinstance(layout, jax.sharding.Sharding):
    where = layout
    layout = jax.tree.map(lambda _: where, tree)

  def one(value: Any, where: jax.sharding.Sharding) -> jax.Array:
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, where, lambda index: value[index])

  return jax.tree.map(one, tree, layout)


def fetch(leaf: Any) -> np.ndarray:
  """The whole of an array on every process, which all call: also of one that lies over several."""
  if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
    return multihost_utils.process_allgather(leaf, tiled=True)
  return np.asarray(leaf)


def speaking(say: Callable[[str], None]) -> Callable[[str], None]:
  """`say` that is heard from every process; by itself only the first one speaks."""
  if client() is None or first():
    return say
  return lambda text: print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)


def _ours(environment: Mapping[str, str]) -> dict[str, Any] | None:
  missing = [name for name in OURS if not environment.get(name)]
  if missing:
    raise UserError(
      f"{', '.join(missing)} not set, but {OURS[0]}, {OURS[1]} and {OURS[2]} go together: the "
      "first process's host:port, the number of processes, and this one's number from 0."
    )
  address = environment[OURS[0]]
  if not address.rpartition(":")[2].isdigit():
    raise UserError(f"{OURS[0]}={address} is not the first process's host:port.")
  numbers = [environment[name] for name in OURS[1:]]
  if not all(number.isdigit() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
    raise UserError(
      f"{OURS[1]}={numbers[0]} and {OURS[2]}={numbers[1]}: processes are numbered from 0 to one "
      "less than there are."
    )
  count, number = map(int, numbers)
  if count == 1:
    return None
  return {"coordinator_address": address, "num_processes": count, "process_id": number}


def _told(environment: Mapping[str, str]) -> str:
  names = (*OURS, METHOD)
  given = [f"{name}={environment[name]}" for name in names if environment.get(name)]
  return f"look at {', '.join(given)}" if given else "look at the launcher's variables"


def _exit_code(error: BaseException) -> int:
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else int(error.code is not None)
  return 2 if isinstance(error, UserError) else 1


def _end(code: int) -> None:
  """Ends a process that has failed: with the others if they have too, else without them.

  JAX would wait for them, for minutes, and then abort with a code that says nothing.
  """
  try:
    client().wait_at_barrier("vfe/end", TOGETHER)
  except Exception:  # of JAX's runtime, by more than one name
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
