"""Videos, images and captions of the contrastive study, as arrays."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Bool, Int32

from studies.contrast_sizes import Size
from studies.training import with_statistics
from vfe.data.tabletop import lexicon, story, text
from vfe.data.tabletop.workers import arrays
from vfe.data.tabletop.world import COLOURS, SHAPES

# What tells the world's texts of two events apart, in any of the forms.
EVENTS = ("pushes", "left", "right", "rotates", "shakes", "then", "first", "end")

# What is said of a clip: a form, or the same form of the story with its two events swapped.
FORMS = {"order": text.order, "summary": text.summary, "objects": text.objects}


def vocabulary(size: Size) -> tuple[str, ...]:
  """The words that are read, sorted. A text's other words and its punctuation are left out."""
  left_out = () if size.shape_words else SHAPES
  kept = [w for w in lexicon.vocabulary() if w.isalpha() and w not in left_out]
  return tuple(w for w in kept if size.small_words or w in EVENTS + COLOURS + SHAPES)


def noun_ids(size: Size) -> tuple[int, ...]:
  """Ids of the words that name objects."""
  return tuple(i + 1 for i, w in enumerate(vocabulary(size)) if w in COLOURS + SHAPES)


def encode(
  size: Size, texts: list[str], left_out: tuple[str, ...] = ()
) -> tuple[Int32[np.ndarray, "n L"], Bool[np.ndarray, "n L"]]:
  """(ids, mask): a word's place in the vocabulary plus 1; 0 and False where there is none."""
  number = {word: i + 1 for i, word in enumerate(vocabulary(size))}
  ids = np.zeros((len(texts), size.length), np.int32)
  for row, words in zip(ids, map(lexicon.words, texts), strict=True):
    known = [number[word] for word in words if word in number and word not in left_out]
    row[: len(known)] = known
  return ids, ids > 0


def swapped(scene: story.Scenario) -> story.Scenario:
  """The same events in the other order: what it is told from must have read the order."""
  return dataclasses.replace(scene, events=scene.events[::-1])


def captions(size: Size, scenes: list[story.Scenario]) -> dict[str, dict[str, np.ndarray]]:
  """{form: {ids, mask, swapped_ids, swapped_mask}} of the scenes."""
  found = {}
  for form, say in FORMS.items():
    left_out = () if size.event_nouns or form == "objects" else COLOURS
    ids, mask = encode(size, [say(scene) for scene in scenes], left_out)
    other, other_mask = encode(size, [say(swapped(scene)) for scene in scenes], left_out)
    found[form] = {"ids": ids, "mask": mask, "swapped_ids": other, "swapped_mask": other_mask}
  return found


def draw(size: Size, kind: str, seed: int, split: str, folder: pathlib.Path):
  """({video, mean, scale}, captions) of a seed's own clips.

  Frames are drawn once and kept in `folder`. An image is one frame, of another table.
  """
  world, count = size.world(kind, seed), size.count(kind, split)
  path = folder / f"{kind}-{split}-{seed}.npy"
  if not path.exists():
    folder.mkdir(parents=True, exist_ok=True)
    video, _ = arrays(world, split, count)
    video = video[:, :1] if kind == "image" else video[:, :: size.apart]
    partial = path.with_suffix(".partial.npy")
    np.save(partial, video)
    partial.rename(path)
  video = np.load(path)
  scenes = [story.scenario(world, index, split) for index in range(count)]
  return with_statistics(video), captions(size, scenes)
