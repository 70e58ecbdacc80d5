"""MSR-VTT: 10,000 clips with 20 captions each, in the splits that retrieval is measured on.

    msrvtt/MSRVTT_data.json           {"videos": [{"video_id", "split"}], "sentences": [{"video_id",
                                      "caption"}]}, or the two parts that it was first published in:
                                      train_val_videodatainfo.json, test_videodatainfo.json
    msrvtt/MSRVTT_JSFUSION_test.csv   key,vid_key,video_id,sentence: the 1,000 pairs of 1k-A
    msrvtt/MSRVTT_train.9k.csv        video_id: what 1k-A trains on (1k-A-7k: MSRVTT_train.7k.csv)
    msrvtt/MSRVTT_{train,val,test}.full.csv  the full split, 6,513 / 497 / 2,990; without them it is
                                      that of the json
    msrvtt/videos/all/video0.mp4      any folders

1k-A evaluates with one caption a clip, and needs nothing but its csv for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, split_of
from vfe.data.listing import Listing
from vfe.errors import UserError

VARIANTS = ("1k-A", "1k-A-7k", "full")
WHOLE = "MSRVTT_data.json"
PARTS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
PAIRS = "MSRVTT_JSFUSION_test.csv"
TRAIN = {"1k-A": "MSRVTT_train.9k.csv", "1k-A-7k": "MSRVTT_train.7k.csv"}
FULL = {
  "train": "MSRVTT_train.full.csv",
  "validation": "MSRVTT_val.full.csv",
  "test": "MSRVTT_test.full.csv",
}


def list_msrvtt(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of MSR-VTT's files; variant 1k-A (default), 1k-A-7k or full."""
  variant = choose_variant("msrvtt", variant, VARIANTS)
  clips = Clips("msrvtt", path)
  if variant == "full":
    captions, splits = _read_captions(clips)
    lists = {split: files.official_file(clips.folder, name) for split, name in FULL.items()}
    if all(lists.values()):
      splits = {split: _ids(clips, file) for split, file in lists.items()}
    for split, ids in splits.items():
      _add(clips, split, ids, captions)
    return clips.listing()
  pairs = files.needed_file(clips.folder, PAIRS)
  train = files.official_file(clips.folder, TRAIN[variant])
  if train is not None:
    _add(clips, "train", _ids(clips, train), _read_captions(clips)[0])
  for place, row in files.read_csv(pairs, ("video_id", "sentence"), clips.leave_out):
    video = clips.video("test", row["video_id"].strip())
    if video:
      clips.add("test", place, video, row["sentence"])
  return clips.listing()


def _ids(clips: Clips, file: Path) -> Iterator[tuple[str, str]]:
  for place, row in files.read_csv(file, ("video_id",), clips.leave_out):
    yield place, row["video_id"].strip()


def _add(
  clips: Clips,
  split: str,
  ids: Iterable[tuple[str, str]],
  captions: Mapping[str, list[Any]],
) -> None:
  for place, name in ids:
    video = clips.video(split, name)
    if video:
      clips.add(split, place, video, captions.get(name, []))


def _read_captions(
  clips: Clips,
) -> tuple[dict[str, list[Any]], dict[str, list[tuple[str, str]]]]:
  """The captions of every video, and (place, video) of every split that the json names."""
  whole = files.official_file(clips.folder, WHOLE)
  parts = [file for name in PARTS if (file := files.official_file(clips.folder, name))]
  captions: dict[str, list[Any]] = {}
  splits: dict[str, list[tuple[str, str]]] = {}
  for file in [whole] if whole else parts or [files.needed_file(clips.folder, WHOLE, *PARTS)]:
    content = files.read_json(file)
    tables = content if isinstance(content, Mapping) else {}
    sentences, videos = tables.get("sentences"), tables.get("videos")
    if not isinstance(sentences, list) or not isinstance(videos, list):
      raise UserError(f"{file}: not an object with the lists 'videos' and 'sentences'.")
    for number, row in enumerate(sentences, start=1):
      if isinstance(row, Mapping) and isinstance(row.get("video_id"), str):
        captions.setdefault(row["video_id"], []).append(row.get("caption"))
      else:
        clips.leave_out(f"{file}, sentence {number}", "no video_id")
    for number, row in enumerate(videos, start=1):
      place = f"{file}, video {number}"
      split = split_of(row.get("split")) if isinstance(row, Mapping) else None
      if split and isinstance(row.get("video_id"), str):
        splits.setdefault(split, []).append((place, row["video_id"]))
      else:
        clips.leave_out(place, "no video_id or split")
  return captions, splits
