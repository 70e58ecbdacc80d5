"""The masked autoencoder whose decoder sees only what is asked of it (LVMAE, section 3)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from vfe.models.vivit import HEAD_EPS, Encoder, EncoderConfig, lookup, position
from vfe.nn.blocks import Execution, dense, make_stack, norm
from vfe.tokens.layout import Layout
from vfe.tokens.tubelets import gather_tubelets

# By the encoder's size
DECODERS = {
  "test": dict(width=16, depth=1, heads=2, mlp=32),
  "demo": dict(width=48, depth=2, heads=2, mlp=192),
  "s": dict(width=192, depth=4, heads=3, mlp=768),
  "b": dict(width=384, depth=4, heads=6, mlp=1536),
  "l": dict(width=512, depth=4, heads=8, mlp=2048),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """What a decoder is: four layers in the paper (A.5.2), widths VideoMAE's."""

  width: int
  depth: int
  heads: int
  mlp: int
  norm_eps: float = 1e-6

  @classmethod
  def of(cls, name: str, **changes) -> "DecoderConfig":
    """The decoder that goes with an encoder of a named size.

    Raises:
      UserError: there is no such size.
    """
    return cls(**(lookup(DECODERS, name, "model.size") | changes))

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> "DecoderConfig":
    """The inverse of `dataclasses.asdict`."""
    return cls(**fields)


class MAE(nn.Module):
  """Encodes the visible tokens, predicts `target_dim` values at each asked one."""

  encoder: EncoderConfig
  decoder: DecoderConfig
  target_dim: int
  execution: Execution = Execution()

  @nn.compact
  def __call__(
    self,
    patches: Shaped[Array, "B K P"],
    visible: Int[Array, "B K"],
    asked: Int[Array, "B M"],
    keys: Key[Array, "B"] | None = None,
  ) -> Float[Array, "B M {self.target_dim}"]:
    """float32 predictions at the asked tokens, which may be any, also visible ones.

    An asked token that is visible too is in the decoder twice, encoded and as a mask token, as in
    VideoMAE V2; its weight in the loss should be 0 (`vfe.tokens.selection.contains`). All other
    arguments are the encoder's.
    """
    tokens = Encoder(self.encoder, self.execution, name="encoder")(patches, visible, keys)
    return Decoder(self.encoder, self.decoder, self.target_dim, self.execution, name="decoder")(
      tokens, visible, asked
    )


class Decoder(nn.Module):
  """Sees the encoded visible tokens and a mask token at each asked place, and nothing else."""

  encoder: EncoderConfig
  config: DecoderConfig
  target_dim: int
  execution: Execution = Execution()

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B K D"],
    visible: Int[Array, "B K"],
    asked: Int[Array, "B M"],
  ) -> Float[Array, "B M {self.target_dim}"]:
    config = self.config
    run = dataclasses.replace(self.execution, drop_path=0.0, first_trained=0)
    known = dense(config.width, run.dtype, "project", use_bias=False)(tokens)
    mask = self.param("mask_token", nn.initializers.truncated_normal(0.02), (config.width,))
    known += position(self.encoder, visible, config.width).astype(known.dtype)
    unknown = (mask + position(self.encoder, asked, config.width)).astype(known.dtype)
    tokens = jnp.concatenate([known, unknown], axis=1)
    stack = make_stack(config.width, config.depth, config.heads, config.mlp, config.norm_eps, run)
    tokens = stack.apply(self.param("blocks", stack.init), tokens)[:, -asked.shape[1] :]
    tokens = norm(HEAD_EPS, run.dtype, "norm")(tokens)
    return dense(self.target_dim, "float32", "head")(tokens.astype(jnp.float32))


def pixel_targets(
  video: UInt8[Array, "B T H W 3"], layout: Layout, asked: Int[Array, "B M"]
) -> Float[Array, "B M P"]:
  """VideoMAE's targets: the pixels of each asked tubelet, normalised by its own statistics.

  Mean and unbiased deviation are of one tubelet and one colour channel, of pixels in [0, 1], and
  1e-6 is added to the deviation: a flat tubelet's target is 0.
  """
  patches = gather_tubelets(video, layout, asked).astype(jnp.float32) / 255.0
  pixels = patches.reshape(*asked.shape, -1, 3)
  centred = pixels - pixels.mean(axis=-2, keepdims=True)
  deviation = pixels.std(axis=-2, ddof=1, keepdims=True)
  return (centred / (deviation + 1e-6)).reshape(patches.shape)


def masked_mse(
  predicted: Float[Array, "B M C"], target: Float[Array, "B M C"], weight: Shaped[Array, "B M"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """(sum, weight) of the squared error a token, each the mean over its channels, in float32.

  The loss is sum / weight, divided by the caller once all parts of the batch are added.
  """
  weight = weight.astype(jnp.float32)
  error = jnp.square(predicted.astype(jnp.float32) - target.astype(jnp.float32)).mean(axis=-1)
  return jnp.sum(error * weight), jnp.sum(weight)
