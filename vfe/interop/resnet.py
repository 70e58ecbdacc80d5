"""Hugging Face ResNet folders (`ResNetForImageClassification`) in."""

import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import load_file

from vfe.errors import UserError

_EPSILON = 1e-5  # of PyTorch's BatchNorm2d
_FIELDS = (
  "embedding_size",
  "hidden_sizes",
  "depths",
  "layer_type",
  "downsample_in_first_stage",
  "downsample_in_bottleneck",
)


def read_resnet(folder: str | os.PathLike) -> tuple[dict, dict]:
  """The fields of a `vfe.models.resnet.ResNetConfig`, and its parameters as NumPy float32.

  The folder holds config.json, model.safetensors and perhaps preprocessor_config.json, whose mean
  and standard deviation are taken. Each batch normalisation is folded into the convolution before it.
  """
  folder = pathlib.Path(folder)
  config = _read_json(folder / "config.json")
  if config.get("model_type") != "resnet" or config.get("hidden_act", "relu") != "relu":
    raise UserError(
      f"{folder}/config.json: model_type={config.get('model_type')!r} with activation "
      f"{config.get('hidden_act')!r} is not a ResNet with ReLU; give a folder such as "
      f"microsoft/resnet-50."
    )
  weights = folder / "model.safetensors"
  if not weights.is_file():
    raise UserError(f"{weights} is missing; download it beside config.json.")
  tensors = load_file(weights)
  fields = {name: config[name] for name in _FIELDS if name in config}
  if (folder / "preprocessor_config.json").is_file():
    pixels = _read_json(folder / "preprocessor_config.json")
    fields |= {"mean": pixels["image_mean"], "std": pixels["image_std"]}
  try:
    params = parameters_of_tensors(tensors, config["depths"], config["layer_type"])
  except KeyError as missing:
    raise UserError(
      f"{weights} has no tensor {missing}; it must hold the whole of ResNetForImageClassification."
    ) from None
  return fields | {"classes": params["classifier"]["bias"].size}, params


def parameters_of_tensors(
  tensors: Mapping[str, np.ndarray], depths: list[int], layer_type: str
) -> dict:
  """Hugging Face's names and layouts to those of `vfe.models.resnet.ResNet`."""
  convolutions = 2 if layer_type == "basic" else 3
  params = {"stem": _folded(tensors, "resnet.embedder.embedder")}
  for stage, depth in enumerate(depths):
    for layer in range(depth):
      prefix = f"resnet.encoder.stages.{stage}.layers.{layer}"
      block = {f"conv{i}": _folded(tensors, f"{prefix}.layer.{i}") for i in range(convolutions)}
      if f"{prefix}.shortcut.convolution.weight" in tensors:
        block["shortcut"] = _folded(tensors, f"{prefix}.shortcut")
      params[f"stage{stage}_{layer}"] = block
  kernel = tensors["classifier.1.weight"].astype(np.float32).T
  params["classifier"] = {"kernel": kernel, "bias": tensors["classifier.1.bias"].astype(np.float32)}
  return params


def _folded(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """A convolution and the batch normalisation after it, as one convolution with a bias."""
  norm = lambda name: tensors[f"{prefix}.normalization.{name}"].astype(np.float64)
  kernel = tensors[f"{prefix}.convolution.weight"].astype(np.float64)  # [out, in, h, w]
  scale = norm("weight") / np.sqrt(norm("running_var") + _EPSILON)
  return {
    "kernel": (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
    "bias": (norm("bias") - norm("running_mean") * scale).astype(np.float32),
  }


def _read_json(path: pathlib.Path) -> dict:
  try:
    return json.loads(path.read_text())
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror}); give a ResNet's folder.") from None
  except ValueError as error:
    raise UserError(f"{path} is not valid JSON ({error}).") from None
