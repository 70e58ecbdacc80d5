"""Something-Something v2: something is done to something, and said in so many words.

    ssv2/something-something-v2-train.json       [{"id": "78687", "label": "holding potato next to
                                                 vicks vaporub bottle", "template": "Holding
                                                 [something] next to [something]", "placeholders"}];
                                                 168,913 (later: train.json, or labels/train.json)
    ssv2/something-something-v2-validation.json  the same; 24,777 (later: validation.json)
    ssv2/ssv2_ret_label_val_small.json           [{"video": "62211.webm" or a list, "caption"}]: the
                                                 2,088 clips that retrieval is measured on, or
                                                 ssv2_ret_template_val_small.json, the same clips
    ssv2/20bn-something-something-v2/<id>.webm   any folders

`full` validates on all clips, `retrieval` on those of Singularity's list, twelve of each template,
which is what papers report. `caption` is the label (label retrieval), `template` the template
without its brackets (template retrieval: a text has several clips).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, tidy
from vfe.data.listing import Listing

VARIANTS = ("full", "retrieval")
FILES = {
  "train": ("something-something-v2-train.json", "train.json", "labels/train.json"),
  "validation": (
    "something-something-v2-validation.json", "validation.json", "labels/validation.json"
  ),
}  # fmt: skip
LISTS = ("ssv2_ret_label_val_small.json", "ssv2_ret_template_val_small.json")
_BRACKETS = str.maketrans("", "", "[]")


def list_ssv2(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of Something-Something v2's files; variant full (default) or retrieval."""
  variant = choose_variant("ssv2", variant, VARIANTS)
  clips = Clips("ssv2", path)
  files.needed_file(clips.folder, *(name for names in FILES.values() for name in names))
  if variant == "retrieval":
    files.needed_file(clips.folder, *FILES["validation"])
  asked = _asked(clips) if variant == "retrieval" else None
  for split, names in FILES.items():
    there = (files.official_file(clips.folder, name) for name in names)
    file = next(filter(None, there), None)
    for place, row in files.read_rows(file) if file else ():
      row = row if isinstance(row, Mapping) else {}
      number, template = row.get("id"), tidy(row.get("template")).translate(_BRACKETS)
      if not isinstance(number, str) or not template:
        clips.leave_out(place, "no id or template")
      elif split == "train" or asked is None or asked.pop(number, None):
        video = clips.video(split, number)
        if video:
          clips.add(split, place, video, row.get("label"), more={"template": template})
  for number, place in (asked or {}).items():
    clips.leave_out(place, f"clip {number} is no validation clip")
  return clips.listing()


def _asked(clips: Clips) -> dict[str, str]:
  """The clips that retrieval is measured on, by id, and where each is named."""
  found: dict[str, str] = {}
  for place, row in files.read_rows(files.needed_file(clips.folder, *LISTS)):
    videos = row.get("video") if isinstance(row, Mapping) else None
    for name in videos if isinstance(videos, list) else [videos]:
      if isinstance(name, str):
        found.setdefault(Path(name).stem, place)
      else:
        clips.leave_out(place, "no video")
  return found
