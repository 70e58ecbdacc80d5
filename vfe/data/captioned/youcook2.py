"""YouCook2: cooking videos whose steps are marked and described.

    youcook2/youcookii_annotations_trainval.json  {"database": {id: {"subset", "annotations":
                                                  [{"segment": [seconds, seconds], "sentence"}]}}}
    youcook2/validation_youcook.csv               end,start,task,text,video_id: MIL-NCE's clips
    youcook2/raw_videos/training/113/<id>.mp4     any folders

`clips`: every step with its sentence, 10,337 to train on and 3,492 to validate. `retrieval`: the
same, validated on the 3,350 clips of the csv, which is what papers report (without the json: only
these). `full`: whole videos, 1,333 and 457, with their sentences in order as the summary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, split_of
from vfe.data.listing import Listing
from vfe.errors import UserError

VARIANTS = ("clips", "retrieval", "full")
ANNOTATIONS = "youcookii_annotations_trainval.json"
PAIRS = "validation_youcook.csv"


def list_youcook2(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of YouCook2's files; variant clips (default), retrieval or full."""
  variant = choose_variant("youcook2", variant, VARIANTS)
  clips = Clips("youcook2", path)
  if variant != "retrieval":
    files.needed_file(clips.folder, ANNOTATIONS)
  for place, split, name, steps in _read_videos(clips):
    if variant == "retrieval" and split == "validation":
      continue
    video = clips.video(split, name)
    if video and variant == "full":
      sentences = [step.get("sentence") for step in sorted(steps, key=_start)]
      clips.add(split, place, video, sentences, paragraph=True)
    for number, step in enumerate(steps if video and variant != "full" else (), start=1):
      span = _pair(step.get("segment"))
      clips.add(split, f"{place}, step {number}", video, step.get("sentence"), span)
  if variant == "retrieval":
    _add_pairs(clips)
  return clips.listing()


def _add_pairs(clips: Clips) -> None:
  file = files.needed_file(clips.folder, PAIRS)
  columns = ("video_id", "start", "end", "text")
  for place, row in files.read_csv(file, columns, clips.leave_out):
    video = clips.video("validation", row["video_id"].strip())
    if video:
      clips.add("validation", place, video, row["text"], (row["start"], row["end"]))


def _read_videos(clips: Clips) -> Iterator[tuple[str, str, str, Sequence[Mapping[str, Any]]]]:
  """(place, split, id, steps) of every video of the json, if it is there."""
  file = files.official_file(clips.folder, ANNOTATIONS)
  content = files.read_json(file) if file else {"database": {}}
  videos = content.get("database") if isinstance(content, Mapping) else None
  if not isinstance(videos, Mapping):
    raise UserError(f"{file}: not an object with 'database'.")
  for name, row in videos.items():
    place = f"{file}, video {name}"
    split = split_of(row.get("subset")) if isinstance(row, Mapping) else None
    steps = row.get("annotations") if split else None
    if isinstance(steps, list) and all(isinstance(step, Mapping) for step in steps):
      yield place, split, name, steps
    else:
      clips.leave_out(place, "no subset or annotations")


def _pair(segment: Any) -> tuple[Any, Any]:
  return tuple(segment) if isinstance(segment, list) and len(segment) == 2 else (segment, None)


def _start(step: Mapping[str, Any]) -> float:
  start = _pair(step.get("segment"))[0]
  return float(start) if isinstance(start, int | float) else 0.0
