"""VATEX: ten-second clips with ten English captions each.

    vatex/vatex_training_v1.0.json             [{"videoID", "enCap": [10], "chCap": [10]}], 25,991
    vatex/vatex_validation_v1.0.json           the same, 3,000
    vatex/vatex_public_test_english_v1.1.json  [{"videoID", "enCap": [10]}], 6,000
    vatex/{train,val,test}_list.txt            a videoID a line: 25,991 / 1,500 / 1,500
    vatex/test1k5_sec_list.txt                 another 1,500
    vatex/videos/<videoID>.mp4                 any folders; videoID is <YouTube id>_000122_000132

Retrieval is measured on halves of the 3,000: `hgr` is the split of Chen et al. 2020 by the lists,
`clip2video` tests on the other 1,500, which overlap both halves and so leave none to validate on.
`official` is the split of the json files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant
from vfe.data.listing import Listing

VARIANTS = ("hgr", "clip2video", "official")
OFFICIAL = {
  "train": "vatex_training_v1.0.json",
  "validation": "vatex_validation_v1.0.json",
  "test": "vatex_public_test_english_v1.1.json",
}
LISTS = {
  "hgr": {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"},
  "clip2video": {"train": "train_list.txt", "test": "test1k5_sec_list.txt"},
}


def list_vatex(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of VATEX's files; variant hgr (default), clip2video or official.

  Splits are those whose files are there.
  """
  variant = choose_variant("vatex", variant, VARIANTS)
  clips = Clips("vatex", path)
  rows = _read_rows(clips)
  if variant == "official":
    for split, captions in rows.items():
      for name, (place, text) in captions.items():
        _add(clips, split, place, name, text)
    return clips.listing()
  known = {name: text for captions in rows.values() for name, (_, text) in captions.items()}
  lists = LISTS[variant]
  files.needed_file(clips.folder, *lists.values())
  for split, list_name in lists.items():
    file = files.official_file(clips.folder, list_name)
    for place, name in files.read_lines(file) if file else ():
      _add(clips, split, place, name, known.get(name))
  return clips.listing()


def _add(clips: Clips, split: str, place: str, name: str, text: Any) -> None:
  video = clips.video(split, name)
  if video:
    clips.add(split, place, video, text)


def _read_rows(clips: Clips) -> dict[str, dict[str, tuple[str, Any]]]:
  """split of the json files -> videoID -> (place, captions)."""
  files.needed_file(clips.folder, *OFFICIAL.values())
  found: dict[str, dict[str, tuple[str, Any]]] = {}
  for split, file_name in OFFICIAL.items():
    file = files.official_file(clips.folder, file_name)
    for place, row in files.read_rows(file) if file else ():
      if isinstance(row, Mapping) and isinstance(row.get("videoID"), str):
        found.setdefault(split, {})[row["videoID"]] = (place, row.get("enCap"))
      else:
        clips.leave_out(place, "no videoID")
  return found
