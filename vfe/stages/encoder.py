"""What the stages with a video encoder share: its config, how it is run, and warm starts."""

import dataclasses
from typing import Any

import jax
import ml_collections

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.models.dual_encoder import vision_tower
from vfe.models.frozen import given_encoder, trained_encoder
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.edges import Edges
from vfe.tokens.layout import Layout

# Exports with a video encoder.
KINDS = ("mae", "encoder", "classifier", "contrast", "svitt")

# What two encoders must share for the parameters of one to fit the other.
SHAPES = ("width", "depth", "heads", "mlp")


def encoder_input(setting: Any) -> Export | None:
  """A stage's input `encoder`; of contrastive training, the video tower alone.

  Raises:
    UserError: the input is of another kind.
  """
  export = setting.export("encoder", *KINDS)
  return export and vision_tower(export)


def encoder_config(
  config: ml_collections.ConfigDict, data: ml_collections.ConfigDict, export: Export | None = None
) -> EncoderConfig:
  """The encoder of `config.model` for the clips of `data`.

  An export's own details (epsilon of its norms, kind of positions, class token, what meets) are
  kept: they belong to its weights. Of those for images beside videos nothing is.

  Raises:
    UserError: the export's encoder has other shapes than the config says.
  """
  model = config.model
  # Known now, not in a jitted step: whether the tubelet divides the clip.
  Layout.of_video(data.frames, data.size, tuple(model.tubelet))
  wanted = EncoderConfig.of(model.size, data.frames, data.size, tuple(model.tubelet))
  if export is None:
    return wanted
  have = trained_encoder(export)
  if have.tubes:
    raise UserError(
      f"{export.path} embeds tubes, which only stages of kind contrast take; give another input."
    )
  for field in SHAPES:
    if getattr(have, field) != getattr(wanted, field):
      raise UserError(
        f"{export.path} has an encoder of {field}={getattr(have, field)}, config.model (size="
        f"{model.size}, tubelet={tuple(model.tubelet)}) says {getattr(wanted, field)}; set "
        "config.model to it, or give another input."
      )
  of_clips = {"frames": wanted.frames, "size": wanted.size, "tubelet": wanted.tubelet}
  return dataclasses.replace(have, **of_clips, images=False)


def of_all_tokens(encoder: EncoderConfig) -> EncoderConfig:
  """The same for a stage that asks for each token that enters. Pruning, which has no parameters,
  is left out."""
  return dataclasses.replace(encoder, pruning=None)


def notes(export: Export | None) -> list[str]:
  """That `of_all_tokens` changes an input, where it does."""
  pruning = export and EncoderConfig.from_dict(export.model["encoder"]).pruning
  if not pruning:
    return []
  layers = ", ".join(map(str, pruning.after))
  return [
    f"the encoder of {export.path} was trained with tokens left out after layers {layers}; here "
    "all go on"
  ]


def edges(section: ml_collections.ConfigDict) -> Edges | None:
  """Which tokens meet in a stage's encoder, by its `edges`; with size=0, None: all of them."""
  return Edges(**section.edges) if section.edges.size else None


def execution(config: ml_collections.ConfigDict, dtype: str, **changes: Any) -> Execution:
  """How the networks of a stage are run."""
  return Execution(
    dtype=dtype, remat=config.model.remat, attention=config.model.attention, **changes
  )


def warm_encoder(stage: Any, export: Export | None, encoder: EncoderConfig) -> dict[str, Params]:
  """The encoder's parameters from an export, those of them that the stage's encoder has.

  Learned positions are interpolated to its clips, the embedding is inflated to its tubelets.

  Raises:
    UserError: they do not fit.
  """
  if export is None:
    return {}
  fresh = jax.eval_shape(stage.init, jax.random.key(0))["model"]["encoder"]
  return {"model": {"encoder": given_encoder(export, encoder, fresh)}}
