"""Checkpoints of a stage's state: written beside the training, restored onto any mesh.

Orbax writes a step into a folder with a temporary name and renames it when all of it is there, so
that a run killed while saving finds the checkpoint before it. Nothing that is complete is ever
written over. Every process writes the part that lies on its devices.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vfe.errors import UserError
from vfe.learn import hosts
from vfe.learn.paths import named_leaves
from vfe.learn.trees import tree_handler

FOLDER = "checkpoints"


class Checkpoints:
  """The checkpoints of one stage, in `workdir/checkpoints/<step>/`.

  Every process makes the same calls. Use it as a context, or call `close`: what is being written
  is waited for.

  Args:
    workdir: the stage's folder; local, or remote (`gs://`) where its file system is installed.
    keep: complete checkpoints that are kept, the newest ones.
    meta: plain JSON that is kept beside every state: what it was made from.
  """

  def __init__(self, workdir: Any, *, keep: int = 2, meta: Mapping[str, Any] | None = None):
    self._workdir = epath.Path(workdir)
    self._meta = dict(meta or {})
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True,
    )
    self._manager = ocp.CheckpointManager(
      (self._workdir / FOLDER).absolute(),
      item_handlers={"state": tree_handler(), "meta": ocp.JsonCheckpointHandler()},
      options=options,
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def steps(self) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def latest_step(self) -> int | None:
    """The newest of them."""
    return max(self.steps(), default=None)

  def save(self, step: int, state: Any) -> bool:
    """Starts saving; false where the step is saved already.

    The state may be donated to the next step at once: what is written is the state as it is now.
    Waits for the save before it, if that is still going on, and raises what went wrong in it.

    Args:
      step: updates done.
      state: a tree of arrays; no typed keys.
    """
    if step in self._manager.all_steps():
      return False
    record = {"meta": self._meta, "leaves": _described(state)}
    return self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(record)),
    )

  def restore(self, shapes: Any, shardings: Any) -> Any:
    """The newest state, laid out as asked; None where there is none yet.

    Args:
      shapes: the state's shapes (`jax.eval_shape` of what makes it).
      shardings: a sharding for each leaf, of any mesh.

    Raises:
      UserError: the checkpoint cannot be read, or its leaves are not those of `shapes`.
    """
    step = hosts.decided(self.latest_step)
    if step is None:
      return None
    record = self._read(step, meta=ocp.args.JsonRestore()).meta
    self._check(record["leaves"], _described(shapes))
    target = jax.tree.map(
      lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
      shapes,
      shardings,
    )
    laid = ocp.checkpoint_utils.construct_restore_args(target)
    return self._read(step, state=ocp.args.PyTreeRestore(target, restore_args=laid)).state

  def wait(self) -> None:
    """Until what is being saved is complete; raises what went wrong in it."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then ends the threads."""
    self._manager.close()

  def _read(self, step: int, **items: Any) -> Any:
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file.
      earlier = [other for other in self.steps() if other < step]
      remedy = f"to go on from step {earlier[-1]}" if earlier else "to start from the beginning"
      reason = " ".join(str(error).split())[:200]
      raise UserError(
        f"{self._workdir / FOLDER / str(step)} cannot be read ({reason}); move it away {remedy}."
      ) from error

  def _check(self, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    # Parameters first: the optimiser's state differs because they do.
    for name in sorted([*wanted, *saved], key=lambda name: "/params/" not in name):
      there, here = saved.get(name), wanted.get(name)
      if there != here:
        raise UserError(
          f"{self._workdir} holds a checkpoint of another architecture: {name} is "
          f"{there or 'not in it'}, the config makes it {here or 'not exist'}; "
          f"choose another --workdir, or --redo={self._workdir.name}."
        )


def _described(tree: Any) -> dict[str, str]:
  """`float32[4,64,256]` by leaf name."""
  return {
    name: f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
    for name, leaf in named_leaves(tree).items()
  }
