"""How large the study of LongViViT's claims is on which machine, and its conditions."""

import dataclasses
import hashlib
import json
import pathlib

from vfe.data.tabletop.world import GENERATOR, World
from vfe.models.dual_encoder import DualConfig
from vfe.models.text import TextConfig
from vfe.models.vivit import EncoderConfig


@dataclasses.dataclass(frozen=True)
class Condition:
  """One training. after: the condition with whose parameters it begins.

  stage: image, short or long. mask: the share of a clip's tokens that do not enter in training.
  input: pixels, or difference (`contrast_jobs.inputs`). text: order, or objects, which says nothing
  of what happens. last: only the last layers are tuned.
  """

  stage: str
  after: str | None = "image"
  mixing: str = "joint"
  mask: float = 0.0
  input: str = "difference"
  text: str = "order"
  streams: tuple[str, ...] = ("video",)
  last: bool = False


# The forms of a text that a stage trains on, and those in which it is tested.
FORMS_OF = {
  "order": {"image": ("objects",), "short": ("order", "summary"), "long": ("summary",)},
  "objects": dict.fromkeys(("image", "short", "long"), ("objects",)),
  "tested": {"image": ("objects",), "short": ("order", "objects"), "long": ("summary",)},
}

MIXINGS = ("joint", "factorised", "frame")
CONDITIONS = {
  "image": Condition("image", None, streams=("image",)),
  **{
    f"{mixing}-{100 * mask:.0f}": Condition("short", mixing=mixing, mask=mask)
    for mask in (0.0, 0.25, 0.5, 0.75)
    for mixing in MIXINGS
  },
  "long-full": Condition("long", "joint-0"),
  "long-last-75": Condition("long", "joint-0", mask=0.75, last=True),
  "joint-pixels": Condition("short", input="pixels"),
  "joint-objects": Condition("short", text="objects"),
  "frame-objects": Condition("short", mixing="frame", text="objects"),
  "images-and-videos": Condition("short", streams=("video", "image")),
  "images-only": Condition("short", streams=("image",)),
}


def place(folder: pathlib.Path, name: str, seed: int) -> pathlib.Path:
  """Where a condition's parameters lie."""
  return folder / f"{name}-{seed}.npz"


@dataclasses.dataclass(frozen=True)
class Size:
  """One scale of the study. Rates are for the batch at hand."""

  # The world: two events a clip, on a table of a few objects
  size: int
  objects: tuple[int, int]
  texture: str
  motion: float
  apart: int  # of the drawn frames every so many-th is seen
  frames: int  # seen of a short clip
  long_frames: int  # and of a long one
  shape_words: bool  # whether texts say the objects' shapes, beside their colours
  event_nouns: bool  # whether texts of events say to which objects
  small_words: bool  # whether texts have the words that all of their form have
  length: int  # words of the longest text
  # The networks
  tubelet: tuple[int, int, int]
  width: int
  depth: int
  heads: int
  text_width: int
  text_depth: int
  joint: int  # width of the space in which both meet
  dtype: str
  last: int  # layers that are tuned of the long stage's last ones
  # Training
  masks: tuple[float, ...]  # of the short stage
  images: int
  videos: int
  long_videos: int
  tests: int
  image_steps: int
  image_batch: int
  steps: int
  batch: int
  long_steps: int
  long_batch: int
  rate: float
  long_rate: float
  part: int  # clips tested at a time

  def vision(self, stage: str, mixing: str = "joint") -> EncoderConfig:
    """The encoder of a stage: of images, or of short or long clips."""
    frames = {"image": 1, "short": self.frames, "long": self.long_frames}[stage]
    return EncoderConfig(
      frames=frames,
      size=self.size,
      tubelet=(1, *self.tubelet[1:]) if stage == "image" else self.tubelet,
      width=self.width,
      depth=self.depth,
      heads=self.heads,
      mlp=4 * self.width,
      positions="learned",
      mixing=mixing,
      images=stage == "short",
    )

  def dual(self, vision: EncoderConfig, vocabulary: int) -> DualConfig:
    """Both towers; one word more than the vocabulary's, for padding."""
    text = TextConfig(
      vocabulary=vocabulary + 1,
      width=self.text_width,
      depth=self.text_depth,
      heads=self.heads,
      mlp=4 * self.text_width,
      positions=self.length,
    )
    return DualConfig(vision, text, self.joint)

  def world(self, kind: str, seed: int) -> World:
    """Every seed has clips of its own; images are of tables with no story of two events."""
    frames = {"image": 16, "short": self.frames * self.apart, "long": self.long_frames * self.apart}
    return World(
      size=self.size,
      frames=frames[kind],
      rung="appearance" if kind == "image" else "order",
      objects=self.objects,
      texture=self.texture,
      motion=self.motion,
      seed=seed,
    )

  def count(self, kind: str, split: str) -> int:
    """Clips of a kind in a split."""
    if split == "test":
      return self.tests
    return {"image": self.images, "short": self.videos, "long": self.long_videos}[kind]

  def conditions(self) -> tuple[str, ...]:
    """Names in the order in which they are run; a condition comes after the one it begins with."""
    runs = lambda condition: condition.stage != "short" or condition.mask in self.masks
    return tuple(name for name, condition in CONDITIONS.items() if runs(condition))

  def digest(self) -> str:
    """8 hex digits of everything here: rows of another size are never mixed with these."""
    conditions = {name: dataclasses.asdict(condition) for name, condition in CONDITIONS.items()}
    text = json.dumps([GENERATOR, dataclasses.asdict(self), conditions, FORMS_OF])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# Fixed by whether the joint encoder, unmasked, reads the order of a text in two minutes (seed 0).
# With nouns in the texts of events it learned nouns and no order, and with all words far later; 3x3
# sites of 24 pixels did better than 4x4 of 32. Shapes take longer than colours (`ladder`).
CPU = Size(
  size=24, objects=(2, 2), texture="still", motion=0.0, apart=2, frames=16, long_frames=64,
  shape_words=False, event_nouns=False, small_words=False, length=8,
  tubelet=(2, 8, 8), width=64, depth=3, heads=2, text_width=48, text_depth=2, joint=64,
  dtype="float32", last=1,
  masks=(0.0, 0.75), images=600, videos=1800, long_videos=600, tests=192,
  image_steps=80, image_batch=32, steps=450, batch=16, long_steps=100, long_batch=16,
  rate=1.5e-3, long_rate=7.5e-4, part=32,
)  # fmt: skip

# By arithmetic, not run: about 6e16 operations in all, ten minutes at 1e14 a second.
GPU = Size(
  size=64, objects=(2, 4), texture="weak", motion=1.0, apart=2, frames=16, long_frames=64,
  shape_words=True, event_nouns=False, small_words=True, length=40,
  tubelet=(2, 8, 8), width=192, depth=12, heads=4, text_width=128, text_depth=4, joint=192,
  dtype="bfloat16", last=4,
  masks=(0.0, 0.25, 0.5, 0.75), images=6000, videos=6000, long_videos=1500, tests=512,
  image_steps=1000, image_batch=128, steps=1000, batch=64, long_steps=600, long_batch=16,
  rate=1e-3, long_rate=5e-4, part=16,
)  # fmt: skip

# Everything runs, nothing is learned: for the tests.
TEST = Size(
  size=16, objects=(2, 2), texture="still", motion=0.0, apart=8, frames=4, long_frames=8,
  shape_words=False, event_nouns=False, small_words=False, length=8,
  tubelet=(2, 8, 8), width=16, depth=2, heads=2, text_width=16, text_depth=1, joint=8,
  dtype="float32", last=1,
  masks=(0.0, 0.75), images=6, videos=8, long_videos=6, tests=6,
  image_steps=2, image_batch=4, steps=2, batch=4, long_steps=2, long_batch=2,
  rate=1e-3, long_rate=1e-3, part=6,
)  # fmt: skip

SIZES = {"cpu": CPU, "gpu": GPU, "test": TEST}
