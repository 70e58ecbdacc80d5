"""DiDeMo: half a minute of a Flickr video, moments of it each described by several people.

    didemo/train_data.json     [{"annotation_id", "video", "description", "times", "num_segments",
                               "dl_link"}], a description a row; 8,395 videos
    didemo/val_data.json       the same, 1,065
    didemo/test_data.json      the same, 1,004
    didemo/videos/<video>      any folders; <video> is "26292851@N04_4253489686_265c3c8051.m4v", and
                               the file may be that, or that with .mp4 after or instead of .m4v

A clip is a video with all its descriptions as a paragraph, in the order of the file:
paragraph-to-video retrieval, as papers report it. What was described is the first half a minute of
a video; `30s` ends there, `full` has all of it, as SViTT does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, tidy
from vfe.data.folder import VIDEO_SUFFIXES
from vfe.data.listing import Listing

VARIANTS = ("30s", "full")
FILES = {"train": "train_data.json", "validation": "val_data.json", "test": "test_data.json"}
SECONDS = 30.0


def list_didemo(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of DiDeMo's files; variant 30s (default) or full."""
  variant = choose_variant("didemo", variant, VARIANTS)
  clips = Clips("didemo", path)
  files.needed_file(clips.folder, *FILES.values())
  span = (0.0, SECONDS) if variant == "30s" else None
  for split, name in FILES.items():
    file = files.official_file(clips.folder, name)
    said: dict[str, list[str]] = {}
    for place, row in files.read_rows(file) if file else ():
      row = row if isinstance(row, Mapping) else {}
      video, words = row.get("video"), tidy(row.get("description"))
      if isinstance(video, str) and words:
        said.setdefault(video, []).append(words)
      else:
        clips.leave_out(place, "no video with its description")
    for video, sentences in said.items():
      found = clips.video(split, *_names(video))
      if found:
        clips.add(split, f"{file}, video {video}", found, sentences, span, paragraph=True)
  return clips.listing()


def _names(video: str) -> tuple[str, ...]:
  """What the file may be called before its last suffix."""
  stem, suffix = os.path.splitext(video)
  return (video, stem) if suffix.lower() in VIDEO_SUFFIXES else (video,)
