"""ActivityNet Captions: videos of activities, every span of them described by a sentence.

    activitynet/train.json   {"v_<YouTube id>": {"timestamps": [[s, s], ...], "sentences": [...]}}
    activitynet/val_1.json   the same; validation
    activitynet/videos/v_<YouTube id>.mp4, or without the v_; any folders

`full`: whole videos with their sentences as a paragraph, 10,009 and 4,917: paragraph-to-video
retrieval as papers report it, on val_1. `clips`: every span with its sentence, 37,421 and 17,505
less the four that end where or before they begin. val_2.json describes videos of val_1 once more
and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant
from vfe.data.listing import Listing

VARIANTS = ("full", "clips")
FILES = {"train": "train.json", "validation": "val_1.json"}


def list_activitynet(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of ActivityNet Captions' files; variant full (default) or clips."""
  variant = choose_variant("activitynet", variant, VARIANTS)
  clips = Clips("activitynet", path)
  files.needed_file(clips.folder, *FILES.values())
  for split, name in FILES.items():
    file = files.official_file(clips.folder, name)
    if file:
      _add_file(clips, split, file, variant)
  return clips.listing()


def _add_file(clips: Clips, split: str, file: Path, variant: str) -> None:
  for name, row in files.read_members(file):
    place = f"{file}, video {name}"
    spans, sentences = _columns(row)
    if spans is None:
      clips.leave_out(place, "no sentence for every timestamp")
      continue
    video = clips.video(split, name, name.removeprefix("v_"))
    if video and variant == "full":
      clips.add(split, place, video, sentences, paragraph=True)
    elif video:
      for number, (span, sentence) in enumerate(zip(spans, sentences, strict=True), start=1):
        clips.add(split, f"{place}, span {number}", video, sentence, tuple(span))


def _columns(row: Any) -> tuple[list[Any], list[Any]] | tuple[None, None]:
  """The timestamps and sentences of a video where these agree."""
  spans, sentences = (
    (row.get("timestamps"), row.get("sentences")) if isinstance(row, Mapping) else (None, None)
  )
  if not isinstance(spans, list) or not isinstance(sentences, list):
    return None, None
  pairs = all(isinstance(span, list) and len(span) == 2 for span in spans)
  return (spans, sentences) if pairs and len(spans) == len(sentences) else (None, None)
