"""ResNet (He et al., arXiv 1512.03385) for inference, and the perceptual distance made of it.

The architecture is that of Hugging Face's `ResNetForImageClassification`: its ResNet-50 is "v1.5",
with the stride in the 3x3 convolution. Batch normalisation is folded into the convolutions when
weights are read (`vfe.interop.resnet`), so every layer here is a convolution with a bias.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

PERCEPTUAL_SIZE = 224  # MAGVIT resizes to what the network was trained on


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """The fields of a Hugging Face ResNet's config.json that shape the network, and its pixels' mean
  and standard deviation (of [0, 1]). The defaults are ResNet-50."""

  embedding_size: int = 64
  hidden_sizes: Sequence[int] = (256, 512, 1024, 2048)
  depths: Sequence[int] = (3, 4, 6, 3)
  layer_type: str = "bottleneck"  # or "basic"
  downsample_in_first_stage: bool = False
  downsample_in_bottleneck: bool = False
  classes: int = 1000
  mean: Sequence[float] = (0.485, 0.456, 0.406)
  std: Sequence[float] = (0.229, 0.224, 0.225)

  def __post_init__(self):
    for field in ("hidden_sizes", "depths", "mean", "std"):
      object.__setattr__(self, field, tuple(getattr(self, field)))


class ResNet(nn.Module):
  """Images, normalised, to float32 logits."""

  config: ResNetConfig
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
    c = self.config
    x = nn.relu(_conv(c.embedding_size, 7, 2, self.dtype, "stem")(images))
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for stage, (width, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
      for layer in range(depth):
        halve = layer == 0 and (stage > 0 or c.downsample_in_first_stage)
        block = ResNetLayer(c, width, 2 if halve else 1, self.dtype, name=f"stage{stage}_{layer}")
        x = block(x)
    x = x.mean(axis=(1, 2), dtype=jnp.float32)
    return nn.Dense(c.classes, name="classifier")(x)


class ResNetLayer(nn.Module):
  """A residual layer: 1x1, 3x3, 1x1 ("bottleneck") or 3x3, 3x3 ("basic")."""

  config: ResNetConfig
  width: int
  stride: int
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
    out = x
    plan = self._plan()
    for i, (width, size, stride) in enumerate(plan):
      out = _conv(width, size, stride, self.dtype, f"conv{i}")(out)
      out = nn.relu(out) if i < len(plan) - 1 else out
    if self.stride != 1 or x.shape[-1] != self.width:
      x = _conv(self.width, 1, self.stride, self.dtype, "shortcut")(x)
    return nn.relu(x + out)

  def _plan(self) -> list[tuple[int, int, int]]:
    """(width, kernel, stride) of each convolution."""
    if self.config.layer_type == "basic":
      return [(self.width, 3, self.stride), (self.width, 3, 1)]
    first = self.stride if self.config.downsample_in_bottleneck else 1
    narrow = self.width // 4
    return [(narrow, 1, first), (narrow, 3, self.stride // first), (self.width, 1, 1)]


def _conv(width: int, size: int, stride: int, dtype: jax.typing.DTypeLike, name: str) -> nn.Conv:
  pad = (size // 2, size // 2)
  return nn.Conv(
    width, (size, size), strides=(stride, stride), padding=(pad, pad), dtype=dtype, name=name
  )


def perceptual(
  config: ResNetConfig,
  params: dict,
  real: Float[Array, "B T H W 3"],
  fake: Float[Array, "B T H W 3"],
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> Float[Array, "B"]:
  """MAGVIT's perceptual distance: mean squared difference of the logits of each frame.

  Videos are in [0, 1], resized to 224x224 (bilinear) and normalised by the network's mean and
  standard deviation (MAGVIT's own ResNet was trained on [0, 1] as it is). The mean is over frames
  and classes. No gradient goes to `real`.
  """
  model = ResNet(config, dtype)
  logits = lambda video: model.apply({"params": params}, _frames(config, video))
  squares = jnp.square(jax.lax.stop_gradient(logits(real)) - logits(fake))
  return squares.reshape(len(real), -1).mean(axis=1)


def _frames(config: ResNetConfig, video: Array) -> Array:
  """[B, T, H, W, 3] in [0, 1] to normalised images [B*T, 224, 224, 3]."""
  images = video.reshape(-1, *video.shape[2:])
  shape = (len(images), PERCEPTUAL_SIZE, PERCEPTUAL_SIZE, 3)
  images = jax.image.resize(images, shape, "bilinear") if images.shape != shape else images
  mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
  return (images - mean) / std
