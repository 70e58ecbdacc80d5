"""A trained tokenizer, opened: videos to codes and back."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models import fsq, tokenizer
from vfe.models.tokenizer import TokenizerConfig, Tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A trained adaptive tokenizer. Clips of any number of windows go through it one at a time.

  config  the `vfe.models.tokenizer.TokenizerConfig`; .window frames make a window
  params  of `vfe.models.tokenizer.Tokenizer`
  path    where it was loaded from
  """

  config: TokenizerConfig
  params: Any
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "Tokenizer":
    """The tokenizer in an export."""
    params = jax.device_put(export.params)
    return cls(TokenizerConfig(**export.model), params, export.path, dtype)

  def encode(self, video: Any) -> Tokens:
    """Codes, latents and importance of every token of uint8[B, T, H, W, 3].

    Raises:
      UserError: not such a video, or T is no multiple of the window.
    """
    return self._encode(self.params, _checked_video(video))

  def decode(self, codes: Any, size: int | tuple[int, int]) -> UInt8[Array, "B T H W 3"]:
    """The video that codes uint8[B, N, d] stand for.

    Args:
      codes: as `encode` gives them.
      size: pixels of a side, or (height, width).

    Raises:
      UserError: N is no whole number of windows at that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    grid = self.config.grid(self.config.window, height, width)
    per_window = grid[0] * grid[1] * grid[2]
    if codes.shape[1] % per_window or not codes.shape[1]:
      raise UserError(
        f"{codes.shape[1]} tokens are no whole number of windows: one of {height}x{width} pixels "
        f"has {per_window}; give the size that the codes were made at."
      )
    return self._decode(self.params, jnp.asarray(codes), grid)

  def reconstruct(
    self, video: Any, *, masked: bool = True
  ) -> tuple[UInt8[Array, "B T H W 3"], Float[Array, "B t h w"]]:
    """The video from its kept tokens, and one where a token was kept.

    masked=False draws from all tokens, as `decode(encode(video).codes, ...)` does.
    """
    return self._reconstruct(self.params, _checked_video(video), masked)

  @functools.cached_property
  def _encode(self):
    def encode(params, video):
      return tokenizer.tokenize_clip(self.config, params, video, self.dtype)

    return jax.jit(encode)

  @functools.cached_property
  def _reconstruct(self):
    def reconstruct(params, video, masked):
      return tokenizer.reconstruct_clip(self.config, params, video, masked, self.dtype)

    return jax.jit(reconstruct, static_argnums=2)

  @functools.cached_property
  def _decode(self):
    module = tokenizer.Tokenizer(self.config, self.dtype)

    def decode(params, codes, grid):
      latent = fsq.latents_of_codes(codes, self.config.levels)
      windows = latent.reshape(len(codes), -1, *grid, self.config.channels)
      one = lambda window: module.apply({"params": params}, window, method="decode")
      drawn = jax.lax.map(lambda w: tokenizer.to_uint8(one(w)), jnp.moveaxis(windows, 1, 0))
      video = jnp.moveaxis(drawn, 0, 1)
      return video.reshape(len(codes), -1, *video.shape[3:])

    return jax.jit(decode, static_argnums=2)


def _checked_video(video: Any) -> Array:
  if video.dtype != jnp.uint8 or video.ndim != 5 or video.shape[-1] != 3:
    raise UserError(f"the video is {video.dtype}{list(video.shape)}; give uint8[B, T, H, W, 3].")
  return jnp.asarray(video)
