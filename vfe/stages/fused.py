"""The networks of a stage that trains SViTT, by its config and its inputs."""

import dataclasses
from typing import Any

import ml_collections

from vfe.errors import UserError
from vfe.learn.state import Params
from vfe.models.inflate import fitted, inflated
from vfe.models.svitt import SvittConfig
from vfe.models.text import TextConfig
from vfe.models.vivit import EncoderConfig
from vfe.stages import towers
from vfe.stages.encoder import edges
from vfe.stages.stage import Setting
from vfe.tokens.pruning import Pruning

# What a BEiT of base size is (arXiv 2106.08254), besides its size.
BEIT = dict(positions="relative", layer_scale=0.1, cls=True, pixels="half", norm_eps=1e-12)


def svitt_config(setting: Setting, section: ml_collections.ConfigDict, size: int) -> SvittConfig:
  """The model of a stage; `size` is the vocabulary's.

  Raises:
    UserError: an input is of another shape than the config asks for.
  """
  model = setting.config.model
  given = setting.export("text", *towers.TEXT)
  text = TextConfig.of(model.text, size) if given is None else towers.text_config(given)
  if not 0 < model.fused < text.depth:
    raise UserError(
      f"config.model.fused={model.fused}: the text encoder has {text.depth} layers, of which some "
      "read the video and some do not; use 1 or more, and fewer than that."
    )
  return SvittConfig(
    vision_config(setting, section), text, model.joint, model.fused, model.pool,
    pruning(setting, section, "fused_pruning", model.fused), section.temperature,
  )  # fmt: skip


def vision_config(setting: Setting, section: ml_collections.ConfigDict) -> EncoderConfig:
  """BEiT over a clip; what belongs to the weights of an input is the input's."""
  model, data = setting.config.model, section.data
  want = EncoderConfig.of(model.size, data.frames, data.size, tuple(model.tubelet), **BEIT)
  export = setting.export("encoder", *towers.VISION)
  want = want if export is None else fitted(towers.trained_vision(export), want)
  kept = pruning(setting, section, "pruning", want.depth)
  want = dataclasses.replace(want, edges=edges(section), pruning=kept)
  want.layout  # noqa: B018  an error of the tubelet now, not in a jitted step
  return want


def pruning(
  setting: Setting, section: ml_collections.ConfigDict, name: str, depth: int
) -> Pruning | None:
  """Which tokens go on in `depth` layers, by a part of the config; keep=1: all.

  Raises:
    UserError: it makes no sense; the error names it.
  """
  asked = section[name]
  if asked.keep == 1.0:
    return None
  try:
    found = Pruning(tuple(asked.after), asked.keep, asked.by)
    found.parts(depth)
  except UserError as error:
    raise UserError(f"config.{setting.name}.{name}.{error}") from None
  return found


def warm(setting: Setting, config: SvittConfig) -> Params:
  """What of the networks begins as the inputs have it."""
  found: dict[str, Any] = {}
  vision, text = setting.export("encoder", *towers.VISION), setting.export("text", *towers.TEXT)
  if vision is not None:
    have = towers.trained_vision(vision)
    found["vision"] = inflated(towers.tower(vision), have, config.vision, place=vision.path)
    if vision.kind == "svitt":
      found |= _both(vision, config)
    elif config.pool == "mean" and "pool_norm" in vision.params:
      found["pool_norm"] = vision.params["pool_norm"]
  if text is not None:
    found["text"] = text.params["text"] | (
      {"head": text.params["head"]} if "head" in text.params else {}
    )
  return found


def _both(export: Any, config: SvittConfig) -> Params:
  """Of a stage of this kind, what is neither of the two encoders."""
  have = SvittConfig.from_dict(export.model["svitt"])
  for field in ("width", "fused", "pool"):
    if getattr(have, field) != getattr(config, field):
      key = {"width": "joint"}.get(field, field)
      raise UserError(
        f"{export.path} was trained with model.{key}={getattr(have, field)}, the config says "
        f"{getattr(config, field)}; set config.model.{key} to it."
      )
  return {name: of for name, of in export.params.items() if name not in ("vision", "text")}
