"""Hugging Face ViViT folders: VivitModel and VivitForVideoClassification.

The head and the pooler are left out; a VivitModel is what is written. The layout is that of
google/vivit-b-16x2: joint attention over tubelets and a class token, learned positions.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from vfe.interop import safetensors, vit
from vfe.interop.safetensors import read_config

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  image_size=224, num_frames=32, tubelet_size=[2, 16, 16], num_channels=3, hidden_size=768,
  num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu_fast",
  layer_norm_eps=1e-6, qkv_bias=True,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("encoder", model, params) of an export, as `vfe.interop.vit.read_export`.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a ViViT we have no model for.
  """
  folder = pathlib.Path(folder)
  config = DEFAULTS | read_config(folder, "vivit")
  model = vit.encoder_fields(folder, config, config["num_frames"], tuple(config["tubelet_size"]))
  params = vit.parameters(folder, config, model, "vivit.", vit.EMBED_VIDEO)
  return "encoder", {"encoder": model}, {"encoder": params}


def write_export(folder: pathlib.Path, model: Mapping[str, Any], params: Any) -> None:
  """Writes model["encoder"] and params["encoder"] as a VivitModel without its pooler.

  Raises:
    UserError: transformers has no such ViViT, or the folder holds a model already.
  """
  encoder, params = model["encoder"], params["encoder"]
  vit.check_ours("ViViT", encoder, params)
  config = vit.their_config(encoder, "VivitModel", "vivit")
  config |= {"num_frames": encoder["frames"], "tubelet_size": list(encoder["tubelet"])}
  safetensors.write(folder, config, vit.their_tensors(encoder, params, vit.EMBED_VIDEO))
