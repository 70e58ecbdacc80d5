"""Exports: what a finished stage leaves to others, parameters with the config of their model.

A folder with `export.json` and the parameters as an Orbax tree, so that a large one is restored
straight onto a mesh. Parameters that lie over several processes are written by all of them, each
its own part; no process ever holds more than one whole leaf.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vfe.errors import UserError
from vfe.learn import hosts
from vfe.learn.state import Params
from vfe.learn.trees import tree_handler

FILE = "export.json"


@dataclasses.dataclass(frozen=True)
class Export:
  """kind says which model it is (`tokenizer`, `mae`, `encoder`, `classifier`, ...), model is its
  JSON-able config, params its numpy or jax leaves, digest a fingerprint of those."""

  kind: str
  model: dict[str, Any]
  params: Params
  digest: str
  path: str


def digest(params: Params) -> str:
  """A fingerprint of names, shapes, types and every byte of the parameters, wherever they lie.

  Where they lie over several processes, all of them call this.
  """
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    array = np.ascontiguousarray(hosts.fetch(leaf))
    sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
    sha.update(array.tobytes())
  return sha.hexdigest()[:16]


def write(
  path: pathlib.Path,
  kind: str,
  model: dict[str, Any],
  params: Params,
  *,
  files: Mapping[str, str] | None = None,
) -> Export:
  """Writes an export beside and renames it, so that a folder that exists is whole.

  Every process calls it, with the same values. `files` are texts by name that lie in the folder
  too, a vocabulary say.
  """
  import orbax.checkpoint as ocp

  path = pathlib.Path(path).absolute()
  export = Export(kind, model, params, digest(params), str(path))
  beside = path.with_name(path.name + ".partial")

  def clear() -> None:
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)

  def finish() -> None:
    text = json.dumps({"kind": kind, "model": model, "digest": export.digest}, indent=2)
    (beside / FILE).write_text(text + "\n")
    for name, content in (files or {}).items():
      (beside / name).write_text(content, encoding="utf-8")
    if path.exists():
      shutil.rmtree(path)
    beside.rename(path)

  hosts.decided(clear)
  with ocp.AsyncCheckpointer(tree_handler()) as checkpointer:
    # Waits, when it is closed, for every process.
    checkpointer.save(beside / "params", args=ocp.args.PyTreeSave(params))
  hosts.decided(finish)
  return export


def is_export(path: pathlib.Path) -> bool:
  """Whether the folder holds an export."""
  return (pathlib.Path(path) / FILE).is_file()


def read(path: pathlib.Path) -> Export:
  """Reads an export into host memory.

  Raises:
    UserError: no export in the folder, or its parameters are not those it was written with.
  """
  import orbax.checkpoint as ocp

  path = pathlib.Path(path).absolute()
  if not is_export(path):
    raise UserError(f"{path}: no {FILE} in it; an export is made when its stage finishes.")
  about = json.loads((path / FILE).read_text())
  with ocp.StandardCheckpointer() as checkpointer:
    shapes = checkpointer.metadata(path / "params").item_metadata.tree
    abstract = jax.tree.map(
      lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=_first_device()), shapes
    )
    params = checkpointer.restore(path / "params", abstract)
  params = jax.tree.map(np.asarray, params)
  if digest(params) != about["digest"]:
    raise UserError(f"{path}: the parameters are not those it was written with; make it anew.")
  return Export(about["kind"], about["model"], params, about["digest"], str(path))


def _first_device() -> jax.sharding.Sharding:
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
