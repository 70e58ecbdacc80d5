"""What the stages with a video encoder share: its config, how it is run, and warm starts."""

import dataclasses
from typing import Any

import jax
import ml_collections

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.layout import Layout

# What two encoders must share for the parameters of one to fit the other.
SHAPES = ("tubelet", "width", "depth", "heads", "mlp")


def encoder_config(
  config: ml_collections.ConfigDict, data: ml_collections.ConfigDict, export: Export | None = None
) -> EncoderConfig:
  """The encoder of `config.model` for the clips of `data`.

  An export's own details (epsilon of its norms, positions) are kept: they belong to its weights.

  Raises:
    UserError: the export's encoder has other shapes than the config says.
  """
  model = config.model
  # Known now, not in a jitted step: whether the tubelet divides the clip.
  Layout.of_video(data.frames, data.size, tuple(model.tubelet))
  wanted = EncoderConfig.of(model.size, data.frames, data.size, tuple(model.tubelet))
  if export is None:
    return wanted
  have = EncoderConfig.from_dict(export.model["encoder"])
  for field in SHAPES:
    if getattr(have, field) != getattr(wanted, field):
      raise UserError(
        f"{export.path} has an encoder of {field}={getattr(have, field)}, config.model (size="
        f"{model.size}, tubelet={tuple(model.tubelet)}) says {getattr(wanted, field)}; set "
        "config.model to it, or give another input."
      )
  return dataclasses.replace(have, frames=wanted.frames, size=wanted.size)


def execution(config: ml_collections.ConfigDict, dtype: str, **changes: Any) -> Execution:
  """How the networks of a stage are run."""
  return Execution(
    dtype=dtype, remat=config.model.remat, attention=config.model.attention, **changes
  )


def warm_encoder(stage: Any, export: Export | None, encoder: EncoderConfig) -> dict[str, Params]:
  """The encoder's parameters from an export, those of them that the stage's encoder has."""
  if export is None:
    return {}
  encoder_config(stage.setting.config, stage.config.data, export)
  fresh = jax.eval_shape(stage.init, jax.random.key(0))["model"]["encoder"]
  given = export.params["encoder"]
  missing = set(fresh) - set(given)
  if missing:
    raise UserError(f"{export.path}: its encoder has no {', '.join(sorted(missing))}.")
  return {"model": {"encoder": {name: given[name] for name in fresh}}}
