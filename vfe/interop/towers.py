"""What the readers and writers of Hugging Face's image, video and text models share.

Biases on keys are dropped by all readers: they add the same to all logits of a query, which changes
no softmax. Writers put zeros there.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vfe.errors import UserError
from vfe.interop.safetensors import CONFIG, Weights

# Their names, ours, and their shapes in letters that a reader gives sizes: d width, m mlp, 3
# colours, t h w of a tubelet, n positions. "kernel" is "weight" with its axes reversed.
Table = Sequence[tuple[str, str, str]]

# transformers' activations as `vfe.nn.blocks.ACTIVATIONS`; those of a name differ by rounding.
ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_python": "gelu",
  "gelu_fast": "gelu_tanh",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_python_tanh": "gelu_tanh",
  "quick_gelu": "quick_gelu",
}
# Ours as theirs, by names that every version of transformers has.
THEIR_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}

# Mean and deviation of pixels in 0..1, as `vfe.models.vivit.EncoderConfig.pixels` names them.
PIXELS = {
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
  "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def prefix(weights: Weights, name: str) -> str:
  """`name`, where the model is a part of a larger one whose tensors begin so; else nothing."""
  return name if any(tensor.startswith(name) for tensor in weights.names) else ""


def tensors(weights: Weights, table: Table, sizes: Mapping[str, int], prefix: str) -> dict:
  """The tensors of a table, under our names.

  Raises:
    UserError: one is missing or of another shape.
  """
  tree = {}
  for theirs, ours, letters in table:
    array = weights.take(prefix + theirs, tuple(sizes[letter] for letter in letters))
    *branches, leaf = ours.split("/")
    place = tree
    for branch in branches:
      place = place.setdefault(branch, {})
    place[leaf] = _transposed(array) if leaf == "kernel" else array
  return tree


def layers(
  weights: Weights, table: Table, sizes: Mapping[str, int], prefix: str, depth: int
) -> dict:
  """The tensors of `depth` equal layers, stacked; `prefix` has {} for a layer's number."""
  return _stacked([tensors(weights, table, sizes, prefix.format(i)) for i in range(depth)])


def their_tensors(
  params: Mapping[str, Any], table: Table, sizes: Mapping[str, int], prefix: str
) -> dict[str, Float[np.ndarray, "..."]]:
  """The inverse of `tensors`: our parameters under their names."""
  named = {}
  for theirs, ours, letters in table:
    array = params
    for name in ours.split("/"):
      array = array[name]
    array = np.asarray(array, np.float32)
    if ours.endswith("kernel"):
      out, values, *kernel = (sizes[letter] for letter in letters)
      array = np.moveaxis(array.reshape(*kernel, values, out), (-1, -2), (0, 1))
    named[prefix + theirs] = array
  return named


def their_layers(
  params: Mapping[str, Any],
  table: Table,
  keys: str | None,
  sizes: Mapping[str, int],
  prefix: str,
  depth: int,
) -> dict[str, Float[np.ndarray, "..."]]:
  """The inverse of `layers`; `keys` is what they call the biases on keys, if they have any."""
  named = {}
  for i in range(depth):
    layer = _layer(params, i)
    named |= their_tensors(layer, table, sizes, prefix.format(i))
    if keys is not None:
      named[prefix.format(i) + keys] = np.zeros(sizes["d"], np.float32)
  return named


def class_and_positions(
  token: Float[np.ndarray, "..."], table: Float[np.ndarray, "n d"], frames: int, has_class: bool
) -> dict[str, Float[np.ndarray, "..."]]:
  """`position` and, with a class token in front, `cls`, with its own position added into it."""
  own, others = (table[0], table[1:]) if has_class else (None, table)
  params = {"position": others.reshape(frames, -1, table.shape[-1])}
  return params | ({"cls": token.reshape(-1) + own} if has_class else {})


def refuse(folder: pathlib.Path, wrong: Mapping[str, bool]) -> None:
  """Of what config.json may say, what we have no model for.

  Raises:
    UserError: one of it is so.
  """
  for what, is_wrong in wrong.items():
    if is_wrong:
      raise UserError(f"{folder}/{CONFIG}: {what} is not supported; use another model.")


def unwritable(whose: str, wrong: Mapping[str, bool]) -> None:
  """Of what a model of ours may be, what transformers has no model for.

  Raises:
    UserError: one of it is so.
  """
  for what, is_wrong in wrong.items():
    if is_wrong:
      raise UserError(f"transformers' {whose} has no {what}; keep this model as our own export.")


def activation(folder: pathlib.Path, config: Mapping[str, Any]) -> str:
  """Our name of config's hidden_act.

  Raises:
    UserError: we have no such activation.
  """
  name = config["hidden_act"]
  refuse(folder, {f"hidden_act {name!r} (only {', '.join(ACTIVATIONS)})": name not in ACTIVATIONS})
  return ACTIVATIONS[name]


def side(folder: pathlib.Path, config: Mapping[str, Any], name: str) -> int:
  """The side of a square, which config gives as a number or as two equal ones.

  Raises:
    UserError: the two are not equal.
  """
  value = config[name]
  if isinstance(value, int):
    return value
  refuse(folder, {f"{name} {value!r}, not square,": len(set(value)) != 1})
  return value[0]


def pixels(folder: pathlib.Path, default: str) -> str:
  """The name in `PIXELS` of what the folder's image processor does; without one, the default.

  Raises:
    UserError: it does something else.
  """
  path, said = _processor(folder)
  if said is None:
    return default
  try:
    mean, std = _mean_and_std(said)
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f"{path}: no usable image_mean and image_std ({error}); fetch it.") from None
  for name, normalised in PIXELS.items():
    if np.allclose((mean, std), normalised, atol=2e-3):
      return name
  raise UserError(
    f"{path}: pixels of mean {mean.tolist()} and deviation {std.tolist()} are not supported, only "
    f"those of {', '.join(PIXELS)}; take the file away to read the model with {default}."
  )


def _processor(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any] | None]:
  """The image processor's file and what it says of normalisation, if anything."""
  for path in (pathlib.Path(folder) / name for name in PROCESSORS):
    if not path.is_file():
      continue
    try:
      said = json.loads(path.read_text())
      said = said.get("image_processor", said)
    except (ValueError, AttributeError) as error:
      raise UserError(f"{path}: not a JSON object ({error}); fetch it again.") from None
    if "image_mean" in said or "image_std" in said:
      return path, said
  return folder, None


def _mean_and_std(said: Mapping[str, Any]) -> tuple[Float[np.ndarray, "3"], ...]:
  """Of pixels in 0..1: rescaling to -1..1 is part of it, and normalising may be off."""
  mean, std = np.zeros(3), np.ones(3)
  if said.get("do_normalize", True):
    mean, std = (np.asarray(said[name], float) * np.ones(3) for name in ("image_mean", "image_std"))
  if said.get("offset") or said.get("do_zero_centering"):
    return (mean + 1) / 2, std / 2
  return mean, std


def _transposed(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
  """[out, in] to [in, out], and [d, c, (t,) h, w] to [((t) h w c), d]."""
  return np.moveaxis(array, (0, 1), (-1, -2)).reshape(-1, len(array))


def _stacked(trees: list) -> Any:
  if isinstance(trees[0], dict):
    return {name: _stacked([tree[name] for tree in trees]) for name in trees[0]}
  return np.stack(trees)


def _layer(stacked: Any, i: int) -> Any:
  if isinstance(stacked, Mapping):
    return {name: _layer(branch, i) for name, branch in stacked.items()}
  return stacked[i]
