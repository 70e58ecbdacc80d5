"""The video transformer: an encoder of selected tubelets."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from vfe.errors import UserError
from vfe.nn import relative
from vfe.nn.attention import over_rows
from vfe.nn.blocks import ACTIVATIONS, Block, Execution, Stack, make_stack, norm
from vfe.nn.factorised import FactorisedBlock, Places, fold, unfold
from vfe.nn.positions import sincos1d, sincos3d
from vfe.nn.random import key
from vfe.nn.sparse_block import Meeting, SparseBlock
from vfe.tokens.edges import Edges, all_edges, pattern
from vfe.tokens.layout import Layout
from vfe.tokens.pruning import Pruning
from vfe.tokens.selection import gather_tokens
from vfe.tokens.tubes import Tube, TubeLayout

SIZES = {
  "test": dict(width=32, depth=3, heads=2, mlp=64),
  "demo": dict(width=64, depth=4, heads=2, mlp=256),
  "s": dict(width=384, depth=12, heads=6, mlp=1536),
  "b": dict(width=768, depth=12, heads=12, mlp=3072),
  "l": dict(width=1024, depth=24, heads=16, mlp=4096),
}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Mean and deviation of pixels in [0, 1] that an encoder takes for 0 and 1.
PIXELS = {
  "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
  "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
  "half": ((0.5,) * 3, (0.5,) * 3),  # ViT's, SigLIP's
}

# Those of "relative" are in the attention: a bias for every offset between two tokens.
POSITIONS = ("sincos1d", "sincos3d", "learned", "relative")

# Which tokens meet in a layer: all; those of a frame and then those of a site; those of a frame.
MIXING = {"joint": Block, "factorised": FactorisedBlock, "frame": Block}

# transformers' norms before a head have torch's default; the original VideoMAE's have 1e-6.
HEAD_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """What an encoder is. `dataclasses.asdict` of it is JSON-able, `from_dict` reads that.

  frames and size (pixels) fix the layout; of the parameters only learned positions depend on it.
  positions, mixing, activation and pixels are names in the tables of this module and of
  `vfe.nn.blocks`. cls: a class token, the first of the tokens, or with mixing=frame one a frame.
  pre_norm: a norm before the blocks, CLIP's. images: a second embedding, of images, whose tokens
  have the same height and width; all else is shared. adapter: the middle of the adapter after each
  MLP, lora: the rank added to each product of the blocks, 0 for none. tubes: kernels in place of
  the tubelet, each with its own embedding (TubeViT), at fixed positions; an image then has those of
  one frame. layer_scale: as `Block`'s. edges: which tokens meet, by blocks; None, all. pruning:
  which go on after some layers. Neither has parameters.
  """

  frames: int
  size: int
  tubelet: tuple[int, int, int]
  width: int
  depth: int
  heads: int
  mlp: int
  norm_eps: float = 1e-6
  final_norm: bool = True
  positions: str = "sincos1d"
  mixing: str = "joint"
  cls: bool = False
  pre_norm: bool = False
  activation: str = "gelu"
  images: bool = False
  pixels: str = "imagenet"
  adapter: int = 0
  lora: int = 0
  tubes: tuple[Tube, ...] = ()
  layer_scale: float = 0.0
  edges: Edges | None = None
  pruning: Pruning | None = None

  def __post_init__(self):
    if self.width % self.heads or self.width % 2:
      raise UserError(
        f"width={self.width} is not even or not divisible by heads={self.heads}; change one."
      )
    lookup(dict.fromkeys(POSITIONS), self.positions, "positions")
    lookup(MIXING, self.mixing, "mixing")
    lookup(ACTIVATIONS, self.activation, "activation")
    lookup(PIXELS, self.pixels, "pixels")
    if self.cls and self.mixing == "factorised":
      raise UserError("mixing='factorised' has no place for a class token; set cls=False.")
    if self.meets and (self.mixing != "joint" or self.tubes):
      raise UserError(
        f"{', '.join(self.meets)} with mixing={self.mixing!r}{' and tubes' * bool(self.tubes)}: "
        "they are of tokens in one grid that all meet; use mixing='joint' and no tubes."
      )
    if self.pruning:
      self.pruning.parts(self.depth)
      if self.pruning.by == "cls_attention" and not self.cls:
        raise UserError("pruning.by='cls_attention' without a class token; set cls=True.")
    if self.tubes:
      self._check_tubes()
    elif self.images and (self.tubelet[0] == 1 or self.positions != "learned"):
      raise UserError(
        f"images=True with tubelet={self.tubelet} and positions={self.positions!r}: an embedding "
        "of images beside that of videos is for tubelets of several frames and learned positions."
      )

  def _check_tubes(self) -> None:
    if self.mixing != "joint" or self.positions != "sincos3d":
      raise UserError(
        f"tubes with mixing={self.mixing!r} and positions={self.positions!r}: they lie in no grid; "
        "use mixing='joint' and positions='sincos3d'."
      )
    if self.images and not 0 < len(_flat(self.tubes)) < len(self.tubes):
      raise UserError("images=True with tubes: some of the kernels must have one frame, not all.")

  @classmethod
  def of(
    cls,
    /,  # a field has this name too
    name: str,
    frames: int,
    size: int,
    tubelet: tuple[int, int, int] = (2, 16, 16),
    **changes: Any,
  ) -> "EncoderConfig":
    """The encoder of a named size (`SIZES`); changes are of other fields.

    Raises:
      UserError: there is no such size.
    """
    shape = lookup(SIZES, name, "model.size")
    return cls(frames=frames, size=size, tubelet=tuple(tubelet), **(shape | changes))

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> "EncoderConfig":
    """The inverse of `dataclasses.asdict`, also after JSON has made lists of the tuples."""
    tubes = tuple(
      Tube(**{name: tuple(of) for name, of in tube.items()}) for tube in fields.get("tubes", ())
    )
    edges, pruning = fields.get("edges"), fields.get("pruning")
    changes = {
      "tubelet": tuple(fields["tubelet"]),
      "tubes": tubes,
      "edges": edges and Edges(**edges),
      "pruning": pruning and Pruning(**{**pruning, "after": tuple(pruning["after"])}),
    }
    return cls(**{**fields, **changes})

  @property
  def meets(self) -> tuple[str, ...]:
    """What of this config asks for blocks that know where their tokens lie (`SparseBlock`)."""
    asked = {
      "positions='relative'": self.positions == "relative",
      "edges": self.edges is not None,
      "pruning": self.pruning is not None,
    }
    return tuple(name for name, is_asked in asked.items() if is_asked)

  def classes(self, frames: int | None = None) -> int:
    """Class tokens, which come first of an encoder's: one, or one of each latent frame, or none."""
    if self.mixing != "frame":
      return int(self.cls)
    return self.cls * (self.layout.grid[0] if frames is None else frames)

  @property
  def layout(self) -> Layout | TubeLayout:
    """The layout of the clips that the encoder is made for."""
    if self.tubes:
      return TubeLayout.of_video(self.frames, self.size, self.tubes)
    return Layout.of_video(self.frames, self.size, self.tubelet)

  @property
  def image_layout(self) -> Layout | TubeLayout:
    """The layout of a single image."""
    if self.tubes:
      return TubeLayout.of_video(1, self.size, _flat(self.tubes))
    return Layout.of_video(1, self.size, (1, *self.tubelet[1:]))


def _flat(tubes: tuple[Tube, ...]) -> tuple[Tube, ...]:
  """Those of one frame."""
  return tuple(tube for tube in tubes if tube.kernel[0] == 1)


# What `gather_tubelets` gives: one array, or with tubes one a kernel of the layout.
Patches = Shaped[Array, "B K P"] | tuple[Shaped[Array, "B _ _"], ...]


class Encoder(nn.Module):
  """A ViT on the selected tubelets of a clip, or on the selected patches of an image."""

  config: EncoderConfig
  execution: Execution = Execution()

  @nn.compact
  def __call__(
    self,
    patches: Patches,
    selection: Int[Array, "B K"],
    keys: Key[Array, "B"] | None = None,
    frames: int | None = None,
    rng: Key[Array, ""] | None = None,
  ) -> Float[Array, "B N D"]:
    """Encodes the selected tokens; the others do not exist.

    patches are `gather_tubelets` of the video, or with `images` of an image: uint8, which is
    normalised here, or float, which is taken as it is. keys, one a row, turn drop path on. Unless
    mixing is joint, the selection holds the same number of tokens in each of `frames` latent
    frames, by default in all. rng: of random edges, drawn anew from it in every layer; without,
    they are the same each time.

    Returns:
      a token for each that is selected, after the class tokens (one, or one of each frame) of an
      encoder that has such. With pruning only those that are left; which ones these are after each
      pruning layer is sown as `kept`, int32[B, K] into the layout, in "intermediates".
    """
    config, run = self.config, self.execution
    layout, places = config.layout, None
    if config.tubes:
      tokens = self._embedded_tubes(patches, selection)
    else:
      is_image = config.images and patches.shape[-1] == config.image_layout.channels
      layout = config.image_layout if is_image else layout
      frames = layout.grid[0] if frames is None else frames
      tokens = over_rows(self._embedded(patches, selection, is_image))
      places = Places(selection, frames, (layout.grid[0], layout.per_frame))
    if config.mixing == "frame":
      tokens = fold(tokens, frames)
      keys = None if keys is None else jnp.repeat(keys, frames)
    if config.cls:
      token = self.param("cls", nn.initializers.truncated_normal(0.02), (config.width,))
      token = jnp.broadcast_to(token.astype(tokens.dtype), (len(tokens), 1, config.width))
      tokens = jnp.concatenate([token, tokens], axis=1)
    if config.pre_norm:
      tokens = norm(config.norm_eps, run.dtype, "pre_norm")(tokens)
    stack = encoder_stack(config, run)
    blocks = self.param("blocks", stack.init)
    if config.meets:
      tokens = self._met(stack, blocks, tokens, selection, keys, rng)
    else:
      tokens = stack.apply(blocks, tokens, keys, places)
    if config.mixing == "frame":
      classes, tokens = tokens[:, : config.cls], unfold(tokens[:, config.cls :], frames)
      tokens = jnp.concatenate([unfold(classes, frames), tokens], axis=1)
    if config.final_norm:
      tokens = norm(config.norm_eps, run.dtype, "norm")(tokens)
    return jax.lax.stop_gradient(tokens) if run.first_trained >= config.depth else tokens

  @nn.nowrap
  def _met(self, stack: Stack, blocks, tokens, selection, keys, rng) -> Float[Array, "B N D"]:
    """All layers, in runs of equally many tokens: they are cut where some do not go on."""
    config = self.config
    rng = jax.random.key(0) if rng is None else rng
    pruning, of_rows = config.pruning or Pruning(after=()), keys
    if of_rows is None:  # without keys nothing differs between rows
      of_rows = jnp.broadcast_to(key(rng, "pruning"), (len(tokens),))
    for start, stop in pruning.parts(config.depth):
      where, patterns = meeting(config, selection, rng, start, stop)
      tokens, scores = stack.apply_part(blocks, tokens, start, stop, patterns, keys, where)
      if stop - 1 not in pruning.after:
        continue
      drawn = jax.vmap(jax.random.fold_in, (0, None))(of_rows, stop)
      kept = pruning.select(scores[-1], drawn)
      selection = gather_tokens(selection, kept)
      self.sow("intermediates", "kept", selection)
      cls, others = tokens[:, : config.cls], tokens[:, config.cls :]
      tokens = jnp.concatenate([cls, gather_tokens(others, kept)], axis=1)
    return tokens

  def _embedded(
    self, patches: Shaped[Array, "B K P"], selection: Int[Array, "B K"], is_image: bool
  ) -> Float[Array, "B K D"]:
    """Patches and positions; the embedding of the other kind has its parameters all the same."""
    config, dtype = self.config, self.execution.dtype
    pixels = normalise(patches, config.pixels)
    embed = Embed(config.layout.channels, config.width, dtype, name="embed")
    if config.images:
      of_images = Embed(config.image_layout.channels, config.width, dtype, name="embed_image")
      (embed if is_image else of_images)(None)
      embed = of_images if is_image else embed
    tokens = embed(pixels)
    if config.positions == "relative":
      return tokens
    if config.positions != "learned":
      return tokens + position(config, selection, config.width).astype(tokens.dtype)
    table = self.param(
      "position",
      nn.initializers.truncated_normal(0.02),
      (config.layout.grid[0], config.layout.per_frame, config.width),
    )
    # An image is at all times: repeated over time, the table of an image encoder is this again.
    table = table.mean(0) if is_image else table.reshape(-1, config.width)
    return tokens + table[selection].astype(tokens.dtype)

  def _embedded_tubes(
    self, patches: tuple[Shaped[Array, "B _ _"], ...], selection: Int[Array, "B K"]
  ) -> Float[Array, "B K D"]:
    """As `_embedded`, of kernels, each with an embedding of its own."""
    config, tokens = self.config, []
    is_image = len(patches) < len(config.tubes)
    layout = config.image_layout if is_image else config.layout
    given = dict(zip(layout.tubes, patches, strict=True))
    for i, tube in enumerate(config.tubes):
      embed = Embed(tube.channels, config.width, self.execution.dtype, name=f"embed_{i}")
      here = given.get(tube)
      found = embed(None if here is None else normalise(here, config.pixels))
      tokens += [] if found is None else [found]
    whole = jnp.concatenate(tokens, axis=1)
    places = jnp.moveaxis(jnp.asarray(layout.centres())[selection], -1, 0)
    halves = tuple(2 * side for side in layout.video)
    return whole + sincos3d(tuple(places), halves, config.width, unit=0.5).astype(whole.dtype)


class Embed(nn.Module):
  """A linear layer of a known number of values, which has its parameters also when not called
  upon: `None` gives None."""

  values: int
  width: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, patches: Float[Array, "B K P"] | None) -> Float[Array, "B K D"] | None:
    init = nn.initializers.xavier_uniform()
    kernel = self.param("kernel", init, (self.values, self.width))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
    if patches is None:
      return None
    return patches.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


def encoder_stack(config: EncoderConfig, execution: Execution) -> Stack:
  """The blocks of an encoder."""
  kind, more = MIXING[config.mixing], {}
  if config.meets:
    kind = SparseBlock
    entries = relative.entries(config.layout.grid) if config.positions == "relative" else 0
    more = {"relative": entries, "scored": config.pruning is not None and config.cls}
  return make_stack(
    config.width,
    config.depth,
    config.heads,
    config.mlp,
    config.norm_eps,
    execution,
    kind,
    activation=config.activation,
    adapter=config.adapter,
    lora=config.lora,
    layer_scale=config.layer_scale,
    **more,
  )


def meeting(
  config: EncoderConfig, selection: Int[Array, "B K"], rng: Key[Array, ""], start: int, stop: int
) -> tuple[Meeting, Int[Array, "L M J"]]:
  """How the selected tokens meet in the layers [start, stop), and each layer's pattern."""
  n, layout, codes = selection.shape[1], config.layout, None
  edges = config.edges or (all_edges(n) if config.positions == "relative" else None)
  if config.positions == "relative":
    # Where all tokens are there, those of one row are those of all: so is the bias, then.
    rows = selection[:1] if n == layout.size else selection
    codes = relative.codes(layout.places(rows), layout.grid)
  layers = jnp.arange(start, stop)
  if edges is None:
    return Meeting(codes, 0, int(config.cls)), jnp.zeros((len(layers), 0, 0), jnp.int32)
  patterns = jax.vmap(lambda layer: pattern(rng, layer, n, edges))(layers)
  return Meeting(codes, edges.size, int(config.cls)), patterns


def normalise(
  patches: Shaped[Array, "*B P"], pixels: str = "imagenet"
) -> Float[Array, "*B P"]:
  """uint8 tubelets to float32 of mean 0 and deviation 1, by `PIXELS`; float ones as they are."""
  if patches.dtype != jnp.uint8:
    return patches
  repeats = patches.shape[-1] // 3
  mean, std = (np.tile(np.float32(of), repeats) for of in PIXELS[pixels])
  return (patches.astype(jnp.float32) / 255.0 - mean) / std


def position(
  config: EncoderConfig, selection: Int[Array, "B K"], width: int
) -> Float[Array, "B K {width}"]:
  """The fixed positions of the selected tokens; the decoder's have a width of their own.

  The decoder of an encoder whose positions are learned has VideoMAE's.
  """
  layout = config.layout
  if config.positions == "sincos3d":
    return sincos3d(layout.places(selection), layout.grid, width)
  return sincos1d(selection, width, layout.size)


def lookup(table: Mapping[str, Any], name: str, field: str) -> Any:
  """An entry of a table that is named in a config.

  Raises:
    UserError: no such entry; names the nearest.
  """
  if name in table:
    return table[name]
  near = difflib.get_close_matches(str(name), table, n=1)
  hint = f"did you mean {near[0]}?" if near else f"use {', '.join(table)}."
  raise UserError(f"{field}={name!r} is unknown; {hint}")
