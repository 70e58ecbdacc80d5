"""Hugging Face image BEiT folders: BeitModel, BeitForImageClassification and others with one in it.

The heads are left out: the classifier, and of masked image modelling the norm and the layer that
predict visual words. The token of masked patches is too. A BeitModel is what is written.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfe.interop import safetensors, towers, vit
from vfe.interop.safetensors import Weights, read_config

TABLE = "relative_position_bias.relative_position_bias_table"
BLOCK = (*vit.BLOCK, *vit.QUERY_AND_VALUE)
RELATIVE = ((f"attention.attention.{TABLE}", "relative", "ra"),)
SHARED = ((f"encoder.{TABLE}", "relative", "ra"),)
LAYER_SCALES = (("lambda_1", "attention_scale", "d"), ("lambda_2", "mlp_scale", "d"))
POOL_NORM = (
  ("pooler.layernorm.weight", "pool_norm/scale", "d"),
  ("pooler.layernorm.bias", "pool_norm/bias", "d"),
)
LAYER = "encoder.layer.{}."

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  image_size=224, patch_size=16, num_channels=3, hidden_size=768, num_hidden_layers=12,
  num_attention_heads=12, intermediate_size=3072, hidden_act="gelu", layer_norm_eps=1e-12,
  use_relative_position_bias=False, use_shared_relative_position_bias=False,
  use_absolute_position_embeddings=False, layer_scale_init_value=0.1, use_mean_pooling=True,
)  # fmt: skip

# What an encoder has that transformers' BEiT can hold, where ours can be otherwise.
THEIRS = dict(
  positions="relative", mixing="joint", cls=True, pre_norm=False, images=False, adapter=0, lora=0,
  edges=None, pruning=None,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("encoder", model, params) of an export.

  model["encoder"] has fields of `vfe.models.vivit.EncoderConfig`: a video encoder of one frame.
  Pixels have mean and deviation 0.5 where the folder has no image processor that says otherwise.
  params are numpy float32, those of `vfe.models.vivit.Encoder` under "encoder". A BEiT that pools
  by the mean has no norm of its tokens, but one of their mean (without the class token): it is
  params["pool_norm"], scale and bias, where the folder has it. A table of relative positions that
  its layers share (`pt22k`) becomes each layer's own.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a BEiT we have no model for.
  """
  folder = pathlib.Path(folder)
  config = DEFAULTS | read_config(folder, "beit")
  own, shared = config["use_relative_position_bias"], config["use_shared_relative_position_bias"]
  towers.refuse(
    folder,
    {
      "use_absolute_position_embeddings true": config["use_absolute_position_embeddings"],
      "no relative position bias": not own and not shared,
    },
  )
  patch = towers.side(folder, config, "patch_size")
  model = vit.encoder_fields(folder, config, frames=1, tubelet=(1, patch, patch))
  model |= {
    "positions": "relative",
    "layer_scale": max(float(config["layer_scale_init_value"]), 0.0),
    "final_norm": not config["use_mean_pooling"],
  }
  weights = Weights(folder)
  part = towers.prefix(weights, "beit.")
  sizes = _sizes(model)
  embed = (*vit.EMBED, *vit.NORM) if model["final_norm"] else vit.EMBED
  encoder = towers.tensors(weights, embed, sizes, part)
  token = weights.take(part + "embeddings.cls_token", (1, 1, model["width"]))
  encoder["cls"] = token.reshape(-1)
  block = _block(model) if own else _block(model, relative=())
  encoder["blocks"] = blocks = towers.layers(weights, block, sizes, part + LAYER, model["depth"])
  if shared:
    of_all = towers.tensors(weights, SHARED, sizes, part)["relative"]
    zeros = np.zeros((model["depth"], *of_all.shape), np.float32)
    blocks["relative"] = blocks.get("relative", zeros) + of_all  # where there are both, both count
  params = {"encoder": encoder}
  if part + POOL_NORM[0][0] in weights.names:
    params |= towers.tensors(weights, POOL_NORM, sizes, part)
  return "encoder", {"encoder": model}, params


def write_export(folder: pathlib.Path, model: Mapping[str, Any], params: Any) -> None:
  """Writes model["encoder"], params["encoder"] and any params["pool_norm"] as a BeitModel.

  Without a pool_norm it has no pooler.

  Raises:
    UserError: transformers has no such BEiT, or the folder holds a model already.
  """
  encoder = model["encoder"]
  _check_ours(encoder, params)
  sizes, pools = _sizes(encoder), "norm" not in params["encoder"]
  embed = vit.EMBED if pools else (*vit.EMBED, *vit.NORM)
  blocks = params["encoder"]["blocks"]
  tensors = {
    "embeddings.cls_token": np.asarray(params["encoder"]["cls"], np.float32).reshape(1, 1, -1),
    **towers.their_tensors(params["encoder"], embed, sizes, ""),
    **towers.their_layers(blocks, _block(encoder), None, sizes, LAYER, encoder["depth"]),
  }
  if "pool_norm" in params:
    tensors |= towers.their_tensors(params, POOL_NORM, sizes, "")
  config = vit.their_config(encoder, "BeitModel", "beit") | {
    "patch_size": encoder["tubelet"][1],
    "use_relative_position_bias": True,
    "use_shared_relative_position_bias": False,
    "use_absolute_position_embeddings": False,
    "layer_scale_init_value": float(encoder.get("layer_scale", 0)),
    "use_mean_pooling": pools,
  }
  del config["qkv_bias"]
  safetensors.write(folder, config, tensors)


def _block(model: Mapping[str, Any], relative: towers.Table = RELATIVE) -> towers.Table:
  return (*BLOCK, *relative, *(LAYER_SCALES if model.get("layer_scale") else ()))


def _check_ours(model: Mapping[str, Any], params: Mapping[str, Any]) -> None:
  said = {name: model.get(name, theirs) for name, theirs in THEIRS.items()}
  wrong = {f"{name} {value!r}": value != THEIRS[name] for name, value in said.items()}
  wrong[f"clips of {model['frames']} frames"] = model["frames"] != 1
  wrong[f"tubelets of {tuple(model['tubelet'])}"] = model["tubelet"][1] != model["tubelet"][2]
  wrong["encoder without a class token"] = "cls" not in params["encoder"]
  wrong["norm of the tokens and one of their mean"] = (
    "norm" in params["encoder"] and "pool_norm" in params
  )
  towers.unwritable("BEiT", wrong)


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  """Of the tables' letters: a heads, r entries as `vfe.nn.relative.entries` of one frame."""
  _, h, w = model["tubelet"]
  offsets = 2 * (model["size"] // h) - 1
  return {
    "3": 3, "h": h, "w": w, "d": model["width"], "m": model["mlp"], "a": model["heads"],
    "r": offsets**2 + 3,
  }  # fmt: skip
