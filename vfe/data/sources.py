"""Where videos come from: one entry a kind of source."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from vfe.config import choose
from vfe.data import captioned, questions
from vfe.data.diving48 import list_diving48
from vfe.data.folder import list_folder
from vfe.data.listing import Classes, Entry, Listing
from vfe.data.manifest import list_manifest
from vfe.data.record import Source, VideoRecord, is_url
from vfe.errors import UserError

# data.source -> module:opener, imported when asked for. An opener takes (data config, split) and
# returns the split's Source, or None if there is no such split.
SOURCES = {
  "tabletop": "vfe.data.tabletop:open_tabletop",
  "folder": "vfe.data.sources:open_folder",
  "manifest": "vfe.data.sources:open_manifest",
  "shards": "vfe.data.shards:open_shards",
  "diving48": "vfe.data.sources:open_diving48",
  "tfds": "vfe.data.tfds.source:open_tfds",
  "egoclip": "vfe.data.ego4d.source:open_egoclip",
  **dict.fromkeys((*captioned.READERS, *questions.READERS), "vfe.data.sources:open_published"),
}


def open_source(data: ConfigDict, split: str) -> Source:
  """The videos that `config.data` names. Raises UserError for what a person has to change.

  Args:
    data: source, path, eval_path, heads and variant are read (and data.tabletop by the tabletop
      world).
    split: "train" or "validation".

  Class numbers are those of the training split. Evaluation uses data.eval_path, or the source's
  validation split, or its test split, or else, said once, the training clips.
  """
  wanted = ("validation", "test", "train") if split == "validation" else (split,)
  for name in wanted:
    source = open_split(data, name)
    if source is not None:
      if name == "train" and split == "validation":
        _say_evaluation_uses_training_clips(source.name)
      _refuse_buckets(source)
      return source
  raise UserError(f"data.path={data.get('path')} holds no {split} split.")


def open_split(data: ConfigDict, split: str) -> Source | None:
  """The videos of exactly this split ("train", "validation" or "test"), or None."""
  module, _, opener = choose(SOURCES, data.source, "data.source").partition(":")
  return getattr(importlib.import_module(module), opener)(data, split)


def _refuse_buckets(source: Source) -> None:
  """Only `vfe.tools.prepare` reads videos where they lie in a bucket."""
  for record in source.records if isinstance(source, ListedSource) else ():
    if is_url(record.path or ""):
      raise UserError(
        f"{source.name}: {record.path} is in a bucket, and videos are read from file systems; "
        f"make shards of them with python -m vfe.tools.prepare, or mount the bucket."
      )


@dataclasses.dataclass(frozen=True)
class ListedSource:
  """Records that are all known beforehand."""

  name: str
  heads: Mapping[str, tuple[str, ...]]
  records: Sequence[VideoRecord]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> VideoRecord:
    return self.records[index]


def open_folder(data: ConfigDict, split: str) -> ListedSource | None:
  """A local folder of videos; see vfe.data.folder."""
  return _open_listed(data, split, list_folder)


def open_manifest(data: ConfigDict, split: str) -> ListedSource | None:
  """A local CSV or JSONL list of videos; see vfe.data.manifest."""
  return _open_listed(data, split, functools.partial(list_manifest, heads=data.get("heads")))


def open_diving48(data: ConfigDict, split: str) -> ListedSource | None:
  """A local folder with Diving48's own files; see vfe.data.diving48."""
  return _open_listed(data, split, list_diving48)


def open_published(data: ConfigDict, split: str) -> ListedSource | None:
  """A local folder with a video-text data set's own files: vfe.data.captioned, .questions."""
  return _open_listed(data, split, lambda path: _read(data.source, path, data.get("variant")))


@functools.lru_cache(maxsize=1)
def _read(source: str, path: str, variant: str | None) -> Listing:
  """Kept for the next split of the same data set: reading ten million clips takes minutes."""
  return {**captioned.READERS, **questions.READERS}[source](path, variant)


def required_path(data: ConfigDict) -> str:
  """data.path, which only the tabletop world can do without."""
  if not data.path:
    raise UserError(f"data.path is not set; data.source='{data.source}' needs --config.data.path=.")
  return data.path


def _open_listed(
  data: ConfigDict, split: str, listing_of: Callable[[str], Listing]
) -> ListedSource | None:
  listing = listing_of(required_path(data))
  heads = listing.heads()
  if split == "validation" and data.get("eval_path"):
    other = listing_of(data.eval_path)
    return _listed(data.eval_path, other.for_evaluation(), heads)
  if split not in listing.splits:
    return None
  return _listed(f"{data.path} ({split})", listing.splits[split], heads)


def _listed(name: str, entries: Sequence[Entry], heads: Mapping[str, Classes]) -> ListedSource:
  names = {head: classes.names for head, classes in heads.items()}
  return ListedSource(name, names, [entry.record(heads) for entry in entries])


@functools.cache
def _say_evaluation_uses_training_clips(name: str) -> None:
  logging.warning("%s: no validation split and no data.eval_path, so evaluation uses it.", name)
