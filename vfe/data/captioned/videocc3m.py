"""VideoCC3M: clips of web videos that were given the captions of images like them.

    videocc3m/video_cc_public.csv     video URL, start and end in microseconds, caption
    videocc3m/videos/<YouTube id>.mp4 whole videos; any folders

The columns are those of the README of github.com/google-research-datasets/videoCC-data (Nagrani et
al. 2022, ECCV). In code that reads the file, the first column is a bare YouTube id; addresses are
understood too, and a header line is passed over. There is one split, train.
"""

from __future__ import annotations

import re

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant
from vfe.data.listing import Listing

LIST = "video_cc_public.csv"
_ADDRESS = re.compile(r".*(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([\w-]{11}).*")
_MICROSECONDS = re.compile(r"\s*\d+(\.\d+)?\s*")


def list_videocc3m(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder with VideoCC3M's list and videos. It has no variants."""
  choose_variant("videocc3m", variant)
  clips = Clips("videocc3m", path)
  for place, values in files.read_values(files.needed_file(clips.folder, LIST)):
    times = values[1:3]
    if len(values) < 4 or not all(_MICROSECONDS.fullmatch(time) for time in times):
      if not place.endswith(", line 1"):
        clips.leave_out(place, f"start and end are not microseconds ({','.join(values)[:80]!r})")
      continue
    video = clips.video("train", youtube_id(values[0]))
    if video:
      # A caption is last, so that commas in one that is not quoted are its own.
      span = tuple(float(time) / 1e6 for time in times)
      clips.add("train", place, video, ",".join(values[3:]), span)
  return clips.listing()


def youtube_id(address: str) -> str:
  """The id in the address of a YouTube video, or what is written where it is none."""
  found = _ADDRESS.fullmatch(address.strip())
  return found[1] if found else address.strip()
