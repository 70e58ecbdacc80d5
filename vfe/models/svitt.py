"""SViTT (arXiv 2304.08809) and SViTT-Ego: a video and a text encoder, and one that reads both.

The two meet in one space, by which clips are searched; the last layers of the text encoder read a
text before a video, and judge whether it tells of it and which of its words were hidden.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.config import choose
from vfe.models.fused_text import FusedText
from vfe.models.text import TextConfig
from vfe.models.vivit import Encoder, EncoderConfig, Patches
from vfe.nn.blocks import Execution, norm
from vfe.tokens.pruning import Pruning

POOLS = ("cls", "mean")


@dataclasses.dataclass(frozen=True)
class SvittConfig:
  """vision has a class token; fused: the text encoder's last layers, that read the video, too.

  width is that of the common space; pool: a video's vector is its class token ("cls": the paper's),
  or the norm of the mean of the tokens that are left ("mean": SViTT's code); pruning is of the
  video's tokens in the fused layers; temperature is what the contrastive loss begins with.
  """

  vision: EncoderConfig
  text: TextConfig
  width: int = 256
  fused: int = 3
  pool: str = "cls"
  pruning: Pruning | None = dataclasses.field(default_factory=lambda: Pruning((1,), 0.1))
  temperature: float = 0.18

  def __post_init__(self):
    choose(dict.fromkeys(POOLS), self.pool, "model.pool")
    if self.pruning:
      self.pruning.parts(self.fused)

  @classmethod
  def from_dict(cls, fields: dict[str, Any]) -> "SvittConfig":
    """The inverse of `dataclasses.asdict`, also after JSON."""
    pruning = fields["pruning"]
    changes = {
      "vision": EncoderConfig.from_dict(fields["vision"]),
      "text": TextConfig.from_dict(fields["text"]),
      "pruning": pruning and Pruning(**{**pruning, "after": tuple(pruning["after"])}),
    }
    return cls(**{**fields, **changes})


class Svitt(nn.Module):
  """Tokens of either side, their vectors, and what is read from both. Vectors are float32 and not
  normalised."""

  config: SvittConfig
  execution: Execution = Execution()
  text_execution: Execution = Execution()

  def setup(self):
    config, run = self.config, self.text_execution
    self.vision = Encoder(config.vision, self.execution)
    self.text = FusedText(config.text, config.fused, config.vision.width, config.pruning, run)
    self.vision_projection = nn.Dense(config.width)
    self.text_projection = nn.Dense(config.width)
    self.matching_head = nn.Dense(2)
    if config.pool == "mean":
      self.pool_norm = norm(config.vision.norm_eps, "float32")
    log_scale = nn.initializers.constant(-math.log(config.temperature))
    self.log_scale = self.param("log_scale", log_scale, ())

  def __call__(self, patches, selection, ids, mask):
    """All parts, so that all parameters are there."""
    video, words = self.tokens_of_video(patches, selection), self.tokens_of_text(ids, mask)
    fused = self.fuse(words, mask, video)
    return self.embed_video(video), self.embed_text(words), self.match(fused), self.words(fused)

  def tokens_of_video(
    self,
    patches: Patches,
    selection: Int[Array, "B K"],
    keys: Key[Array, "B"] | None = None,
    rng: Key[Array, ""] | None = None,
  ) -> Float[Array, "B N D"]:
    """The CLS and the tokens that are left; arguments as the encoder's."""
    return self.vision(patches, selection, keys, None, rng)

  def tokens_of_text(
    self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]
  ) -> Float[Array, "B L D"]:
    """Words that have not seen a video."""
    return self.text.encode(ids, mask)

  def pooled(self, video: Float[Array, "B N D"]) -> Float[Array, "B D"]:
    """One vector a clip: what `embed_video` projects."""
    if self.config.pool == "cls":
      return video[:, 0].astype(jnp.float32)
    return self.pool_norm(video[:, 1:].astype(jnp.float32).mean(1))

  def embed_video(self, video: Float[Array, "B N D"]) -> Float[Array, "B W"]:
    """Of the tokens of clips."""
    return self.vision_projection(self.pooled(video))

  def embed_text(self, words: Float[Array, "B L D"]) -> Float[Array, "B W"]:
    """Of the words of texts: their first, [CLS]."""
    return self.text_projection(words[:, 0].astype(jnp.float32))

  def fuse(
    self,
    words: Float[Array, "B L D"],
    mask: Bool[Array, "B L"],
    video: Float[Array, "B N E"],
    keys: Key[Array, "B"] | None = None,
  ) -> Float[Array, "B L D"]:
    """The words of each text after reading the video beside it; keys are for random pruning."""
    return self.text.fuse(words, mask, video, keys)

  def match(self, fused: Float[Array, "B L D"]) -> Float[Array, "B 2"]:
    """Logits of whether a text, fused with a video, does not or does (column 1) tell of it."""
    return self.matching_head(fused[:, 0].astype(jnp.float32))

  def words(self, fused: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Logits of the words that were hidden."""
    return self.text.words(fused)
