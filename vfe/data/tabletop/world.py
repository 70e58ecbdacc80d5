"""The world's settings, its words and its ladder of difficulty."""

import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Mapping

import numpy as np

from vfe.errors import UserError

GENERATOR = 2  # raised whenever the same settings would give other pixels or other labels
FPS = 16
SPLITS = ("train", "validation", "test")

COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SHAPES = ("ball", "block", "cone", "ring", "cross")
NOUNS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
VERBS = (
  "push left",
  "push right",
  "lift",
  "put down",
  "rotate",
  "tip over",
  "stand up",
  "shake",
  "cover",
  "uncover",
  "swap",
  "tap",
)

# Order: two different ones of these, one after the other.
ORDER_VERBS = ("push left", "push right", "rotate", "shake")
ORDERS = tuple(itertools.permutations(ORDER_VERBS, 2))

# Routine: a first event, 1 to 3 rotations in the middle, a last event.
FIRST_VERBS = ("push left", "push right")
REPEATED_VERB = "rotate"
REPEATS = (1, 2, 3)
LAST_VERBS = ("tip over", "cover")
ROUTINES = tuple(itertools.product(FIRST_VERBS, REPEATS, LAST_VERBS))

ABSENT_PRESENT = ("absent", "present")
CONTROL = {f"has_{word}": ABSENT_PRESENT for word in COLOURS + SHAPES}

HEADS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
  "appearance": {"noun": NOUNS, "colour": COLOURS, "shape": SHAPES},
  "verb": {"verb": VERBS, "noun": NOUNS},
  "order": {
    "order": tuple(f"{first} then {second}" for first, second in ORDERS),
    "first": ORDER_VERBS,
    "second": ORDER_VERBS,
  },
  "routine": {
    "routine": tuple(f"{a}, {REPEATED_VERB} x{n}, {b}" for a, n, b in ROUTINES),
    "first": FIRST_VERBS,
    "repeats": tuple(str(n) for n in REPEATS),
    "last": LAST_VERBS,
  },
  # The routine's own videos, asked only what is on the table: a frame is enough to answer.
  "control": CONTROL,
}
RUNGS = tuple(HEADS)

# Fewer frames than this and an event of the rung would be over within three or four.
FEWEST_FRAMES = {"appearance": 16, "verb": 16, "order": 32, "routine": 64, "control": 64}
MOST_FRAMES = 1024
MOST_OBJECTS = 5  # of six places: one stays free to push an object to


@dataclasses.dataclass(frozen=True)
class Texture:
  """How the table looks and how much everything moves against the camera.

  contrast: standard deviation of the table's brightness, in 0..255.
  drift: distance that the pattern slides in a frame, in widths of the picture.
  pan, roll, zoom: how far the head sways: widths of the picture, radians, share.
  """

  contrast: float
  drift: float
  pan: float
  roll: float
  zoom: float


TEXTURES = {
  "still": Texture(contrast=5.0, drift=0.0, pan=0.0, roll=0.0, zoom=0.0),
  "weak": Texture(contrast=9.0, drift=0.003, pan=0.02, roll=0.04, zoom=0.03),
  "strong": Texture(contrast=26.0, drift=0.012, pan=0.045, roll=0.09, zoom=0.06),
}


def _require(true: bool, message: str) -> None:
  if not true:
    raise UserError(f"data.tabletop.{message}")


@dataclasses.dataclass(frozen=True)
class World:
  """All that decides what is drawn, apart from the split and the index of a video.

  size: height and width in pixels, even (H.264 stores colour at half size).
  objects: least and most objects on the table.
  motion: factor on the head's motion and on the table's drift; 0 nails the camera down.
  """

  size: int = 64
  frames: int = 128
  rung: str = "routine"
  objects: tuple[int, int] = (2, 4)
  texture: str = "weak"
  motion: float = 1.0
  seed: int = 0

  def __post_init__(self):
    _require(self.rung in RUNGS, f"rung={self.rung!r} is not one of {', '.join(RUNGS)}.")
    names = ", ".join(TEXTURES)
    _require(self.texture in TEXTURES, f"texture={self.texture!r} is not one of {names}.")
    _require(
      self.size % 2 == 0 and 16 <= self.size <= 512,
      f"size={self.size} is not an even number from 16 to 512; use 32 or 64.",
    )
    least = FEWEST_FRAMES[self.rung]
    _require(
      least <= self.frames <= MOST_FRAMES,
      f"frames={self.frames} does not suit the rung {self.rung!r}; use {least} to {MOST_FRAMES}.",
    )
    low, high = self.objects
    fewest = 1 if self.rung == "appearance" else 2
    _require(
      fewest <= low <= high <= MOST_OBJECTS,
      f"objects={self.objects} does not suit the rung {self.rung!r}; "
      f"use (least, most) within {fewest} to {MOST_OBJECTS}.",
    )
    _require(self.seed >= 0, f"seed={self.seed} is negative; use 0 or more.")
    _require(0 <= self.motion <= 2, f"motion={self.motion} is out of range; use 0 to 2.")

  def digest(self) -> str:
    """12 hex digits of the settings and the generator's version: the name of this world's cache."""
    text = json.dumps([GENERATOR, dataclasses.asdict(self)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def heads(rung: str) -> dict[str, tuple[str, ...]]:
  """The label heads of a rung, each with its class names in the order of their numbers."""
  _require(rung in HEADS, f"rung={rung!r} is not one of {', '.join(RUNGS)}.")
  return dict(HEADS[rung])


def generator(world: World, split: str, index: int, use: str) -> np.random.Generator:
  """The random numbers of one use in one video; splits never share any."""
  _require(split in SPLITS, f"split={split!r} is not one of {', '.join(SPLITS)}.")
  words = [world.seed, zlib.crc32(split.encode()), index, zlib.crc32(use.encode())]
  return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def balanced(world: World, split: str, index: int, classes: int, use: str) -> int:
  """A class for a video, such that each block of `classes` videos holds every class once."""
  block, place = divmod(index, classes)
  return int(generator(world, split, block, use).permutation(classes)[place])
