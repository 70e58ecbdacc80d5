"""MSVD: short clips of web videos with about 40 captions each.

    msvd/captions_msvd.json       {clip: [caption, ...]}, 1,970 clips
    msvd/{train,val,test}_list.txt  a clip a line: 1,200 / 100 / 670
    msvd/YouTubeClips/<clip>.avi  any folders

Without val_list.txt, validation is the clips that neither other list names.
"""

from __future__ import annotations

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant
from vfe.data.listing import Listing

CAPTIONS = "captions_msvd.json"
LISTS = {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"}


def list_msvd(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of MSVD's files. It has no variants."""
  choose_variant("msvd", variant)
  clips = Clips("msvd", path)
  captions_file = files.needed_file(clips.folder, CAPTIONS)
  captions = dict(files.read_members(captions_file))
  named: set[str] = set()
  lists = {split: files.official_file(clips.folder, name) for split, name in LISTS.items()}
  splits = {split: list(files.read_lines(file)) for split, file in lists.items() if file}
  if splits.keys() == {"train", "test"}:
    named = {name for rows in splits.values() for _, name in rows}
    rest = [name for name in captions if name not in named]
    splits["validation"] = [(f"{captions_file}, clip {name}", name) for name in rest]
  elif not splits:
    files.needed_file(clips.folder, *LISTS.values())
  for split, rows in splits.items():
    for place, name in rows:
      video = clips.video(split, name)
      if video:
        clips.add(split, place, video, captions.get(name))
  return clips.listing()
