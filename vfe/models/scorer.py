"""LVMAE's token scorer (arXiv 2411.13683, 3.3): how much each place changes between latent frames.

Two strided convolutions embed the video on the token grid; the importance of a token is the
Euclidean distance between its feature and the one at the same place a latent frame earlier.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.models.magvit import NormAct
from vfe.nn.conv import Conv3D


class Scorer(nn.Module):
  """Video in [0, 1] to importance, float32, 0 or more; higher is kept first.

  The paper gives neither kernels nor widths: each kernel is twice its stride in space, the first
  takes all of the time stride, and GroupNorm and swish stand between. For tubelets of 2x16x16
  that is (4, 8, 8) by (2, 4, 4), then (3, 8, 8) by (1, 4, 4). The first latent frame has no
  predecessor and copies the second's importance (EVEREST's rule).
  """

  tubelet: tuple[int, int, int]
  channels: tuple[int, int] = (64, 128)
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, video: Float[Array, "B T H W 3"]) -> Float[Array, "B t h w"]:
    dt, dh, dw = self.tubelet
    first, second = zip(_split(dh), _split(dw), strict=True)
    x = Conv3D(
      self.channels[0],
      (2 * dt, 2 * first[0], 2 * first[1]),
      (dt, *first),
      dtype=self.dtype,
      name="conv1",
    )(video)
    x = NormAct(self.dtype, name="act1")(x)
    x = Conv3D(
      self.channels[1],
      (3, 2 * second[0], 2 * second[1]),
      (1, *second),
      dtype=self.dtype,
      name="conv2",
    )(x)
    change = distance(x[:, 1:].astype(jnp.float32), x[:, :-1].astype(jnp.float32))
    return jnp.concatenate([change[:, :1], change], axis=1)


def distance(a: Float[Array, "*n C"], b: Float[Array, "*n C"]) -> Float[Array, "*n"]:
  """Euclidean distance over the last axis; its gradient where a == b is zero, not NaN."""
  square = jnp.sum(jnp.square(a - b), axis=-1)
  apart = square > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def _split(stride: int) -> tuple[int, int]:
  """A power-of-two stride as two, the first at least the second: 16 is 4 by 4, 8 is 4 by 2."""
  first = 2 ** math.ceil(math.log2(stride) / 2)
  return first, stride // first
