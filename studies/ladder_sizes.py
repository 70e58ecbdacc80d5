"""How large the ladder study is on which machine; the rungs and what is asked on each."""

import dataclasses
import hashlib
import json

from vfe.data.tabletop.world import GENERATOR, World
from vfe.models.mae import DecoderConfig
from vfe.models.vivit import EncoderConfig
from vfe.tokens.layout import Layout

# What is asked of a video on each rung: one head a factor, accuracy is the mean over them.
FACTORS = {
  "appearance": ("colour", "shape"),
  "verb": ("verb",),
  "order": ("first", "second"),
  "routine": ("first", "repeats", "last"),
}
PRETRAINED_ON = "routine"  # the top rung's videos, without their labels

BASELINES = ("chance", "frame difference")
TUNED = ("fine-tuned from scratch", "fine-tuned from pre-training")
PROBED = ("probe of random features", "probe of pre-trained features")
CONDITIONS = BASELINES + TUNED + PROBED


@dataclasses.dataclass(frozen=True)
class Size:
  """One scale of the study. Rates are for the batch at hand."""

  # The world
  drawn_frames: int
  frames: int  # of the drawn ones, evenly apart, that the network sees
  size: int
  objects: tuple[int, int]
  texture: str
  motion: float
  # The networks
  tubelet: tuple[int, int, int]
  width: int
  depth: int
  heads: int
  decoder_width: int
  decoder_depth: int
  dtype: str
  # Pre-training
  visible_sites: int  # of the sites of a latent frame, the same in all of them (tube mask)
  top: float  # share of the tokens asked of the decoder because they change most
  random: float  # and at random
  pretrain_videos: int
  pretrain_steps: int
  pretrain_batch: int
  pretrain_rate: float
  # The tasks
  train_videos: int
  test_videos: int
  tune_steps: int
  tune_batch: int
  tune_rate: float
  tune_keep: float  # share of the tokens that fine-tuning sees; testing sees all
  probe_steps: int
  probe_batch: int
  probe_rate: float
  part: int  # clips tested at a time

  @property
  def encoder(self) -> EncoderConfig:
    """Positions are 3-D: at this length a flat index hardly tells neighbours from strangers."""
    return EncoderConfig(
      frames=self.frames,
      size=self.size,
      tubelet=self.tubelet,
      width=self.width,
      depth=self.depth,
      heads=self.heads,
      mlp=4 * self.width,
      positions="sincos3d",
    )

  @property
  def decoder(self) -> DecoderConfig:
    return DecoderConfig(
      self.decoder_width, self.decoder_depth, self.heads, mlp=4 * self.decoder_width
    )

  @property
  def layout(self) -> Layout:
    return self.encoder.layout

  def world(self, rung: str, seed: int) -> World:
    """Every seed has videos of its own."""
    return World(
      size=self.size,
      frames=self.drawn_frames,
      rung=rung,
      objects=self.objects,
      texture=self.texture,
      motion=self.motion,
      seed=seed,
    )

  def digest(self) -> str:
    """8 hex digits of everything here: rows of another size are never mixed with these."""
    text = json.dumps([GENERATOR, dataclasses.asdict(self), FACTORS])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# Of 8x8 sites a tube mask of 90 % leaves 6, and often none that shows the hand: it is 75 % here.
# And 10 % + 5 % of 512 tokens is little to learn from in a step: the decoder is asked for 15 + 15.
CPU = Size(
  drawn_frames=64, frames=32, size=32, objects=(2, 2), texture="still", motion=0.0,
  tubelet=(4, 4, 4), width=64, depth=3, heads=2, decoder_width=48, decoder_depth=2,
  dtype="float32",
  visible_sites=16, top=0.15, random=0.15,
  pretrain_videos=2400, pretrain_steps=3000, pretrain_batch=16, pretrain_rate=3e-3,
  train_videos=600, test_videos=384, tune_steps=300, tune_batch=16, tune_rate=1e-3,
  tune_keep=0.5, probe_steps=300, probe_batch=32, probe_rate=1e-3, part=32,
)  # fmt: skip

# 90 % of 16x16 sites masked, 128 frames, camera and table in motion: the papers' setting, smaller.
GPU = Size(
  drawn_frames=128, frames=128, size=64, objects=(2, 4), texture="weak", motion=1.0,
  tubelet=(4, 4, 4), width=256, depth=6, heads=4, decoder_width=128, decoder_depth=2,
  dtype="bfloat16",
  visible_sites=26, top=0.10, random=0.05,
  pretrain_videos=2048, pretrain_steps=4000, pretrain_batch=32, pretrain_rate=5e-4,
  train_videos=1000, test_videos=384, tune_steps=400, tune_batch=16, tune_rate=3e-4,
  tune_keep=0.25, probe_steps=600, probe_batch=32, probe_rate=1e-3, part=8,
)  # fmt: skip

# Everything runs, nothing is learned: for the tests.
TEST = Size(
  drawn_frames=64, frames=64, size=16, objects=(2, 2), texture="still", motion=0.0,
  tubelet=(16, 4, 4), width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1,
  dtype="float32",
  visible_sites=4, top=0.10, random=0.05,
  pretrain_videos=8, pretrain_steps=3, pretrain_batch=4, pretrain_rate=1e-3,
  train_videos=12, test_videos=12, tune_steps=3, tune_batch=4, tune_rate=1e-3,
  tune_keep=0.5, probe_steps=3, probe_batch=4, probe_rate=1e-3, part=6,
)  # fmt: skip

SIZES = {"cpu": CPU, "gpu": GPU, "test": TEST}
