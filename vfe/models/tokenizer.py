"""The adaptive tokenizer of LVMAE (arXiv 2411.13683, 3.3): MAGVIT, FSQ and a token scorer.

Training keeps the tokens that change most: the others are set to zero *before* quantisation, so the
decoder sees them as the middle code and the scorer gets a gradient. At use every position has its
latent, and the importance goes beside it. Clips longer than the window are tokenized window by
window, one after another, so memory does not grow with the clip.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vfe.errors import UserError
from vfe.models import fsq, magvit
from vfe.models.scorer import Scorer
from vfe.nn.topk import TOPK

Params = Mapping[str, Any]

ENCODING = ("encoder", "scorer")  # the parameters that `tokenize_clip` reads; the rest draws


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
  """What the tokenizer is made of. JSON-able: `TokenizerConfig(**json.loads(...))` is equal to it.

  The defaults are MAGVIT-B with LVMAE's grid: 16x224x224 becomes 8x14x14 tokens of 18 bits.
  """

  filters: int = 64  # MAGVIT-B; L and H have 128
  multipliers: Sequence[int] = (1, 2, 2, 4, 4)  # one a stage; MAGVIT's (1, 2, 2, 4) and one more
  temporal_downsample: Sequence[bool] = (True, False, False, False)  # one between two stages
  res_blocks: int = 2
  levels: Sequence[int] = (8,) * 6  # 18 bits (paper A.1); the split over dimensions is ours
  window: int = 16  # frames tokenized at a time
  scorer_channels: Sequence[int] = (64, 128)  # not in the paper
  keep: float = 768 / 1568  # share of all tokens kept in training, besides the first frame's
  first_frame_kept: bool = True  # paper 3.3
  first_frame_counted: bool = False  # whether the first frame's tokens count inside `keep`
  topk: str = "straight_through"  # or "soft"; the paper does not name its own
  remat_stages: int = 0  # stages whose blocks are recomputed backwards, from the largest grid

  def __post_init__(self):
    for field in ("multipliers", "temporal_downsample", "levels", "scorer_channels"):
      object.__setattr__(self, field, tuple(getattr(self, field)))
    fsq.check_levels(self.levels, "tokenizer levels")
    if len(self.temporal_downsample) != len(self.multipliers) - 1:
      raise UserError(
        f"tokenizer temporal_downsample={self.temporal_downsample} needs one entry between two of "
        f"the {len(self.multipliers)} stages of multipliers={self.multipliers}."
      )
    frames = self.tubelet[0]
    if self.window % frames or self.window // frames < 2:
      raise UserError(
        f"tokenizer window={self.window} must hold two or more latent frames of {frames} frames."
      )
    if self.topk not in TOPK:
      raise UserError(f"tokenizer topk={self.topk!r} is unknown; use one of {', '.join(TOPK)}.")
    least = frames / self.window if self.first_frame_kept and self.first_frame_counted else 0.0
    if not least <= self.keep <= 1:
      raise UserError(f"tokenizer keep={self.keep} must be a share between {least:g} and 1.")

  @property
  def tubelet(self) -> tuple[int, int, int]:
    """Frames, rows and columns of video a token stands for."""
    space = 2 ** len(self.temporal_downsample)
    return 2 ** sum(self.temporal_downsample), space, space

  @property
  def channels(self) -> int:
    """Numbers a token: the d of `[..., d]` everywhere."""
    return len(self.levels)

  def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """The token grid of a clip; UserError if it does not divide into windows and tubelets."""
    if frames % self.window or not frames:
      raise UserError(
        f"data.frames={frames} is not divisible by the tokenizer's window of {self.window} frames; "
        f"use {_nearest(frames, self.window)}."
      )
    for size in (height, width):
      if size % self.tubelet[1] or not size:
        raise UserError(
          f"data.size={size} is not divisible by the tokenizer's {self.tubelet[1]} pixels a token; "
          f"use {_nearest(size, self.tubelet[1])}."
        )
    dt, dh, dw = self.tubelet
    return frames // dt, height // dh, width // dw


class Reconstruction(NamedTuple):
  """What the tokenizer makes of one window.

  video       float32[B, T, H, W, 3], means [0, 1], not clipped
  mask        float32[B, t, h, w], one where the token was kept
  importance  float32[B, t, h, w]
  codes       uint8[B, t*h*w, d], of every token, also of those that were not kept
  """

  video: jax.Array
  mask: jax.Array
  importance: jax.Array
  codes: jax.Array


class Tokens(NamedTuple):
  """A tokenized clip, tokens in (t, y, x) order; N covers all of its windows.

  codes       uint8[B, N, d]
  latent      float32[B, N, d] in [-1, 1]
  importance  float32[B, N], comparable within the clip
  """

  codes: jax.Array
  latent: jax.Array
  importance: jax.Array


class Tokenizer(nn.Module):
  """Encoder, decoder and scorer of one window. Video in is float in [0, 1], T = `config.window`."""

  config: TokenizerConfig
  dtype: jax.typing.DTypeLike = jnp.float32

  def setup(self):
    c = self.config
    shape = dict(
      filters=c.filters,
      multipliers=c.multipliers,
      temporal_downsample=c.temporal_downsample,
      res_blocks=c.res_blocks,
      remat_stages=c.remat_stages,
      dtype=self.dtype,
    )
    self.encoder = magvit.Encoder(channels=c.channels, **shape)
    self.decoder = magvit.Decoder(**shape)
    self.scorer = Scorer(c.tubelet, c.scorer_channels, self.dtype)

  def encode(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B t h w d"]:
    """Soft tokens, float32, before quantisation."""
    self.config.grid(*video.shape[1:4])
    return self.encoder(video).astype(jnp.float32)

  def importance(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B t h w"]:
    """How much each token's place changed since the latent frame before."""
    self.config.grid(*video.shape[1:4])
    return self.scorer(video)

  def decode(self, latent: Float[Array, "B t h w d"]) -> Float[Array, "B T H W 3"]:
    """Latents in [-1, 1] to video, float32, not clipped."""
    return self.decoder(latent).astype(jnp.float32)

  def __call__(self, video: Float[Array, "B T H W 3"]) -> Reconstruction:
    soft = self.encode(video)
    importance = self.importance(video)
    mask = keep_mask(self.config, importance)
    reconstructed = self.decode(fsq.quantise(soft * mask[..., None], self.config.levels))
    return Reconstruction(reconstructed, mask, importance, _codes(self.config, soft))


def keep_mask(
  config: TokenizerConfig, importance: Float[Array, "B t h w"]
) -> Float[Array, "B t h w"]:
  """One where a token is kept: the first latent frame, and the most important of the rest.

  The number kept is the same in every row. The gradient to the importance is that of `config.topk`.
  """
  b, t, h, w = importance.shape
  topk = TOPK[config.topk]
  keep = round(config.keep * t * h * w)
  if not config.first_frame_kept:
    return topk(importance.reshape(b, -1), keep).reshape(b, t, h, w)
  keep = keep - h * w if config.first_frame_counted else min(keep, (t - 1) * h * w)
  later = topk(importance[:, 1:].reshape(b, -1), keep).reshape(b, t - 1, h, w)
  return jnp.concatenate([jnp.ones_like(importance[:, :1]), later], axis=1)


def tokenize_clip(
  config: TokenizerConfig,
  params: Params,
  video: UInt8[Array, "B T H W 3"],
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> Tokens:
  """Tokens and importance of a clip of any number of windows; nothing is masked.

  Each window's first latent frame copies the importance of its second, for it has no predecessor
  there. UserError if T is no multiple of the window.
  """
  grid = config.grid(*video.shape[1:4])
  model = Tokenizer(config, dtype)

  def tokenize(window):
    soft = model.apply({"params": params}, window, method="encode")
    importance = model.apply({"params": params}, window, method="importance")
    return _codes(config, soft), importance.reshape(len(importance), -1)

  codes, importance = _by_window(tokenize, config.window, video)
  codes = codes.reshape(len(video), math.prod(grid), config.channels)
  importance = importance.reshape(len(video), math.prod(grid))
  return Tokens(codes, fsq.latents_of_codes(codes, config.levels), importance)


def reconstruct_clip(
  config: TokenizerConfig,
  params: Params,
  video: UInt8[Array, "B T H W 3"],
  masked: bool = True,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[UInt8[Array, "B T H W 3"], Float[Array, "B t h w"]]:
  """The clip as the decoder draws it, and the mask of the tokens that it was drawn from.

  masked=False draws from all tokens, and the mask is all ones.
  """
  grid = config.grid(*video.shape[1:4])
  model = Tokenizer(config, dtype)

  def reconstruct(window):
    soft = model.apply({"params": params}, window, method="encode")
    mask = jnp.ones(soft.shape[:-1], jnp.float32)
    if masked:
      mask = keep_mask(config, model.apply({"params": params}, window, method="importance"))
    latent = fsq.quantise(soft * mask[..., None], config.levels)
    return to_uint8(model.apply({"params": params}, latent, method="decode")), mask

  drawn, mask = _by_window(reconstruct, config.window, video)
  return drawn.reshape(video.shape), mask.reshape(len(video), *grid)


def from_uint8(video: UInt8[Array, "*n"]) -> Float[Array, "*n"]:
  """Pixels as the tokenizer and the discriminator want them: float32 in [0, 1]."""
  return video.astype(jnp.float32) / 255


def to_uint8(video: Float[Array, "*n"]) -> UInt8[Array, "*n"]:
  """The inverse of `from_uint8`; what lies outside [0, 1] is clipped."""
  return jnp.round(jnp.clip(video, 0, 1) * 255).astype(jnp.uint8)


def _codes(config: TokenizerConfig, soft: Array) -> Array:
  """uint8[B, t*h*w, d] of soft[B, t, h, w, d]."""
  codes = fsq.codes_of_latents(fsq.quantise(soft, config.levels), config.levels)
  return codes.reshape(len(codes), -1, config.channels)


def _by_window(function: Callable[[Array], Any], window: int, video: Array) -> Any:
  """function of each window of float video, one at a time; leaves [B, windows, ...]."""
  starts = jnp.arange(0, video.shape[1], window)
  cut = lambda start: jax.lax.dynamic_slice_in_dim(video, start, window, axis=1)
  leaves = jax.lax.map(lambda start: function(from_uint8(cut(start))), starts)
  return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), leaves)


def _nearest(size: int, step: int) -> str:
  below = size // step * step
  return f"{below} or {below + step}" if below else f"{step}"
