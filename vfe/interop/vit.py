"""Hugging Face ViT folders: ViTModel, ViTForImageClassification and others with a ViT in them.

The heads and the pooler are left out; a ViTModel is what is written.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfe.interop import safetensors, towers
from vfe.interop.safetensors import Weights, read_config

EMBED = (
  ("embeddings.patch_embeddings.projection.weight", "embed/kernel", "d3hw"),
  ("embeddings.patch_embeddings.projection.bias", "embed/bias", "d"),
)
EMBED_VIDEO = (("embeddings.patch_embeddings.projection.weight", "embed/kernel", "d3thw"), EMBED[1])
NORM = (("layernorm.weight", "norm/scale", "d"), ("layernorm.bias", "norm/bias", "d"))
QUERY_AND_VALUE = (
  ("attention.attention.query.bias", "attention/query/bias", "d"),
  ("attention.attention.value.bias", "attention/value/bias", "d"),
)
BLOCK = (
  ("layernorm_before.weight", "attention_norm/scale", "d"),
  ("layernorm_before.bias", "attention_norm/bias", "d"),
  ("attention.attention.query.weight", "attention/query/kernel", "dd"),
  ("attention.attention.key.weight", "attention/key/kernel", "dd"),
  ("attention.attention.value.weight", "attention/value/kernel", "dd"),
  ("attention.output.dense.weight", "attention/out/kernel", "dd"),
  ("attention.output.dense.bias", "attention/out/bias", "d"),
  ("layernorm_after.weight", "mlp_norm/scale", "d"),
  ("layernorm_after.bias", "mlp_norm/bias", "d"),
  ("intermediate.dense.weight", "mlp/up/kernel", "md"),
  ("intermediate.dense.bias", "mlp/up/bias", "m"),
  ("output.dense.weight", "mlp/down/kernel", "dm"),
  ("output.dense.bias", "mlp/down/bias", "d"),
)

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  image_size=224, patch_size=16, num_channels=3, hidden_size=768, num_hidden_layers=12,
  num_attention_heads=12, intermediate_size=3072, hidden_act="gelu", layer_norm_eps=1e-12,
  qkv_bias=True,
)  # fmt: skip

# What an encoder has that transformers' ViT can hold, where ours can be otherwise.
THEIRS = dict(
  positions="learned", mixing="joint", pre_norm=False, images=False, adapter=0, lora=0,
  layer_scale=0.0, edges=None, pruning=None,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("encoder", model, params) of an export.

  model["encoder"] has fields of `vfe.models.vivit.EncoderConfig`: a video encoder of one frame.
  Pixels have mean and deviation 0.5 where the folder has no image processor that says otherwise.
  params are numpy float32, those of `vfe.models.vivit.Encoder` under "encoder".

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a ViT we have no model for.
  """
  folder = pathlib.Path(folder)
  config = DEFAULTS | read_config(folder, "vit")
  patch = towers.side(folder, config, "patch_size")
  model = encoder_fields(folder, config, frames=1, tubelet=(1, patch, patch))
  params = parameters(folder, config, model, "vit.", EMBED)
  return "encoder", {"encoder": model}, {"encoder": params}


def write_export(folder: pathlib.Path, model: Mapping[str, Any], params: Any) -> None:
  """Writes model["encoder"] and params["encoder"] as a ViTModel without its pooler.

  Raises:
    UserError: transformers has no such ViT, or the folder holds a model already.
  """
  encoder, params = model["encoder"], params["encoder"]
  check_ours("ViT", encoder, params)
  towers.unwritable("ViT", {f"clips of {encoder['frames']} frames": encoder["frames"] != 1})
  config = their_config(encoder, "ViTModel", "vit") | {"patch_size": encoder["tubelet"][1]}
  safetensors.write(folder, config, their_tensors(encoder, params, EMBED))


def encoder_fields(
  folder: pathlib.Path, config: Mapping[str, Any], frames: int, tubelet: tuple[int, int, int]
) -> dict[str, Any]:
  """The encoder of a ViT, or of a ViViT, whose config has the same names.

  Raises:
    UserError: we have no model for it.
  """
  size, (t, h, w) = towers.side(folder, config, "image_size"), tubelet
  towers.refuse(
    folder,
    {
      f"num_channels {config['num_channels']}": config["num_channels"] != 3,
      f"image_size {size} with patches of {h}": bool(size % h),
      f"num_frames {frames} with tubelets of {t} frames": bool(frames % t),
      f"patches of {h}x{w}, not square,": h != w,
    },
  )
  return {
    "frames": frames,
    "size": size,
    "tubelet": tubelet,
    "width": config["hidden_size"],
    "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"],
    "mlp": config["intermediate_size"],
    "norm_eps": config["layer_norm_eps"],
    "final_norm": True,
    "positions": "learned",
    "cls": True,
    "activation": towers.activation(folder, config),
    "pixels": towers.pixels(folder, "half"),
  }


def parameters(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  model: Mapping[str, Any],
  part: str,
  embed: towers.Table,
) -> dict[str, Any]:
  """The encoder's parameters; `part` is its name in a model with a head."""
  weights, d = Weights(folder), model["width"]
  part = towers.prefix(weights, part)
  latent = model["frames"] // model["tubelet"][0]
  n = latent * (model["size"] // model["tubelet"][1]) ** 2
  sizes = _sizes(model)
  layer = part + "encoder.layer.{}."
  table = (*BLOCK, *QUERY_AND_VALUE) if config["qkv_bias"] else BLOCK
  blocks = towers.layers(weights, table, sizes, layer, model["depth"])
  if not config["qkv_bias"]:
    for name in ("query", "value"):
      blocks["attention"][name]["bias"] = np.zeros((model["depth"], d), np.float32)
  token = weights.take(part + "embeddings.cls_token", (1, 1, d))
  table = weights.take(part + "embeddings.position_embeddings", (1, 1 + n, d))[0]
  return {
    **towers.tensors(weights, (*embed, *NORM), sizes, part),
    **towers.class_and_positions(token, table, latent, has_class=True),
    "blocks": blocks,
  }


def their_tensors(
  model: Mapping[str, Any], params: Mapping[str, Any], embed: towers.Table
) -> dict[str, Any]:
  """The inverse of `parameters`. The class token holds its position, which is 0 here."""
  sizes, table = _sizes(model), (*BLOCK, *QUERY_AND_VALUE)
  keys, layer = "attention.attention.key.bias", "encoder.layer.{}."
  position = np.asarray(params["position"], np.float32).reshape(1, -1, model["width"])
  return {
    "embeddings.cls_token": np.asarray(params["cls"], np.float32).reshape(1, 1, -1),
    "embeddings.position_embeddings": np.pad(position, ((0, 0), (1, 0), (0, 0))),
    **towers.their_tensors(params, (*embed, *NORM), sizes, ""),
    **towers.their_layers(params["blocks"], table, keys, sizes, layer, model["depth"]),
  }


def their_config(model: Mapping[str, Any], architecture: str, kind: str) -> dict[str, Any]:
  """What the config.json of a ViT and of a ViViT have in common."""
  return {
    "architectures": [architecture],
    "model_type": kind,
    "dtype": "float32",
    "image_size": model["size"],
    "num_channels": 3,
    "hidden_size": model["width"],
    "num_hidden_layers": model["depth"],
    "num_attention_heads": model["heads"],
    "intermediate_size": model["mlp"],
    "hidden_act": towers.THEIR_ACTIVATIONS[model["activation"]],
    "layer_norm_eps": model["norm_eps"],
    "qkv_bias": True,
  }


def check_ours(whose: str, model: Mapping[str, Any], params: Mapping[str, Any]) -> None:
  """Whether an encoder of ours is a ViT or a ViViT of theirs.

  Raises:
    UserError: it is not.
  """
  said = {name: model.get(name, theirs) for name, theirs in THEIRS.items()}
  wrong = {f"{name} {value!r}": value != THEIRS[name] for name, value in said.items()}
  wrong[f"tubelets of {tuple(model['tubelet'])}"] = model["tubelet"][1] != model["tubelet"][2]
  wrong["encoder without a class token"] = "cls" not in params
  wrong["encoder without a norm at its end"] = "norm" not in params
  towers.unwritable(whose, wrong)


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  """Of the tables' letters."""
  t, h, w = model["tubelet"]
  return {"3": 3, "t": t, "h": h, "w": w, "d": model["width"], "m": model["mlp"]}
