"""What the stages with a video encoder share: its config, how it is run, and warm starts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Int32

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.models.dual_encoder import vision_tower
from vfe.models.inflate import inflated
from vfe.models.vivit import Encoder, EncoderConfig, Patches
from vfe.nn.blocks import Execution
from vfe.tokens.layout import Layout
from vfe.tokens.selection import everything
from vfe.tokens.tubes import TubeLayout

# Exports with a video encoder.
KINDS = ("mae", "encoder", "classifier", "contrast")

# What two encoders must share for the parameters of one to fit the other.
SHAPES = ("width", "depth", "heads", "mlp")


def encoder_input(setting: Any) -> Export | None:
  """A stage's input `encoder`; of contrastive training, the video tower alone.

  Raises:
    UserError: the input is of another kind.
  """
  export = setting.export("encoder", *KINDS)
  return vision_tower(export) if export is not None and export.kind == "contrast" else export


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
  have = _encoder_of(export)
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


def execution(config: ml_collections.ConfigDict, dtype: str, **changes: Any) -> Execution:
  """How the networks of a stage are run."""
  return Execution(
    dtype=dtype, remat=config.model.remat, attention=config.model.attention, **changes
  )


def first_tokens(layout: Layout | TubeLayout) -> tuple[Patches, Int32[Array, "1 t"]]:
  """A black tubelet of each latent frame, or all tubes, and where they lie: what parameters are
  drawn by."""
  if isinstance(layout, TubeLayout):
    counts = zip(layout.sizes, layout.tubes, strict=True)
    black = tuple(jnp.zeros((1, n, tube.channels), jnp.uint8) for n, tube in counts)
    return black, everything(1, layout.size)
  t = layout.grid[0]
  selection = jnp.arange(t, dtype=jnp.int32) * layout.per_frame
  return jnp.zeros((1, t, layout.channels), jnp.uint8), selection[None]


def warm_encoder(stage: Any, export: Export | None, encoder: EncoderConfig) -> dict[str, Params]:
  """The encoder's parameters from an export, those of them that the stage's encoder has.

  Learned positions are interpolated to its clips, the embedding is inflated to its tubelets.

  Raises:
    UserError: they do not fit.
  """
  if export is None:
    return {}
  fresh = jax.eval_shape(stage.init, jax.random.key(0))["model"]["encoder"]
  return {"model": {"encoder": _given(export, encoder, fresh)}}


def frozen_encoder(export: Export, encoder: EncoderConfig, dtype: str) -> Params:
  """The parameters of an encoder that is only run, in the type that it is run in.

  Raises:
    UserError: they do not fit.
  """
  patches, chosen = first_tokens(encoder.layout)
  module = Encoder(encoder)
  wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), patches, chosen)["params"])
  is_planned = isinstance(jax.tree.leaves(export.params)[0], jax.ShapeDtypeStruct)
  return as_dtype(wanted if is_planned else _given(export, encoder, wanted), dtype)


def as_dtype(params: Params, dtype: str) -> Params:
  """Parameters on the host, or shapes, in another type."""

  def leaf(of):
    if isinstance(of, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(of.shape, dtype)
    return np.asarray(of).astype(jnp.dtype(dtype))

  return jax.tree.map(leaf, params)


def _given(export: Export, encoder: EncoderConfig, wanted: Params) -> Params:
  given = inflated(export.params["encoder"], _encoder_of(export), encoder, place=export.path)
  missing = set(wanted) - set(given)
  if missing:
    raise UserError(f"{export.path}: its encoder has no {', '.join(sorted(missing))}.")
  return {name: given[name] for name in wanted}


def _encoder_of(export: Export) -> EncoderConfig:
  have = EncoderConfig.from_dict(export.model["encoder"])
  return dataclasses.replace(have, cls=have.cls and "cls" in export.params["encoder"])
