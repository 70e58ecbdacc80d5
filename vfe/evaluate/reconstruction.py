"""How well a tokenizer draws what it has seen: PSNR, use of the codebook, pictures to look at."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vfe.evaluate.pictures import save, strip

# PSNR of a video that is drawn without any error would be infinite.
PSNR_LIMIT = 100.0


def psnr(video: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """Decibels by clip, float64[B]: -10 log10 of the mean squared error over all of its pixels.

  Both are uint8[B,T,H,W,3], with peak 255. At most 100, which stands for no error at all.
  """
  error = (np.asarray(video, np.float32) - np.asarray(drawn, np.float32)) / 255.0
  mean = np.square(error, dtype=np.float64).reshape(len(error), -1).mean(1)
  return -10 * np.log10(np.maximum(mean, 10 ** (-PSNR_LIMIT / 10)))


class CodebookUse:
  """Counts how often each code of an FSQ codebook is used.

  levels: by channel; a code is the number whose first digit is the first channel's level
  (`vfe.models.fsq.indices_of_codes`).
  """

  def __init__(self, levels: Sequence[int]):
    self._levels = tuple(levels)
    self._counts = np.zeros(math.prod(self._levels), np.int64)

  def add(self, codes: np.ndarray) -> None:
    """Takes codes of any shape, in 0 .. prod(levels) - 1."""
    self._counts += np.bincount(np.asarray(codes).ravel(), minlength=len(self._counts))

  def measures(self) -> dict[str, float]:
    """The share of codes used, and the perplexity, also of every channel's levels.

    Perplexity is exp of the entropy, in 1 .. the number of codes: so many equally likely codes
    would tell as much. `codebook/tokens` limits both: fewer tokens than codes cannot use all.
    """
    total = max(int(self._counts.sum()), 1)
    found = {
      "codebook/tokens": float(self._counts.sum()),
      "codebook/used": float(np.mean(self._counts > 0)),
      "codebook/perplexity": _perplexity(self._counts / total),
    }
    by_channel = self._counts.reshape(self._levels, order="F") / total
    for channel in range(len(self._levels)):
      others = tuple(other for other in range(len(self._levels)) if other != channel)
      found[f"codebook/perplexity_{channel}"] = _perplexity(by_channel.sum(axis=others))
    return found


class Reconstructions:
  """A collector (`vfe.evaluate.evaluator`) for a tokenizer: PSNR, use of the codebook, pictures.

  levels: the codebook's. clips: how many are kept to be looked at. The pictures are the first
  clips in the order of the records.
  """

  def __init__(self, levels: Sequence[int], clips: int = 4):
    self._use = CodebookUse(levels)
    self._clips = clips
    self._psnr: dict[str, list[np.ndarray]] = {"psnr": [], "psnr_from_all": []}
    self._kept: list[np.ndarray] = []
    self._shown: dict[tuple[int, int], list[np.ndarray]] = {}

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: video, drawn (from the kept tokens) and drawn_from_all uint8[B,T,H,W,3]; mask
        float[B,t,h,w], 1 where a token was kept; codes int[B,...].
      batch: valid bool[B]; record and view int32[B].
    """
    valid = np.asarray(batch["valid"])
    part = {name: np.asarray(value)[valid] for name, value in outputs.items()}
    if not len(part["video"]):
      return
    self._psnr["psnr"].append(psnr(part["video"], part["drawn"]))
    self._psnr["psnr_from_all"].append(psnr(part["video"], part["drawn_from_all"]))
    self._kept.append(part["mask"].reshape(len(part["mask"]), -1).mean(1))
    self._use.add(part["codes"])
    rows = zip(np.asarray(batch["record"])[valid], np.asarray(batch["view"])[valid], strict=True)
    for i, (record, view) in enumerate(rows):
      self._keep((int(record), int(view)), {name: value[i] for name, value in part.items()})

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`psnr` from the kept tokens, `psnr_from_all`, `kept` (share of tokens), `codebook/...`.

    A folder gets `reconstructions.png`: for each clip, from above, a few frames of the video, the
    same drawn from the kept tokens and from all, and the video with what was not kept darkened.
    """
    metrics = {name: _mean(parts) for name, parts in self._psnr.items()}
    metrics |= {"kept": _mean(self._kept), **self._use.measures()}
    if folder is not None and self._shown:
      strips = [one for place in sorted(self._shown) for one in self._shown[place]]
      save(folder / "reconstructions.png", strips)
    return metrics

  def _keep(self, place: tuple[int, int], clip: dict[str, np.ndarray]) -> None:
    if len(self._shown) < self._clips or place < max(self._shown):
      self._shown[place] = _strips(clip)
    if len(self._shown) > self._clips:
      del self._shown[max(self._shown)]


def _strips(clip: Mapping[str, np.ndarray]) -> list[np.ndarray]:
  """One clip's rows of frames; see `Reconstructions.finish`."""
  video, mask = clip["video"], clip["mask"]
  scale = [size // cells for size, cells in zip(video.shape[:3], mask.shape, strict=True)]
  for axis, times in enumerate(scale):
    mask = np.repeat(mask, times, axis)
  kept = (video * np.where(mask > 0, 1.0, 0.2)[..., None]).astype(np.uint8)
  return [strip(frames) for frames in (video, clip["drawn"], clip["drawn_from_all"], kept)]


def _perplexity(share: np.ndarray) -> float:
  share = share[share > 0]
  return float(np.exp(-np.sum(share * np.log(share))))


def _mean(parts: list[np.ndarray]) -> float:
  return float(np.concatenate(parts).astype(np.float64).mean()) if parts else float("nan")
