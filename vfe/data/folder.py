"""A folder of videos as it lies on the disk: class = sub-folder, or flat and without labels.

Images are videos of one frame. One that has the name of a video beside it but for the suffix is
that video's cover, as programs that fetch videos write it, and is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

from vfe.data.image import IMAGE_SUFFIXES
from vfe.data.listing import SPLITS, Entry, Listing
from vfe.errors import UserError

VIDEO_SUFFIXES = frozenset(
  {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".m2ts", ".mts", ".flv"}
  | {".wmv", ".3gp", ".ogv"}
)


def list_folder(path: str) -> Listing:
  """Lists the videos and images below a local folder, in sorted order, by their suffix.

  Videos directly in the folder: no labels. Videos in sub-folders (however deep): the class is the
  first sub-folder. Sub-folders that are all named train, val, validation or test are splits, each
  of them a folder as above.
  """
  root = Path(path)
  if not root.is_dir():
    what = "is a file" if root.exists() else "does not exist"
    raise UserError(
      f"data.path={path} {what}; data.source='folder' wants a folder of videos "
      f"(a .csv or .jsonl list of them is data.source='manifest')."
    )
  below = [entry.name for entry in sorted(root.iterdir()) if _is_folder(entry)]
  if below and all(name.lower() in SPLITS for name in below):
    return Listing(str(root), _list_splits(root, below))
  return Listing(str(root), {"train": _list_classes(root)})


def _list_splits(root: Path, names: list[str]) -> dict[str, list[Entry]]:
  splits: dict[str, list[Entry]] = {}
  for name in names:
    split = SPLITS[name.lower()]
    if split in splits:
      raise UserError(f"{root}: two folders are the {split} split ({', '.join(names)}); keep one.")
    splits[split] = _list_classes(root / name)
  return splits


def _list_classes(root: Path) -> list[Entry]:
  flat = _videos(root, recurse=False)
  classes = {
    folder.name: _videos(folder, recurse=True)
    for folder in sorted(root.iterdir())
    if _is_folder(folder)
  }
  classes = {name: videos for name, videos in classes.items() if videos}
  if flat and classes:
    raise UserError(
      f"{root}: {flat[0].name} lies beside class folders ('{next(iter(classes))}', ...); move the "
      f"{len(flat)} such files into a class folder, or all videos into one flat folder."
    )
  if not flat and not classes:
    raise UserError(f"{root}: no videos here ({_found(root)}; looked for {_suffixes()}).")
  if flat:
    return [Entry(place=str(video), path=str(video)) for video in flat]
  return [
    Entry(place=str(video), path=str(video), labels={"label": name})
    for name, videos in classes.items()
    for video in videos
  ]


def _videos(root: Path, recurse: bool) -> list[Path]:
  walk = os.walk(root, followlinks=True) if recurse else [(root, [], _files(root))]
  return sorted(Path(folder, name) for folder, _, names in walk for name in _wanted(names))


def _wanted(names: list[str]) -> list[str]:
  """The videos and images among the files of one folder, without covers."""
  kind = lambda name, suffixes: Path(name).suffix.lower() in suffixes and not name.startswith(".")
  videos = [name for name in names if kind(name, VIDEO_SUFFIXES)]
  stems = {Path(name).stem for name in videos}
  images = [name for name in names if kind(name, IMAGE_SUFFIXES)]
  return videos + [name for name in images if Path(name).stem not in stems]


def _files(root: Path) -> list[str]:
  return [entry.name for entry in root.iterdir() if entry.is_file()]


def _is_folder(path: Path) -> bool:
  return path.is_dir() and not path.name.startswith(".")


def _found(root: Path) -> str:
  files = sorted(_files(root))
  lists = [name for name in files if name.endswith((".csv", ".jsonl"))]
  if lists:
    return f"for a list such as {lists[0]} use data.source='manifest' and data.path={root/lists[0]}"
  return f"{len(files)} other files, such as {files[0]}" if files else "it is empty"


def _suffixes() -> str:
  return " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
