"""Retrieval among the evaluated clips: text to video and video to text, zero-shot or not."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from vfe.data.record import Source
from vfe.data.text import captions_of

FILE = "retrieval.csv"
EMBEDDINGS = "embeddings.npz"
RECALLS = (1, 5, 10)
TOP = 5
TIE = 1e-6  # of cosines: a few times float32's rounding of a product of unit rows
CELLS = 1 << 22  # of the similarity matrix that are there at once


@dataclasses.dataclass(frozen=True)
class Ranks:
  """Ranks from 1; `text` int64[M] of each caption's video, `video` int64[N] of each video's best
  caption, 0 where it has none; `nearest` int64[M, 5 or N] are the videos closest to a caption."""

  text: np.ndarray
  video: np.ndarray
  nearest: np.ndarray


class Retrieval:
  """A collector (`vfe.evaluate.evaluator`) of embeddings of clips and of their captions.

  Every caption is a query for its video among all videos; every video that has captions one for
  any of them among all captions, and its rank is that of the best. Embeddings of a record's views
  are averaged and brought to length 1 again; padding is left out, and a row that comes twice counts
  once. Equal similarities count as worse than they could be: what is as close as the right one
  comes before it, so an encoder that embeds everything alike scores nothing. So does an embedding
  that is not finite: its own rank is the last, and it comes before no other.
  """

  def __init__(self, source: Source, key: str | None = None):
    """key: of the records' texts (`data.text.key`), so that the file has the captions' words."""
    self._source = source
    self._key = key
    self._videos: list[np.ndarray] = []  # float32[n, D]
    self._views: list[np.ndarray] = []  # int32[n, 2]: record, view
    self._texts: list[np.ndarray] = []
    self._captions: list[np.ndarray] = []  # int32[m, 2]: record, caption

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: video float[B,D]; text float[B,C,D]; mask bool[B,C], which captions there are.
      batch: valid bool[B]; record and view int32[B].
    """
    valid = np.asarray(batch["valid"])
    record = np.asarray(batch["record"])[valid]
    self._videos.append(np.asarray(outputs["video"], np.float32)[valid])
    self._views.append(np.stack([record, np.asarray(batch["view"])[valid]], axis=1))
    row, caption = np.nonzero(np.asarray(outputs["mask"])[valid])
    self._texts.append(np.asarray(outputs["text"], np.float32)[valid][row, caption])
    self._captions.append(np.stack([record[row], caption], axis=1))

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`text_to_video/` and `video_to_text/` `R@1`, `R@5`, `R@10` (shares in [0, 1]), `median_rank`
    and `mean_rank`; `clips`, `captions` and, where videos could not be read, `clips_missing`.

    A folder gets `retrieval.csv`, a line for every caption: its record's name, its number, its
    words where they are known, its rank and the names of the five closest videos, separated by `|`;
    and `embeddings.npz`: `names` [N] and `video` float32[N, D].
    """
    records, video = self._averaged()
    captions, text = self._distinct_captions()
    found = ranks(video, text, np.searchsorted(records, captions[:, 0]))
    metrics = {"clips": float(len(records)), "captions": float(len(captions))}
    if len(records) < len(self._source):
      metrics["clips_missing"] = float(len(self._source) - len(records))
    metrics |= _measures("text_to_video", found.text)
    metrics |= _measures("video_to_text", found.video[found.video > 0])
    if folder is not None:
      self._write(pathlib.Path(folder), records, video, captions, found)
    return metrics

  def _averaged(self) -> tuple[np.ndarray, np.ndarray]:
    """(records ascending, float32[N, D] of length 1)"""
    if not self._videos:
      return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    views, first = np.unique(np.concatenate(self._views), axis=0, return_index=True)
    records, starts = np.unique(views[:, 0], return_index=True)
    rows = _unit(np.concatenate(self._videos)[first])
    summed = np.add.reduceat(rows, starts, axis=0) if len(rows) else rows
    return records, _unit(summed)

  def _distinct_captions(self) -> tuple[np.ndarray, np.ndarray]:
    """(int32[M, 2] of record and caption ascending, float32[M, D] of length 1)"""
    if not self._texts:
      return np.zeros((0, 2), np.int64), np.zeros((0, 0), np.float32)
    captions, first = np.unique(np.concatenate(self._captions), axis=0, return_index=True)
    return captions, _unit(np.concatenate(self._texts)[first])

  def _write(
    self,
    folder: pathlib.Path,
    records: np.ndarray,
    video: np.ndarray,
    captions: np.ndarray,
    found: Ranks,
  ) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [self._source[int(record)].name for record in records]
    np.savez(folder / EMBEDDINGS, names=np.array(names, str), video=video)
    words = {}
    if self._key is not None:
      words = {int(r): captions_of(self._source[int(r)], self._key) for r in records}
    places = np.searchsorted(records, captions[:, 0])
    with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["name", "caption", "words", "rank", f"top{TOP}"])
      for (record, caption), place, rank, near in zip(
        captions.tolist(), places, found.text, found.nearest, strict=True
      ):
        said = words[record][caption] if record in words else ""
        writer.writerow([names[place], caption, said, rank, "|".join(names[i] for i in near)])


def ranks(
  video: Float32[np.ndarray, "N D"],
  text: Float32[np.ndarray, "M D"],
  owner: Int[np.ndarray, "M"],
) -> Ranks:
  """Ranks by cosine, of rows of length 1; `owner` is the video of each caption.

  Whatever is within 1e-6 of the right one counts as before it. The M x N similarities are looked at
  in blocks of captions.
  """
  count = len(video)
  bad_video, bad_text = (~np.isfinite(rows).all(1) for rows in (video, text))
  video, text = (
    np.where(bad[:, None], np.float32(0), rows)
    for bad, rows in ((bad_video, video), (bad_text, text))
  )
  lost = bad_text | bad_video[owner]
  own = np.sum(text * video[owner], axis=1)
  best = np.full(count, -np.inf, np.float32)
  np.maximum.at(best, owner[~lost], own[~lost])
  of_text, of_video = np.ones(len(text), np.int64), np.ones(count, np.int64)
  nearest = np.zeros((len(text), min(TOP, count)), np.int64)
  size = max(1, CELLS // max(1, count))
  for start in range(0, len(text), size):
    rows = slice(start, start + size)
    table = text[rows] @ video.T
    table[:, bad_video] = -np.inf
    nearest[rows] = _largest(table)
    table[np.arange(len(table)), owner[rows]] = -np.inf  # it is not before itself, nor its twins
    of_text[rows] += np.sum(table >= own[rows, None] - TIE, axis=1)
    table[bad_text[rows]] = -np.inf
    of_video += np.sum(table >= best - TIE, axis=0)
  of_text[lost] = count
  captions = np.bincount(owner, minlength=count)
  of_video = np.where(np.isfinite(best), of_video, 1 + len(text) - captions)
  return Ranks(of_text, np.where(captions > 0, of_video, 0), nearest)


def _largest(table: np.ndarray) -> np.ndarray:
  """Columns of the largest few of every row, the largest first."""
  few = min(TOP, table.shape[1])
  columns = np.argpartition(-table, few - 1, axis=1)[:, :few]
  order = np.argsort(-np.take_along_axis(table, columns, 1), axis=1, kind="stable")
  return np.take_along_axis(columns, order, 1)


def _unit(rows: np.ndarray) -> np.ndarray:
  """float32 rows of length 1; zeros stay."""
  length = np.sqrt(np.sum(np.square(rows), axis=1, keepdims=True, dtype=np.float32))
  return (rows / np.maximum(length, np.float32(1e-12))).astype(np.float32)


def _measures(way: str, found: np.ndarray) -> dict[str, float]:
  over = lambda measure, values: float(measure(values)) if len(values) else float("nan")
  return {
    **{f"{way}/R@{k}": over(np.mean, found <= k) for k in RECALLS},
    f"{way}/median_rank": over(np.median, found),
    f"{way}/mean_rank": over(np.mean, found),
  }
