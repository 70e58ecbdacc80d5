"""What an encoder begins with that another has trained: images to video, short clips to long.

LongViViT 3.1: the patch embedding of images is repeated over a tubelet's frames, temporal attention
begins as a copy of the spatial one. Positions are ViViT's (repeated over time) and MC-ViT's
(interpolated linearly from short to long clips); relative ones are SViTT's, blind to time at first.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.config import choose
from vfe.errors import UserError
from vfe.learn.state import Params
from vfe.models.vivit import EncoderConfig
from vfe.nn import relative

INFLATIONS = ("repeat", "central")

# What of a field two encoders must share, or the parameters of one do not fit the other.
SAME = {
  **dict.fromkeys(("width", "depth", "heads", "mlp", "activation", "pre_norm"), lambda of: of),
  "layer_scale": bool,
  "positions": lambda kind: kind == "relative",
}


def inflated(
  params: Params, have: EncoderConfig, want: EncoderConfig, *, place: str, how: str = "repeat"
) -> Params:
  """Parameters of the encoder `want` from those of `have`: all that can be had of them.

  What `have` has nothing for (adapters, low-rank products, the gate of temporal attention, a norm
  at the end) is left out and begins fresh.

  Args:
    params: of `have`, float32.
    have: what they are trained as: an encoder of images (tubelets of one frame), or of clips of any
      length.
    want: what they are to begin.
    place: where they come from, for errors.
    how: what the embedding of images becomes over a tubelet's frames: "repeat" (the weights over
      the number of frames, so that a still clip gives the image's tokens), or "central" (all of
      them at the middle frame; ViViT's, 1.6 points better there on Kinetics-400).

  Raises:
    UserError: they do not fit, by field.
  """
  choose(dict.fromkeys(INFLATIONS), how, "inflate")
  for field, of in SAME.items():
    mine, asked = getattr(have, field), getattr(want, field)
    if of(mine) != of(asked):
      raise UserError(
        f"{place} has an encoder of {field}={mine}, config.model asks for {asked}; set "
        "config.model to it, or give another input."
      )
  if want.tubes or have.tubes:
    found = _tubes(params, have, want, place, how)
  else:
    found = {"embed": _embedding(params["embed"], have.tubelet, want.tubelet, place, how)}
  if want.images and not want.tubes:
    found["embed_image"] = params["embed_image"] if have.images else _image(params, have, place)
  if want.positions == "learned":
    if have.positions != "learned":
      raise UserError(
        f"{place} has fixed positions ({have.positions}); set config.model.positions to that."
      )
    found["position"] = positions(jnp.asarray(params["position"]), want.layout.grid)
  optional = [("cls", want.cls), ("pre_norm", want.pre_norm), ("norm", want.final_norm)]
  found |= {name: params[name] for name, wanted in optional if wanted and name in params}
  found["blocks"] = _blocks(params["blocks"], have, want)
  return found


def fitted(have: EncoderConfig, want: EncoderConfig) -> EncoderConfig:
  """`want` with the details of `have` that belong to its weights and are no matter of choice."""
  kept = ["norm_eps", "activation", "pixels", "pre_norm", "layer_scale"]
  kept += [] if want.tubes else ["positions"]  # tubes lie at fixed ones
  return dataclasses.replace(want, **{field: getattr(have, field) for field in kept})


def positions(
  table: Float[Array, "t n D"], grid: tuple[int, int, int]
) -> Float[Array, "t2 n2 D"]:
  """Learned positions for another grid (t, h, w): linear between latent frames, repeated past the
  ends, so that one of an image is repeated; bicubic over a square picture."""
  frames, sites, width = table.shape
  t, h, w = grid
  if sites != h * w:
    side = round(sites**0.5)
    square = table.reshape(frames, side, side, width)
    table = jax.image.resize(square, (frames, h, w, width), "bicubic").reshape(frames, h * w, width)
  if frames == t:
    return table
  return jax.image.resize(table, (t, h * w, width), "linear")


def relative_tables(
  tables: Float[Array, "L R H"], have: tuple[int, int, int], want: tuple[int, int, int]
) -> Float[Array, "L R2 H"]:
  """Every layer's table of relative positions of a grid (t, h, w) for another: those of an image
  for all offsets in time, of a clip the nearest in time; BEiT's interpolation over the picture."""
  if have[1:] != want[1:]:
    tables = jnp.stack([relative.rescaled(table, have, want[1:]) for table in tables])
  return jax.vmap(lambda table: relative.resized(table, have[0], want[0]))(tables)


def _embedding(embed: Params, have, want, place: str, how: str) -> Params:
  """A kernel for tubelets of `want` from one for `have`: more frames, or wider by whole times.

  What is made wider is the embedding of the picture shrunk by as much.
  """
  times = [b // a for a, b in zip(have, want, strict=True)]
  if any(b % a for a, b in zip(have, want, strict=True)) or times[1] != times[2]:
    raise UserError(
      f"{place} embeds tubelets of {tuple(have)}; they cannot become {tuple(want)}, which is no "
      "multiple: set config.model.tubelet to one, or give another input."
    )
  kernel = np.asarray(embed["kernel"]).reshape(*have, 3, -1)
  if how == "central" and times[0] > 1:
    whole = np.zeros((times[0], *kernel.shape), kernel.dtype)
    whole[times[0] // 2] = kernel
    kernel = whole.reshape(want[0], *kernel.shape[1:])
  else:
    kernel = np.tile(kernel, (times[0], 1, 1, 1, 1)) / times[0]
  kernel = np.repeat(np.repeat(kernel, times[1], 1), times[2], 2) / (times[1] * times[2])
  return {"kernel": kernel.reshape(-1, kernel.shape[-1]).astype(np.float32), "bias": embed["bias"]}


def _tubes(params: Params, have: EncoderConfig, want: EncoderConfig, place: str, how: str):
  """An embedding for each kernel of `want`: that of the same kernel, else the tubelet's, or the
  shortest kernel's, of the picture enlarged or shrunk to its size and inflated in time."""
  if not want.tubes:
    raise UserError(f"{place} embeds tubes, config.model has none; set config.model.tubes.")
  if have.tubes:
    given = {tube.kernel: params[f"embed_{i}"] for i, tube in enumerate(have.tubes)}
  else:
    given = {have.tubelet: params["embed"]}
  shortest = min(given)
  found = {}
  for i, (t, h, w) in enumerate(tube.kernel for tube in want.tubes):
    if (t, h, w) in given:
      found[f"embed_{i}"] = given[t, h, w]
      continue
    kernel = np.asarray(given[shortest]["kernel"]).reshape(*shortest, 3, -1)
    rows, columns = _overlap(shortest[1], h), _overlap(shortest[2], w)
    kernel = np.einsum("yh,xw,thwcd->tyxcd", rows, columns, kernel)
    embed = {**given[shortest], "kernel": kernel.reshape(-1, kernel.shape[-1])}
    found[f"embed_{i}"] = _embedding(embed, (shortest[0], h, w), (t, h, w), place, how)
  return found


def _overlap(have: int, want: int) -> Float[np.ndarray, "{want} {have}"]:
  """The share of each of `have` equal parts of a line in each of `want`."""
  ends = lambda n: np.arange(n + 1) / n
  mine, theirs = ends(want)[:, None], ends(have)
  return have * np.clip(np.minimum(mine[1:], theirs[1:]) - np.maximum(mine[:-1], theirs[:-1]), 0, 1)


def _image(params: Params, have: EncoderConfig, place: str) -> Params:
  if have.tubelet[0] != 1:
    raise UserError(
      f"{place} embeds tubelets of {have.tubelet[0]} frames and no images; leave the images out of "
      "the mixture, or begin with an encoder of images."
    )
  return params["embed"]


def _blocks(blocks: Params, have: EncoderConfig, want: EncoderConfig) -> Params:
  found = dict(blocks)
  if want.mixing == "factorised" and have.mixing != "factorised":
    found["temporal"], found["temporal_norm"] = blocks["attention"], blocks["attention_norm"]
  if have.mixing == "factorised" and want.mixing != "factorised":
    for name in ("temporal", "temporal_norm", "gate"):
      found.pop(name)
  if want.positions == "relative":
    grids = have.layout.grid, want.layout.grid
    found["relative"] = relative_tables(jnp.asarray(blocks["relative"]), *grids)
  return found
