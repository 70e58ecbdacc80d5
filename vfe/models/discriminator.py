"""MAGVIT's 3-D StyleGAN discriminator (arXiv 2212.05199) and the losses around it.

As in the authors' code: residual blocks over sqrt(2), leaky ReLU of slope 0.2, average pooling in
space and time, no normalisation, no minibatch statistics: a row's logit depends on that row only.
The grid is flattened before the dense layers, which ties the parameters to the clip's size.
Every loss is returned a row, to be weighted and averaged by the caller.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.models.magvit import average_pool
from vfe.nn.conv import Conv3D

_INIT = nn.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
  """`multipliers` of `filters`, one a block, each block halving the grid; JSON-able."""

  filters: int = 64
  multipliers: Sequence[int] = (2, 4, 4, 4, 4)
  remat_blocks: int = 0  # this many blocks from the input are recomputed in the backward pass

  def __post_init__(self):
    object.__setattr__(self, "multipliers", tuple(self.multipliers))


class DiscriminatorBlock(nn.Module):
  """Convolution, pooling, convolution; beside it a pooled 1x1x1 shortcut; summed over sqrt(2)."""

  filters: int
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B T2 H2 W2 D"]:
    conv = lambda features, size, name, bias=True: Conv3D(
      features, (size,) * 3, use_bias=bias, kernel_init=_INIT, dtype=self.dtype, name=name
    )
    out = nn.leaky_relu(conv(x.shape[-1], 3, "conv1")(x), 0.2)
    out = nn.leaky_relu(conv(self.filters, 3, "conv2")(average_pool(out)), 0.2)
    shortcut = conv(self.filters, 1, "shortcut", bias=False)(average_pool(x))
    return (shortcut + out) / math.sqrt(2)


class Discriminator(nn.Module):
  """Video in [0, 1] to one float32 logit a row, high for real."""

  config: DiscriminatorConfig
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B"]:
    filters = self.config.filters
    conv = lambda features, name: Conv3D(features, kernel_init=_INIT, dtype=self.dtype, name=name)
    x = nn.leaky_relu(conv(filters, "conv_in")(video), 0.2)
    for i, multiplier in enumerate(self.config.multipliers):
      block = nn.remat(DiscriminatorBlock) if i < self.config.remat_blocks else DiscriminatorBlock
      x = block(filters * multiplier, self.dtype, name=f"block{i}")(x)
    width = x.shape[-1]
    x = nn.leaky_relu(conv(width, "conv_out")(x), 0.2).reshape(len(x), -1)
    dense = lambda features, name: nn.Dense(
      features, kernel_init=_INIT, dtype=self.dtype, name=name
    )
    x = nn.leaky_relu(dense(width, "dense")(x), 0.2)
    return dense(1, "logit")(x)[:, 0].astype(jnp.float32)


def discriminator_loss(real: Float[Array, "B"], fake: Float[Array, "B"]) -> Float[Array, "B"]:
  """Non-saturating: -log sigmoid(real) - log sigmoid(-fake), from logits."""
  return nn.softplus(-real) + nn.softplus(fake)


def generator_loss(fake: Float[Array, "B"]) -> Float[Array, "B"]:
  """Non-saturating: -log sigmoid(fake)."""
  return nn.softplus(-fake)


def logits_and_r1(
  discriminate: Callable[[Array], Array], real: Float[Array, "B T H W 3"]
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
  """The logits of real video, and R1: the squared norm of each row's gradient (Mescheder et al.).

  discriminate maps video to logits, row by row. MAGVIT adds 10 times the mean of R1 to the
  discriminator's loss, with no half before it.
  """

  def total(video):
    logits = discriminate(video)
    return logits.sum(), logits

  slope, logits = jax.grad(total, has_aux=True)(real)
  return logits, jnp.sum(jnp.square(slope.astype(jnp.float32)), axis=(1, 2, 3, 4))
