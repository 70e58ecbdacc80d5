"""Hugging Face model folders: config.json beside model.safetensors, or beside shards of it."""

import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vfe.errors import UserError

CONFIG = "config.json"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Weights:
  """The tensors of a folder, read when they are taken.

  Raises:
    UserError: the folder has no readable safetensors; names the file.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = pathlib.Path(folder)
    self._file_of = self._locate()

  @property
  def names(self) -> frozenset[str]:
    """The names of all tensors."""
    return frozenset(self._file_of)

  def take(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """The tensor of this name in float32, whatever float type it is stored in.

    Raises:
      UserError: there is none, or its shape is another.
    """
    if name not in self._file_of:
      near = difflib.get_close_matches(name, self._file_of, n=1)
      hint = f"nearest: {near[0]}" if near else "no similar name"
      raise UserError(f"{self.folder}: no tensor {name} in it ({hint}); is it another model?")
    path = self._file_of[name]
    tensor = _open(path).get_tensor(name)
    if tensor.shape != shape:
      raise UserError(
        f"{path}: {name} has shape {list(tensor.shape)}, {CONFIG} makes it {list(shape)}; "
        "take both files from the same model."
      )
    return np.asarray(tensor, np.float32)

  def _locate(self) -> dict[str, pathlib.Path]:
    """Which file each tensor is in."""
    if (self.folder / WHOLE).is_file():
      whole = self.folder / WHOLE
      return dict.fromkeys(_open(whole).keys(), whole)
    if not (self.folder / INDEX).is_file():
      raise UserError(f"{self.folder}: neither {WHOLE} nor {INDEX} in it; {self._other_weights()}")
    index = _read_json(self.folder / INDEX).get("weight_map", {})
    for name, shard in index.items():
      if not (self.folder / shard).is_file():
        raise UserError(f"{self.folder / shard}: missing, but {INDEX} has {name} in it; fetch it.")
    return {name: self.folder / shard for name, shard in index.items()}

  def _other_weights(self) -> str:
    others = sorted(p.name for p in self.folder.glob("*.bin"))
    if not others:
      return "give the folder that holds the weights."
    return (
      f"it has {others[0]}: save the model again with save_pretrained(safe_serialization=True)."
    )


def read_config(folder: pathlib.Path, *model_types: str) -> dict[str, Any]:
  """The config.json of a folder of one of these model types.

  Raises:
    UserError: there is none, it is no JSON object, or it is of another model type.
  """
  folder = pathlib.Path(folder)
  if not (folder / CONFIG).is_file():
    raise UserError(f"{folder}: no {CONFIG} in it; give a folder as save_pretrained writes it.")
  config = _read_json(folder / CONFIG)
  if config.get("model_type") not in model_types:
    raise UserError(
      f"{folder / CONFIG}: model_type is {config.get('model_type')!r}; "
      f"give the folder of a {' or '.join(map(repr, model_types))} model."
    )
  return config


def write(
  folder: pathlib.Path, config: Mapping[str, Any], tensors: Mapping[str, Shaped[np.ndarray, "..."]]
) -> None:
  """Writes a folder that transformers loads: config.json and one model.safetensors.

  Raises:
    UserError: the folder already holds a model, which is not written over.
  """
  folder = pathlib.Path(folder)
  for name in (CONFIG, WHOLE, INDEX):
    if (folder / name).exists():
      raise UserError(f"{folder / name} is already there; choose another folder or remove it.")
  folder.mkdir(parents=True, exist_ok=True)
  write_tensors(folder / WHOLE, tensors)
  (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def write_tensors(
  path: pathlib.Path, tensors: Mapping[str, Shaped[np.ndarray, "..."]]
) -> None:
  """One safetensors file."""
  from safetensors.numpy import save_file

  whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
  # transformers refuses a file that does not say which framework its layout is of.
  save_file(whole, path, metadata={"format": "pt"})


def _open(path: pathlib.Path) -> Any:
  from safetensors import SafetensorError, safe_open

  try:
    return safe_open(path, framework="numpy")
  except (SafetensorError, OSError) as error:
    raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again.") from error


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f"{path}: not JSON ({error}); fetch it again.") from error
  if not isinstance(content, dict):
    raise UserError(f"{path}: not a JSON object; fetch it again.")
  return content
