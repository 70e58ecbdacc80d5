"""A frozen video encoder and a frozen language model, with what is trained between them.

LongViViT's second half (arXiv 2312.07395, 3.3): tokens of the encoder are averaged over time, a
resampler makes a fixed few of them, at which the language model looks through a bridge.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from vfe.config import choose
from vfe.models import resampler
from vfe.models.bridge import Bridge, BridgeConfig
from vfe.models.generation import Choice, Written, generate
from vfe.models.language_model import Cache, LanguageConfig, LanguageModel
from vfe.models.resampler import Resampler, ResamplerConfig
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn.blocks import Between, Execution
from vfe.nn.random import key, row_keys
from vfe.tokens import selection
from vfe.tokens.layout import Layout
from vfe.tokens.pooling import mean_over_time
from vfe.tokens.tubelets import gather_tubelets

Params = Any


def _all(tokens, chosen, layout):
  del chosen, layout
  return tokens, jnp.ones(tokens.shape[:2], bool)


# What of a clip's tokens the resampler reads: (tokens, selection, layout) -> (tokens, which are).
POOLS = {"time": mean_over_time, "none": _all}


@dataclasses.dataclass(frozen=True)
class VideoLanguageConfig:
  """What the model is. `dataclasses.asdict` of it is JSON-able, `from_dict` reads that.

  pool    "time": the mean over time of each site; "none": every token of the encoder
  masked  the share of a clip's tokens that is dropped at random, in training and afterwards
  spread  whether clips of fewer frames than the encoder's are spread over its positions in time;
          else they have those of its first frames
  """

  encoder: EncoderConfig
  language: LanguageConfig
  resampler: ResamplerConfig
  bridge: BridgeConfig
  pool: str = "time"
  masked: float = 0.0
  spread: bool = True

  def __post_init__(self):
    choose(POOLS, self.pool, "pool")

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> "VideoLanguageConfig":
    """The inverse of `dataclasses.asdict`, also of what JSON makes of that."""
    parts = {
      "encoder": EncoderConfig.from_dict(fields["encoder"]),
      "language": LanguageConfig.from_dict(fields["language"]),
      "resampler": ResamplerConfig(**fields["resampler"]),
      "bridge": BridgeConfig(**fields["bridge"]),
    }
    return cls(**(dict(fields) | parts))


class Reader:
  """What a frozen language model, `frozen["language"]`, does: it judges texts, and writes.

  words says what it is, language how it is run. `looking` lets it look at videos; without, it knows
  of none.
  """

  words: LanguageConfig
  language: Execution

  def log_likelihood(
    self,
    frozen: Params,
    ids: Int[Array, "R L"],
    mask: Bool[Array, "R L"],
    looking: Between | None,
  ) -> Float[Array, "R L"]:
    """Of each word after those before it; without `looking`, of the language model alone.

    R is a multiple of the clips: neighbouring rows are about the same one.
    """
    words = {"params": jax.lax.stop_gradient(frozen["language"])}
    return self._model.apply(words, ids, mask, looking, method="log_likelihood")

  def option_scores(
    self, frozen: Params, text: Mapping[str, Array], looking: Between | None
  ) -> Float[Array, "R O"]:
    """The log-likelihood of every option's words after its prompt, an option at a time.

    text has ids int32, mask and answer bool, each [R, O, L].
    """

    def one(option: tuple[Int[Array, "R L"], Bool[Array, "R L"], Bool[Array, "R L"]]):
      ids, mask, answer = option
      found = self.log_likelihood(frozen, ids, mask, looking)
      return jnp.sum(jnp.where(answer, found, 0.0), axis=-1)

    first = lambda name: jnp.swapaxes(text[name], 0, 1)
    return jax.lax.map(one, (first("ids"), first("mask"), first("answer"))).T

  def generate(
    self,
    frozen: Params,
    ids: Int[Array, "R P"],
    mask: Bool[Array, "R P"],
    looking: Between | None,
    choice: Choice,
    rng: Key[Array, ""] | None = None,
  ) -> Written:
    """Writes on from prompts; see `vfe.models.generation.generate`."""
    words = {"params": frozen["language"]}
    read = lambda *given: self._model.apply(words, *given, looking, method="read")
    slots = ids.shape[1] + choice.words
    cache = Cache.empty(self.words, len(ids), slots, self.language.dtype)
    return generate(read, cache, ids, mask, choice, rng)

  @property
  def _model(self) -> LanguageModel:
    return LanguageModel(self.words, self.language)


@dataclasses.dataclass(frozen=True)
class LanguageAlone(Reader):
  """A language model without anything to look at."""

  words: LanguageConfig
  language: Execution


@dataclasses.dataclass(frozen=True)
class VideoLanguage(Reader):
  """The computation; parameters are given: `params` {resampler, bridge}, which are trained, and
  `frozen` {encoder, language}, to which no gradient goes.

  vision and language say how the encoder and all the rest are run.
  """

  config: VideoLanguageConfig
  vision: Execution
  language: Execution

  def init(self, rng: Key[Array, ""]) -> Params:
    """Fresh parameters of what is trained, float32."""
    return {
      "resampler": resampler.init(self.config.resampler, key(rng, "resampler")),
      "bridge": self._bridge.init(key(rng, "bridge")),
    }

  def layout(self, frames: int) -> Layout:
    """Of clips of so many frames, which may be fewer than the encoder's own."""
    encoder = self.config.encoder
    return Layout.of_video(frames, encoder.size, encoder.tubelet)

  def chosen(self, keys: Key[Array, "B"], frames: int) -> Int[Array, "B K"]:
    """The tokens of clips that enter; one key a row says which are dropped."""
    layout, masked = self.layout(frames), self.config.masked
    if not masked:
      return selection.everything(len(keys), layout.size)
    if self.config.encoder.mixing == "joint":
      return selection.random(keys, layout.size, selection.visible(layout.size, masked))
    return selection.random_of_frames(keys, layout, selection.visible(layout.per_frame, masked))

  def places(self, chosen: Int[Array, "B K"], layout: Layout) -> Int[Array, "B K"]:
    """Where the encoder takes a clip's tokens to lie.

    A long encoder's positions are those of a short one drawn out: a short clip that is spread over
    them has what the short one had.
    """
    if not self.config.spread:
      return chosen
    own, frames = self.config.encoder.layout.grid[0], layout.grid[0]
    time, site = chosen // layout.per_frame, chosen % layout.per_frame
    return time * (own // frames) * layout.per_frame + site

  def features(
    self, frozen: Params, video: UInt8[Array, "B T H W 3"], keys: Key[Array, "B"]
  ) -> tuple[Float[Array, "B S V"], Bool[Array, "B S"]]:
    """What the resampler reads of clips, and which of it is there."""
    layout, chosen = self.layout(video.shape[1]), self.chosen(keys, video.shape[1])
    patches = gather_tubelets(video, layout, chosen)  # no other is ever embedded
    run = dataclasses.replace(self.vision, first_trained=self.config.encoder.depth)
    encoder = Encoder(self.config.encoder, run)
    at = self.places(chosen, layout)
    tokens = encoder.apply({"params": frozen["encoder"]}, patches, at, frames=layout.grid[0])
    tokens = tokens[:, -chosen.shape[1] :]  # without class tokens
    return jax.lax.stop_gradient(POOLS[self.config.pool](tokens, chosen, layout))

  def shown(
    self, frozen: Params, video: UInt8[Array, "B T H W 3"], rows: Int[Array, "B"]
  ) -> tuple[Float[Array, "B S V"], Bool[Array, "B S"]]:
    """`features` outside of training: which tokens are dropped depends on a row's number alone, so
    that what is found can be had again."""
    keys = row_keys(key(jax.random.key(0), "evaluate"), "visible", rows)
    return self.features(frozen, video, keys)

  def looking(
    self, params: Params, features: Float[Array, "B S V"], there: Bool[Array, "B S"]
  ) -> Between:
    """What lets the language model look at these features."""
    module = Resampler(self.config.resampler, self.language)
    latents = module.apply({"params": params["resampler"]}, features, there)
    return self._bridge.between(params["bridge"], latents, jnp.ones(latents.shape[:2], bool))

  @property
  def words(self) -> LanguageConfig:
    """What the language model is."""
    return self.config.language

  @property
  def _bridge(self) -> Bridge:
    return Bridge(self.config.bridge, self.language.dtype)
