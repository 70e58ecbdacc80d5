"""EgoClip to train on and EgoMCQ to be measured by, from one folder."""

from __future__ import annotations

import functools
from pathlib import Path

from ml_collections import ConfigDict

from vfe.data.captioned import files
from vfe.data.captioned.collect import choose_variant
from vfe.data.ego4d import egoclip, egomcq
from vfe.data.ego4d.footage import Footage
from vfe.data.record import Source
from vfe.data.sources import ListedSource, required_path
from vfe.errors import UserError


def open_egoclip(data: ConfigDict, split: str) -> Source | None:
  """A folder with egoclip.csv (train), egomcq.json (validation) or both, and videos below it.

  Evaluation uses data.eval_path where that is set.
  """
  choose_variant("egoclip", data.get("variant"))
  path = required_path(data)
  path = (data.get("eval_path") or path) if split == "validation" else path
  return _open(path, split)


@functools.lru_cache(maxsize=2)
def _open(path: str, split: str) -> Source | None:
  """Kept for the next stage: reading all of EgoClip takes minutes."""
  folder = Path(path)
  if not folder.is_dir():
    what = "is a file" if folder.exists() else "does not exist"
    raise UserError(f"data.path={path} {what}; data.source='egoclip' wants a folder.")
  files.needed_file(folder, egoclip.FILE, egomcq.FILE)
  if split == "train" and files.official_file(folder, egoclip.FILE):
    return egoclip.read_egoclip(folder, Footage.below(folder))
  if split == "validation" and files.official_file(folder, egomcq.FILE):
    records = egomcq.read_egomcq(folder, Footage.below(folder))
    return ListedSource(f"{folder / egomcq.FILE} (validation)", {}, records)
  return None
