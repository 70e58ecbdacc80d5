"""A video encoder and a text encoder that meet in one space (LongViViT 2.8, 2.9)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.learn.exports import Export
from vfe.models.classifier import TokenPool
from vfe.models.contrastive import INITIAL
from vfe.models.text import TextConfig, TextEncoder, mean_of_tokens
from vfe.models.vivit import Encoder, EncoderConfig, Patches, lookup
from vfe.nn.blocks import Execution


@dataclasses.dataclass(frozen=True)
class DualConfig:
  """vision and text are the two towers, width that of the space, pool a name in `POOLS`.

  loss is a name in `vfe.models.contrastive.INITIAL`, whose scalars are parameters.
  """

  vision: EncoderConfig
  text: TextConfig
  width: int
  pool: str = "mean"
  loss: str = "info_nce"

  @classmethod
  def from_dict(cls, fields: dict[str, Any]) -> "DualConfig":
    """The inverse of `dataclasses.asdict`, also after JSON."""
    vision, text = EncoderConfig.from_dict(fields["vision"]), TextConfig.from_dict(fields["text"])
    return cls(**{**fields, "vision": vision, "text": text})


class DualEncoder(nn.Module):
  """Two towers and a linear projection of each. Embeddings are float32 and not normalised."""

  config: DualConfig
  execution: Execution = Execution()
  text_execution: Execution = Execution()

  def setup(self):
    config, dtype = self.config, self.execution.dtype
    self.vision = Encoder(config.vision, self.execution)
    self.text = TextEncoder(config.text, self.text_execution)
    if config.pool == "attention":
      self.pool = TokenPool(config.vision.heads, config.vision.mlp, joins=False, dtype=dtype)
    self.vision_projection = _projection(config.width)
    self.text_projection = _projection(config.width)
    for name, value in INITIAL[config.loss].items():
      self.param(name, nn.initializers.constant(value), ())

  def __call__(self, patches, selection, ids, mask, frames=None):
    """Both, so that all parameters are there."""
    return self.embed_video(patches, selection, None, frames), self.embed_text(ids, mask)

  def embed_video(
    self,
    patches: Patches,
    selection: Int[Array, "B K"],
    keys: Key[Array, "B"] | None = None,
    frames: int | None = None,
  ) -> Float[Array, "B D"]:
    """Clips, or images of an encoder that has them; arguments as the encoder's."""
    return self.vision_projection(self.pool_video(patches, selection, keys, frames))

  def pool_video(
    self,
    patches: Patches,
    selection: Int[Array, "B K"],
    keys: Key[Array, "B"] | None = None,
    frames: int | None = None,
  ) -> Float[Array, "B E"]:
    """What `embed_video` projects: one vector a clip, of the video tower's width."""
    tokens = self.vision(patches, selection, keys, frames)
    pool = lookup(POOLS, self.config.pool, "pool")
    pooled = pool(self, tokens, self.config.vision.classes(frames))
    return pooled.astype(jnp.float32)

  def embed_text(self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Texts, by the mean of their words (paper 2.8)."""
    return self.text_projection(mean_of_tokens(self.text(ids, mask), mask))


def vision_tower(export: Export) -> Export:
  """The video tower of an export of two towers as one of an encoder; others as they are."""
  if export.kind not in ("contrast", "svitt"):
    return export
  model, params = {"encoder": export.model["encoder"]}, {"encoder": export.params["vision"]}
  return dataclasses.replace(export, kind="encoder", model=model, params=params)


def _projection(width: int) -> nn.Dense:
  return nn.Dense(width, use_bias=False, kernel_init=nn.initializers.lecun_normal())


# (model, tokens, number of class tokens before them) -> one vector a clip
POOLS = {
  "mean": lambda model, tokens, classes: tokens[:, classes:].astype(jnp.float32).mean(1),
  "cls": lambda model, tokens, classes: tokens[:, :classes].astype(jnp.float32).mean(1),
  "attention": lambda model, tokens, classes: model.pool(tokens),
}
