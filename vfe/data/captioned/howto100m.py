"""HowTo100M: instructional videos with their narration, or with summaries of your own.

    howto100m/raw_caption.json   {video_id: {"start": [s], "end": [s], "text": [..]}}: recognised
                                 speech; or caption.json, the same without stop words
    howto100m/HowTo100M_v1.csv   video_id,...: where it is there, only its videos are read
    howto100m/summaries.jsonl    {"video_id": .., "summary": ..} a line; or "path", relative to the
                                 folder, for "video_id"; "split" may say train, validation or test
    howto100m/videos/<video_id>.mp4  any folders

`asr`: every narrated span with its words. `summaries`: whole videos, each with the summary that
you made of it. There is one split, train, where summaries.jsonl names no other. The official json
is read video by video, but every clip that is listed takes about 1 KB of memory: give a machine
the part of the videos that it can list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, split_of
from vfe.data.listing import Listing

VARIANTS = ("asr", "summaries")
SPEECH = ("raw_caption.json", "caption.json")
VIDEOS = "HowTo100M_v1.csv"
SUMMARIES = "summaries.jsonl"


def list_howto100m(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of HowTo100M's files; variant asr (default) or summaries."""
  variant = choose_variant("howto100m", variant, VARIANTS)
  clips = Clips("howto100m", path)
  if variant == "summaries":
    _add_summaries(clips)
  else:
    _add_speech(clips)
  return clips.listing()


def _add_speech(clips: Clips) -> None:
  file = files.needed_file(clips.folder, *SPEECH)
  chosen = _chosen(clips)
  for name, row in files.read_members(file):
    if chosen is not None and name not in chosen:
      continue
    video = clips.video("train", name)
    if not video:
      continue
    columns = [row.get(key) for key in ("start", "end", "text")] if isinstance(row, Mapping) else []
    if not columns or not all(isinstance(column, list) for column in columns):
      clips.leave_out(f"{file}, video {name}", "no start, end and text")
    elif len({len(column) for column in columns}) > 1:
      clips.leave_out(f"{file}, video {name}", "start, end and text are not equally long")
    else:
      for number, (start, end, text) in enumerate(zip(*columns, strict=True), start=1):
        clips.add("train", f"{file}, video {name}, clip {number}", video, text, (start, end))


def _chosen(clips: Clips) -> set[str] | None:
  file = files.official_file(clips.folder, VIDEOS)
  rows = files.read_csv(file, ("video_id",), clips.leave_out) if file else ()
  return {row["video_id"].strip() for _, row in rows} if file else None


def _add_summaries(clips: Clips) -> None:
  file = files.needed_file(clips.folder, SUMMARIES)
  for place, line in files.read_lines(file):
    row = _row(line)
    split = split_of(row.get("split") or "train")
    key = next((key for key in ("path", "video_id") if isinstance(row.get(key), str)), None)
    if split is None or key is None:
      clips.leave_out(place, "not JSON with video_id or path, summary and perhaps a split")
      continue
    video = (clips.file if key == "path" else clips.video)(split, row[key])
    if video:
      clips.add(split, place, video, row.get("summary"), paragraph=True)


def _row(line: str) -> Mapping[str, Any]:
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return {}
  return row if isinstance(row, dict) else {}
