"""Pictures that a person can judge a run by, written as PNG files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from vfe.tokens.layout import Layout

ROWS, FRAMES, GAP = 4, 8, 2
LEAST_HEIGHT = 96  # small frames are enlarged to about this many pixels


class Several:
  """Hands each named part of the outputs to a collector of its own."""

  def __init__(self, collectors: Mapping[str, Any]):
    self._collectors = collectors

  def collect(self, outputs: Mapping[str, Any], batch: dict[str, Any]) -> None:
    """Outputs have a part for every collector."""
    for name, collector in self._collectors.items():
      collector.collect(outputs[name], batch)

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """All metrics together."""
    metrics: dict[str, float] = {}
    for collector in self._collectors.values():
      metrics |= collector.finish(folder)
    return metrics


class KeptTokens:
  """The first clips with what the encoder saw and what the decoder was asked for.

  Takes outputs frames uint8[B, t, S, S, 3] (one a latent frame), visible and asked bool[B, N].
  """

  def __init__(self, layout: Layout):
    self._layout = layout
    self._rows: list[np.ndarray] = []

  def collect(self, outputs: Mapping[str, Any], batch: dict[str, Any]) -> None:
    """Keeps the first valid rows."""
    for row in np.flatnonzero(batch["valid"])[: ROWS - len(self._rows) // 3]:
      frames = outputs["frames"][row]
      tiles = [frames] + [self._dimmed(frames, outputs[n][row]) for n in ("visible", "asked")]
      self._rows += [strip(tile) for tile in tiles]

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Writes kept_tokens.png: clip, visible tokens, asked tokens, three strips a clip."""
    if folder and self._rows:
      save(folder / "pictures" / "kept_tokens.png", self._rows)
    return {}

  def _dimmed(
    self, frames: UInt8[np.ndarray, "t S S 3"], kept: Bool[np.ndarray, "N"]
  ) -> UInt8[np.ndarray, "t S S 3"]:
    _, height, width = self._layout.tubelet
    mask = kept.reshape(self._layout.grid).repeat(height, 1).repeat(width, 2)[..., None]
    return np.where(mask, frames, frames // 6)


def strip(video: UInt8[np.ndarray, "T H W 3"], count: int = FRAMES) -> UInt8[np.ndarray, "H2 W2 3"]:
  """`count` frames of a video, evenly, side by side."""
  chosen = video[np.linspace(0, len(video) - 1, min(count, len(video))).round().astype(int)]
  scale = max(1, LEAST_HEIGHT // video.shape[1])
  large = chosen.repeat(scale, 1).repeat(scale, 2)
  framed = np.pad(large, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
  return np.concatenate(list(framed), axis=1)


def save(path: pathlib.Path, strips: Sequence[UInt8[np.ndarray, "_H _W 3"]]) -> None:
  """Writes strips of equal width below each other."""
  from PIL import Image

  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.concatenate(strips, axis=0)).save(path)
