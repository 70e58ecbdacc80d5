"""The encoder of an export, as what another is run with, or begins to be trained with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.models.inflate import inflated
from vfe.models.vivit import Encoder, EncoderConfig, Patches
from vfe.tokens.layout import Layout
from vfe.tokens.selection import everything
from vfe.tokens.tubes import TubeLayout


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


def frozen_encoder(export: Export, encoder: EncoderConfig, dtype: str) -> Params:
  """The parameters of an encoder that is only run, in the type that it is run in.

  Raises:
    UserError: they do not fit.
  """
  patches, chosen = first_tokens(encoder.layout)
  module = Encoder(encoder)
  wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), patches, chosen)["params"])
  is_planned = isinstance(jax.tree.leaves(export.params)[0], jax.ShapeDtypeStruct)
  return as_dtype(wanted if is_planned else given_encoder(export, encoder, wanted), dtype)


def as_dtype(params: Params, dtype: str) -> Params:
  """Parameters on the host, or shapes, in another type."""

  def leaf(of):
    if isinstance(of, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(of.shape, dtype)
    return np.asarray(of).astype(jnp.dtype(dtype))

  return jax.tree.map(leaf, params)


def given_encoder(export: Export, encoder: EncoderConfig, wanted: Params) -> Params:
  """The encoder's parameters from an export, as `wanted` names them.

  Learned positions are interpolated to its clips, the embedding is inflated to its tubelets.

  Raises:
    UserError: they do not fit.
  """
  given = inflated(export.params["encoder"], trained_encoder(export), encoder, place=export.path)
  missing = set(wanted) - set(given)
  if missing:
    raise UserError(f"{export.path}: its encoder has no {', '.join(sorted(missing))}.")
  return {name: given[name] for name in wanted}


def trained_encoder(export: Export) -> EncoderConfig:
  """The config of an export's encoder, with a class token where its parameters have one."""
  have = EncoderConfig.from_dict(export.model["encoder"])
  return dataclasses.replace(have, cls=have.cls and "cls" in export.params["encoder"])
