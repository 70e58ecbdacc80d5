"""How large the study of what video tells a language model is on which machine."""

import dataclasses
import hashlib
import json

from studies import captions_texts, contrast_sizes
from vfe.models.bridge import BridgeConfig
from vfe.models.language_model import LanguageConfig
from vfe.models.resampler import ResamplerConfig
from vfe.models.video_language import VideoLanguageConfig


@dataclasses.dataclass(frozen=True)
class Condition:
  """One training of a resampler and a bridge.

  encoder: a condition of the contrastive study. view: what it sees of a long video, in `VIEWS`.
  """

  encoder: str
  view: str


# The language model is trained first, then these, each on short clips and on long videos.
LANGUAGE = "language"
CONDITIONS = {
  "long": Condition("long-full", "all"),
  "spread": Condition("joint-0", "spread"),
  "first": Condition("joint-0", "first"),
  "segments": Condition("joint-0", "parts"),
}
ENCODERS = ("joint-0", "long-full")


@dataclasses.dataclass(frozen=True)
class Size:
  """One scale of the study. Rates are for the batch at hand."""

  contrast: str  # the size of the contrastive study whose videos and encoders these are
  # The networks
  width: int
  depth: int
  heads: int
  queries: int
  resampler_depth: int
  pool: str
  # Texts
  texts: int  # stories of long videos that the language model reads; no video is drawn of them
  words: int  # the most that are written
  # Training
  language_steps: int
  language_batch: int
  language_rate: float
  steps: int
  batch: int  # of each: short clips and long videos
  rate: float
  part: int  # clips tested at a time

  @property
  def world(self) -> contrast_sizes.Size:
    """The contrastive study's size."""
    return contrast_sizes.SIZES[self.contrast]

  def stories(self, kind: str, seed: int, split: str, count: int) -> captions_texts.Stories:
    """Of a seed's short or long videos; a segment of a long one has the frames of a short one."""
    frames = self.world.frames * self.world.apart
    return captions_texts.Stories.of(self.world.world(kind, seed), split, count, frames)

  def language(self) -> LanguageConfig:
    """The shape of the language model.

    Words that stand in the same places ("left" and "right") are told apart by what they began with,
    so that they begin at unit size and are not the head, which would make them alike: otherwise no
    direction was ever copied from a prompt, in 2,000 steps.
    """
    return LanguageConfig.of(
      "test", captions_texts.WORDS, width=self.width, depth=self.depth, heads=self.heads,
      groups=self.heads, head_dim=self.width // self.heads, mlp=2 * self.width, tied=False,
      embed_scale=50.0,
    )  # fmt: skip

  def model(self, stage: str) -> VideoLanguageConfig:
    """Of the encoder of a stage of the contrastive study: short or long."""
    encoder, width = self.world.vision(stage), self.width
    head_dim = width // self.heads
    return VideoLanguageConfig(
      encoder,
      self.language(),
      ResamplerConfig(
        encoder.width, width, self.queries, self.resampler_depth, self.heads, head_dim, 4 * width
      ),
      BridgeConfig(width, self.depth, width, 1, self.heads, head_dim, 2 * width),
      self.pool,
      spread=False,  # the rows are of it; what spreading does is told in docs/results.md
    )

  def digest(self) -> str:
    """8 hex digits of everything here: rows of another size are never mixed with these."""
    conditions = {name: dataclasses.asdict(condition) for name, condition in CONDITIONS.items()}
    texts = [captions_texts.PROMPTS, captions_texts.VOCABULARY]
    language = dataclasses.asdict(self.language())
    own = [self.world.digest(), dataclasses.asdict(self), conditions, texts, language]
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:8]


# Fixed by training losses of seed 0: the language model by what it loses of a told summary, in the
# end nothing, and the rest by minutes.
CPU = Size(
  contrast="cpu", width=64, depth=2, heads=4, queries=8, resampler_depth=2, pool="time",
  texts=1800, words=20,
  language_steps=900, language_batch=16, language_rate=5e-3,
  steps=1000, batch=16, rate=2e-3, part=32,
)  # fmt: skip

# By arithmetic, not run.
GPU = Size(
  contrast="gpu", width=256, depth=6, heads=4, queries=16, resampler_depth=2, pool="time",
  texts=6000, words=20,
  language_steps=2000, language_batch=64, language_rate=1e-3,
  steps=2000, batch=64, rate=5e-4, part=64,
)  # fmt: skip

# Everything runs, nothing is learned: for the tests.
TEST = Size(
  contrast="test", width=16, depth=1, heads=2, queries=2, resampler_depth=1, pool="time",
  texts=6, words=4,
  language_steps=2, language_batch=2, language_rate=1e-3,
  steps=2, batch=2, rate=1e-3, part=6,
)  # fmt: skip

SIZES = {"cpu": CPU, "gpu": GPU, "test": TEST}
