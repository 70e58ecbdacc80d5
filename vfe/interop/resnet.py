"""Hugging Face ResNet folders (`ResNetForImageClassification`) in."""

import json
import pathlib
from typing import Any

import numpy as np

from vfe.errors import UserError
from vfe.interop.safetensors import Weights, read_config

EPSILON = 1e-5  # of PyTorch's BatchNorm2d
DEFAULTS = {  # of transformers, which leaves them out of config.json
  "num_channels": 3,
  "embedding_size": 64,
  "hidden_sizes": [256, 512, 1024, 2048],
  "depths": [3, 4, 6, 3],
  "layer_type": "bottleneck",
  "hidden_act": "relu",
  "downsample_in_first_stage": False,
  "downsample_in_bottleneck": False,
  "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
}
SUPPORTED = {"num_channels": (3,), "hidden_act": ("relu",), "layer_type": ("bottleneck", "basic")}
SHAPE = (
  "embedding_size",
  "hidden_sizes",
  "depths",
  "layer_type",
  "downsample_in_first_stage",
  "downsample_in_bottleneck",
)


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("resnet", model, params) of an export.

  model has the fields of `vfe.models.resnet.ResNetConfig`; the pixels' mean and standard deviation
  are those of preprocessor_config.json where there is one. params are numpy float32, each batch
  normalisation folded into the convolution before it.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a ResNet we have no model for.
  """
  folder = pathlib.Path(folder)
  config = DEFAULTS | read_config(folder, "resnet")
  for name, values in SUPPORTED.items():
    if config[name] not in values:
      raise UserError(
        f"{folder}/config.json: {name}={config[name]!r} is not supported, only "
        f"{' and '.join(map(repr, values))}; give a folder such as microsoft/resnet-50."
      )
  model = {name: config[name] for name in SHAPE} | {"classes": len(config["id2label"])}
  return "resnet", model | _pixels(folder), _parameters(Weights(folder), model)


def _parameters(weights: Weights, model: dict[str, Any]) -> dict[str, Any]:
  """Hugging Face's names and layouts as those of `vfe.models.resnet.ResNet`."""
  width = model["embedding_size"]
  params = {"stem": _folded(weights, "resnet.embedder.embedder", (width, 3, 7, 7))}
  for stage, (out, depth) in enumerate(zip(model["hidden_sizes"], model["depths"], strict=True)):
    for layer in range(depth):
      prefix = f"resnet.encoder.stages.{stage}.layers.{layer}"
      block = {
        f"conv{i}": _folded(weights, f"{prefix}.layer.{i}", shape)
        for i, shape in enumerate(_kernels(model["layer_type"], width, out))
      }
      halves = layer == 0 and (stage > 0 or model["downsample_in_first_stage"])
      if halves or width != out:
        block["shortcut"] = _folded(weights, f"{prefix}.shortcut", (out, width, 1, 1))
      params[f"stage{stage}_{layer}"] = block
      width = out
  params["classifier"] = {
    "kernel": weights.take("classifier.1.weight", (model["classes"], width)).T,
    "bias": weights.take("classifier.1.bias", (model["classes"],)),
  }
  return params


def _kernels(layer_type: str, width: int, out: int) -> list[tuple[int, int, int, int]]:
  """The convolutions of a layer, in PyTorch's order [out, in, h, w]."""
  if layer_type == "basic":
    return [(out, width, 3, 3), (out, out, 3, 3)]
  narrow = out // 4
  return [(narrow, width, 1, 1), (narrow, narrow, 3, 3), (out, narrow, 1, 1)]


def _folded(weights: Weights, prefix: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """A convolution and the batch normalisation after it, as one convolution with a bias."""
  norm = lambda name: weights.take(f"{prefix}.normalization.{name}", shape[:1]).astype(np.float64)
  kernel = weights.take(f"{prefix}.convolution.weight", shape).astype(np.float64)
  scale = norm("weight") / np.sqrt(norm("running_var") + EPSILON)
  return {
    "kernel": (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
    "bias": (norm("bias") - norm("running_mean") * scale).astype(np.float32),
  }


def _pixels(folder: pathlib.Path) -> dict[str, list[float]]:
  path = folder / "preprocessor_config.json"
  if not path.is_file():
    return {}
  try:
    said = json.loads(path.read_text())
    return {"mean": said["image_mean"], "std": said["image_std"]}
  except (ValueError, KeyError) as error:
    raise UserError(
      f"{path}: no image_mean and image_std in it ({error}); fetch it again."
    ) from None
