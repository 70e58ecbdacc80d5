"""Vision towers of Hugging Face SigLIP folders in: SiglipModel and SiglipVisionModel.

The pooling head, the text tower, temperature and bias are left out: there is no class token, and
what is read gives the patches' tokens, transformers' last_hidden_state.
"""

import pathlib
from typing import Any

from vfe.interop import clip, towers
from vfe.interop.safetensors import Weights

EMBED = (*clip.KERNEL, ("embeddings.patch_embedding.bias", "embed/bias", "d"))

# transformers' own, which a config.json may leave out.
DEFAULTS = clip.DEFAULTS | dict(
  patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("encoder", model, params) of an export, as `vfe.interop.clip.read_export`.

  Pixels have mean and deviation 0.5 where the folder has no image processor that says otherwise.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a SigLIP we have no model for.
  """
  folder = pathlib.Path(folder)
  config = clip.vision_config(folder, "siglip", DEFAULTS)
  model = clip.encoder_fields(folder, config) | {"pixels": towers.pixels(folder, "half")}
  weights = Weights(folder)
  part, sizes, n = clip.layout(weights, model)
  table = weights.take(part + "embeddings.position_embedding.weight", (n, model["width"]))
  params = {
    **towers.tensors(weights, (*EMBED, *clip.NORM), sizes, part),
    "position": table[None],
    "blocks": towers.layers(
      weights, clip.BLOCK, sizes, part + "encoder.layers.{}.", model["depth"]
    ),
  }
  return "encoder", {"encoder": model}, {"encoder": params}
