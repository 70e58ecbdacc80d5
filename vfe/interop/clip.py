"""Vision towers of Hugging Face CLIP folders in.

CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection. The text tower, the projections and
the temperature are left out. CLIP's own image vector is the class token after the final norm;
transformers' last_hidden_state is before it.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfe.interop import towers
from vfe.interop.safetensors import Weights, read_config

KERNEL = (("embeddings.patch_embedding.weight", "embed/kernel", "d3hw"),)
NORM = (("post_layernorm.weight", "norm/scale", "d"), ("post_layernorm.bias", "norm/bias", "d"))
PRE_NORM = (
  ("pre_layrnorm.weight", "pre_norm/scale", "d"),  # the tensor's own spelling
  ("pre_layrnorm.bias", "pre_norm/bias", "d"),
)
BLOCK = (
  ("layer_norm1.weight", "attention_norm/scale", "d"),
  ("layer_norm1.bias", "attention_norm/bias", "d"),
  ("self_attn.q_proj.weight", "attention/query/kernel", "dd"),
  ("self_attn.q_proj.bias", "attention/query/bias", "d"),
  ("self_attn.k_proj.weight", "attention/key/kernel", "dd"),
  ("self_attn.v_proj.weight", "attention/value/kernel", "dd"),
  ("self_attn.v_proj.bias", "attention/value/bias", "d"),
  ("self_attn.out_proj.weight", "attention/out/kernel", "dd"),
  ("self_attn.out_proj.bias", "attention/out/bias", "d"),
  ("layer_norm2.weight", "mlp_norm/scale", "d"),
  ("layer_norm2.bias", "mlp_norm/bias", "d"),
  ("mlp.fc1.weight", "mlp/up/kernel", "md"),
  ("mlp.fc1.bias", "mlp/up/bias", "m"),
  ("mlp.fc2.weight", "mlp/down/kernel", "dm"),
  ("mlp.fc2.bias", "mlp/down/bias", "d"),
)

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  image_size=224, patch_size=32, num_channels=3, hidden_size=768, num_hidden_layers=12,
  num_attention_heads=12, intermediate_size=3072, hidden_act="quick_gelu", layer_norm_eps=1e-5,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("encoder", model, params) of an export.

  model["encoder"] has fields of `vfe.models.vivit.EncoderConfig`: a video encoder of one frame.
  Pixels are CLIP's where the folder has no image processor that says otherwise. params are numpy
  float32, those of `vfe.models.vivit.Encoder` under "encoder"; the patch embedding's bias is 0.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a CLIP we have no model for.
  """
  folder = pathlib.Path(folder)
  config = vision_config(folder, "clip", DEFAULTS)
  model = encoder_fields(folder, config) | {"cls": True, "pre_norm": True}
  model["pixels"] = towers.pixels(folder, "clip")
  weights, d = Weights(folder), model["width"]
  part, sizes, n = layout(weights, model)
  token = weights.take(part + "embeddings.class_embedding", (d,))
  table = weights.take(part + "embeddings.position_embedding.weight", (1 + n, d))
  params = {
    **towers.tensors(weights, (*KERNEL, *PRE_NORM, *NORM), sizes, part),
    **towers.class_and_positions(token, table, 1, has_class=True),
    "blocks": towers.layers(weights, BLOCK, sizes, part + "encoder.layers.{}.", model["depth"]),
  }
  params["embed"]["bias"] = np.zeros(d, np.float32)
  return "encoder", {"encoder": model}, {"encoder": params}


def vision_config(folder: pathlib.Path, family: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
  """What config.json says of the vision tower, which is a part of the `family`'s whole model."""
  config = read_config(folder, family, f"{family}_vision_model")
  is_part = config["model_type"] == family
  return {**defaults, **(config.get("vision_config") or {} if is_part else config)}


def encoder_fields(folder: pathlib.Path, config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields that CLIP's and SigLIP's towers share.

  Pixels that no whole patch covers, such as 384 has over 27 patches of 14, are not part of `size`.

  Raises:
    UserError: we have no model for it.
  """
  size, patch = (towers.side(folder, config, name) for name in ("image_size", "patch_size"))
  channels = config["num_channels"]
  towers.refuse(folder, {f"num_channels {channels}": channels != 3})
  return {
    "frames": 1,
    "size": size - size % patch,
    "tubelet": (1, patch, patch),
    "width": config["hidden_size"],
    "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"],
    "mlp": config["intermediate_size"],
    "norm_eps": config["layer_norm_eps"],
    "final_norm": True,
    "positions": "learned",
    "activation": towers.activation(folder, config),
  }


def layout(weights: Weights, model: Mapping[str, Any]) -> tuple[str, dict[str, int], int]:
  """The prefix of the tower's tensors, the sizes of their letters, and its number of patches."""
  patch = model["tubelet"][1]
  sizes = {"3": 3, "h": patch, "w": patch, "d": model["width"], "m": model["mlp"]}
  return towers.prefix(weights, "vision_model."), sizes, (model["size"] // patch) ** 2
