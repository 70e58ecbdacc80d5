"""Captions of a video's segments as one text: what a language model reads in place of the video."""

from collections.abc import Sequence

FRAMES = 16  # of a segment (LongViViT, arXiv 2312.07395, section 4: the paper's baseline)
NOTHING = "nothing happens"  # of a segment about which there is nothing to say


def joined(captions: Sequence[str]) -> str:
  """"Part 1: a ball falls. Part 2: nothing happens." of the captions in their order."""
  said = (caption.strip().removesuffix(".") or NOTHING for caption in captions)
  return " ".join(f"Part {number}: {caption}." for number, caption in enumerate(said, start=1))
