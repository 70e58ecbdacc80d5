"""MAGVIT's 3D-CNN encoder and decoder (Yu et al., arXiv 2212.05199), the tokenizer's two halves.

As in the authors' code: pre-activation residual blocks of GroupNorm, swish and 3x3x3 convolutions
without bias; average pooling down, nearest neighbour and a convolution up; SAME padding, acausal.
A stage is `res_blocks` blocks; between two stages the grid halves in space and, where
`temporal_downsample` says so, in time. As many blocks again work at the coarsest grid.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.nn.conv import Conv3D

Features = Float[Array, "B T H W C"]


def average_pool(video: Features, time: bool = True) -> Float[Array, "B T2 H2 W2 C"]:
  """Mean of 2x2 pixels (2x2x2 with time). An odd last row is kept as it is."""
  factors = (2 if time else 1, 2, 2)
  odd = [(0, -size % factor) for size, factor in zip(video.shape[1:4], factors, strict=True)]
  video = jnp.pad(video, [(0, 0), *odd, (0, 0)], mode="edge") if any(map(any, odd)) else video
  b, t, h, w, c = video.shape
  split = video.reshape(b, t // factors[0], factors[0], h // 2, 2, w // 2, 2, c)
  return split.mean(axis=(2, 4, 6))


def nearest_upsample(video: Features, time: bool = True) -> Float[Array, "B T2 H2 W2 C"]:
  """Each pixel becomes 2x2 (2x2x2 with time) equal ones."""
  b, t, h, w, c = video.shape
  frames = 2 if time else 1
  spread = jnp.broadcast_to(video[:, :, None, :, None, :, None], (b, t, frames, h, 2, w, 2, c))
  return spread.reshape(b, t * frames, h * 2, w * 2, c)


class NormAct(nn.Module):
  """GroupNorm (32 groups, fewer where the channels are fewer) and swish."""

  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Features) -> Features:
    groups = math.gcd(32, x.shape[-1])
    return nn.swish(nn.GroupNorm(num_groups=groups, dtype=self.dtype, name="norm")(x))


class ResBlock(nn.Module):
  """Two 3x3x3 convolutions beside a shortcut, which is 1x1x1 where the width changes."""

  filters: int
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Features) -> Float[Array, "B T H W D"]:
    conv = lambda name, size: Conv3D(
      self.filters, (size,) * 3, use_bias=False, dtype=self.dtype, name=name
    )
    out = conv("conv1", 3)(NormAct(self.dtype, name="act1")(x))
    out = conv("conv2", 3)(NormAct(self.dtype, name="act2")(out))
    if x.shape[-1] != self.filters:
      x = conv("shortcut", 1)(x)
    return x + out


def _block(remat: bool) -> Callable[..., nn.Module]:
  return nn.remat(ResBlock) if remat else ResBlock


class Encoder(nn.Module):
  """Video in [0, 1] to soft tokens: [B, T, H, W, 3] to [B, t, h, w, channels], any real numbers.

  The first `remat_stages` stages, which hold the large grids, are recomputed in the backward pass.
  """

  filters: int
  multipliers: Sequence[int]
  temporal_downsample: Sequence[bool]
  res_blocks: int
  channels: int
  remat_stages: int = 0
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B t h w d"]:
    x = Conv3D(self.filters, use_bias=False, dtype=self.dtype, name="conv_in")(video)
    for stage, multiplier in enumerate(self.multipliers):
      block = _block(stage < self.remat_stages)
      width = self.filters * multiplier
      for i in range(self.res_blocks):
        x = block(width, self.dtype, name=f"stage{stage}_block{i}")(x)
      if stage < len(self.multipliers) - 1:
        x = average_pool(x, self.temporal_downsample[stage])
    for i in range(self.res_blocks):
      x = ResBlock(width, self.dtype, name=f"bottleneck_block{i}")(x)
    x = NormAct(self.dtype, name="act_out")(x)
    return Conv3D(self.channels, (1, 1, 1), dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
  """Latents to video: the encoder's mirror image. The output means [0, 1] but is not clipped."""

  filters: int
  multipliers: Sequence[int]
  temporal_downsample: Sequence[bool]
  res_blocks: int
  remat_stages: int = 0
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, latent: Float[Array, "B t h w d"]) -> Float[Array, "B T H W 3"]:
    width = self.filters * self.multipliers[-1]
    x = Conv3D(width, dtype=self.dtype, name="conv_in")(latent)
    for i in range(self.res_blocks):
      x = ResBlock(width, self.dtype, name=f"bottleneck_block{i}")(x)
    for stage, multiplier in reversed(list(enumerate(self.multipliers))):
      block = _block(stage < self.remat_stages)
      width = self.filters * multiplier
      for i in range(self.res_blocks):
        x = block(width, self.dtype, name=f"stage{stage}_block{i}")(x)
      if stage > 0:
        x = nearest_upsample(x, self.temporal_downsample[stage - 1])
        x = Conv3D(width, dtype=self.dtype, name=f"stage{stage}_up")(x)
    x = NormAct(self.dtype, name="act_out")(x)
    return Conv3D(3, dtype=self.dtype, name="conv_out")(x)
