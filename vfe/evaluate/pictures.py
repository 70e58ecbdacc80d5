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

  def _dimmed(self, frames: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return dimmed(frames, kept, self._layout)


class PrunedTokens:
  """The first clips, and below each what is left of it after every layer that prunes: SViTT-Ego's
  Figure 1. With patterns, also which blocks of tokens meet in each layer.

  Takes outputs frames uint8[B, t, S, S, 3] (one a latent frame) and kept bool[B, R, N], R times.
  """

  def __init__(self, layout: Layout, patterns: Sequence[Bool[np.ndarray, "_M _M"]] = ()):
    self._layout, self._patterns = layout, patterns
    self._rows: list[np.ndarray] = []

  def collect(self, outputs: Mapping[str, Any], batch: dict[str, Any]) -> None:
    """Keeps the first valid rows."""
    each = 1 + outputs["kept"].shape[1]
    for row in np.flatnonzero(batch["valid"])[: ROWS - len(self._rows) // each]:
      frames = outputs["frames"][row]
      tiles = [frames] + [dimmed(frames, kept, self._layout) for kept in outputs["kept"][row]]
      self._rows += [strip(tile) for tile in tiles]

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """Writes pruned_tokens.png, and edges.png: a square a layer, a row the blocks that one sees."""
    if folder and self._rows:
      save(folder / "pictures" / "pruned_tokens.png", self._rows)
    if folder and self._patterns:
      save(folder / "pictures" / "edges.png", [edges(self._patterns)])
    return {}


def dimmed(
  frames: UInt8[np.ndarray, "t S S 3"], kept: Bool[np.ndarray, "N"], layout: Layout
) -> UInt8[np.ndarray, "t S S 3"]:
  """The clip, its tokens that are not kept darkened."""
  _, height, width = layout.tubelet
  mask = kept.reshape(layout.grid).repeat(height, 1).repeat(width, 2)[..., None]
  return np.where(mask, frames, frames // 6)


def edges(patterns: Sequence[Bool[np.ndarray, "_M _M"]]) -> UInt8[np.ndarray, "H W 3"]:
  """Squares of equal size, side by side: white where a row's block sees a column's, and where it
  sees itself grey."""
  side = max(LEAST_HEIGHT, *(len(pattern) for pattern in patterns))
  squares = []
  for pattern in patterns:
    grey = np.where(np.eye(len(pattern), dtype=bool) & pattern, 160, 255 * pattern)
    place = np.arange(side) * len(pattern) // side
    square = grey.astype(np.uint8)[place][:, place]
    squares.append(np.pad(square, ((0, GAP), (0, GAP)), constant_values=90))
  return np.concatenate(squares, axis=1)[..., None].repeat(3, axis=2)


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
