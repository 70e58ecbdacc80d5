"""Multi-instance retrieval, where several captions tell of a clip, more or less well.

EPIC-Kitchens-100's measures (arXiv 2006.13256, 4.6; Joint-Part-of-Speech-Embeddings): relevancy is
graded by what a caption and a clip share, mAP and nDCG go both ways, over all captions and clips.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vfe.evaluate.retrieval import CELLS, TIE, Retrieval

FILE = "multi_instance.json"

Tags = Sequence[frozenset[int]]


class MultiInstance(Retrieval):
  """A collector (`vfe.evaluate.evaluator`) of embeddings of clips and of captions.

  A record's texts are `caption`, `verbs` and `nouns`, the classes that it is about, and `query`,
  whether its caption stands among the captions: of clips that are told of in the same words, one's
  does (`vfe.data.captioned.epic_kitchens`); without it all do.
  `collect` is that of `Retrieval`, and so are the averaging of views and what is left out. What is
  equally close counts as the least relevant first, so an encoder that embeds everything alike
  scores what it must; so does an embedding that is not finite.
  """

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`video_to_text/`, `text_to_video/` and `mean/` `mAP`, `nDCG` and `mAP_binary`, in [0, 1];
    `clips`, `captions` and, where clips could not be read, `clips_missing`.

    `mAP` is what the benchmark's program prints, and every paper: the precision at a relevant item
    counts all items before it by their grade, so that a random order has 0.057 on the test split.
    `mAP_binary` counts relevant ones alone, those of relevancy 1, as the words
    of the definition say: 0.004 at random.

    A folder gets `multi_instance.json`, the metrics.
    """
    records, video = self._averaged()
    captions, text = self._distinct_captions()
    asked = [self._source[int(record)].text.get("query", True) for record in captions[:, 0]]
    captions, text = captions[np.array(asked, bool)], text[np.array(asked, bool)]
    graded = relevancies(self._tags(records), self._tags(captions[:, 0]))
    table = np.nan_to_num(video, nan=0.0) @ np.nan_to_num(text, nan=0.0).T
    table[~np.isfinite(video).all(1)] = table[:, ~np.isfinite(text).all(1)] = -2.0  # below cosines
    metrics = {"clips": float(len(records)), "captions": float(len(captions))}
    if len(records) < len(self._source):
      metrics["clips_missing"] = float(len(self._source) - len(records))
    ways = {"video_to_text": (table, graded), "text_to_video": (table.T, graded.T)}
    found = {way: measures(*tables) for way, tables in ways.items()}
    metrics |= {f"{way}/{name}": value for way, of in found.items() for name, value in of.items()}
    for name in next(iter(found.values())):
      metrics[f"mean/{name}"] = float(np.mean([of[name] for of in found.values()]))
    if folder is not None:
      folder = pathlib.Path(folder)
      folder.mkdir(parents=True, exist_ok=True)
      (folder / FILE).write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics

  def _tags(self, records: np.ndarray) -> tuple[Tags, Tags]:
    """(verbs, nouns) of each record."""
    texts = [self._source[int(record)].text for record in records]
    return tuple([frozenset(text[name]) for text in texts] for name in ("verbs", "nouns"))


def relevancies(
  clips: tuple[Tags, Tags], captions: tuple[Tags, Tags]
) -> Float[np.ndarray, "N M"]:
  """How relevant each caption is to each clip, in [0, 1]: the mean, over verbs and nouns, of what
  is common to both as a share of what either has; of nothing at all, nothing is common."""
  return sum(_overlap(*tags) for tags in zip(clips, captions, strict=True)) / 2


def _overlap(left: Tags, right: Tags) -> np.ndarray:
  """float64[N, M]: |a and b| / |a or b|, by classes that are few."""
  count = 1 + max((number for tags in (*left, *right) for number in tags), default=0)
  hot = [np.zeros((len(side), count), np.float32) for side in (left, right)]
  for rows, side in zip(hot, (left, right), strict=True):
    for row, tags in zip(rows, side, strict=True):
      row[list(tags)] = 1
  common = (hot[0] @ hot[1].T).astype(np.float64)
  either = hot[0].sum(1)[:, None] + hot[1].sum(1)[None, :] - common
  return common / np.maximum(either, 1)


def measures(
  similarity: Float[np.ndarray, "Q I"], relevancy: Float[np.ndarray, "Q I"]
) -> dict[str, float]:
  """The means over the queries of mAP, nDCG and mAP_binary; see `MultiInstance`.

  nDCG is DCG by the ideal one, both over as many items as have any relevancy. A query to which
  nothing is relevant at all counts for neither, one to which nothing is wholly so for no mAP.
  """
  values: dict[str, list[np.ndarray]] = {"mAP": [], "nDCG": [], "mAP_binary": []}
  size = max(1, CELLS // max(1, similarity.shape[1]))
  place = np.arange(1, similarity.shape[1] + 1)
  for start in range(0, len(similarity), size):
    rows = slice(start, start + size)
    near, grades = np.rint(similarity[rows] / TIE), relevancy[rows]
    order = np.lexsort((grades, -near), axis=1)
    ranked, ideal = np.take_along_axis(grades, order, 1), -np.sort(-grades, axis=1)
    whole, gain = ranked == 1, (ideal > 0) / np.log2(place + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
      values["nDCG"].append(np.sum(ranked * gain, 1) / np.sum(ideal * gain, 1))
      for name, counted in (("mAP", ranked), ("mAP_binary", whole)):
        precision = np.cumsum(counted, axis=1) / place
        values[name].append(np.sum(precision * whole, 1) / np.sum(whole, 1))
  return {name: _mean(np.concatenate(of or [np.zeros(0)])) for name, of in values.items()}


def _mean(values: np.ndarray) -> float:
  there = values[~np.isnan(values)]
  return float(np.mean(there)) if len(there) else float("nan")
