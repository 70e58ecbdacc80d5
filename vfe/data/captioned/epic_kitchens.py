"""EPIC-Kitchens-100 multi-instance retrieval: narrated actions in kitchens, and what they share.

    EPIC_100_retrieval_train.csv            narration_id,video_id,start_timestamp,stop_timestamp,
                                            narration,verb_class,all_noun_classes,... a clip a line
    EPIC_100_retrieval_test.csv             the same; test
    EPIC_100_retrieval_test_sentence.csv    narration_id,narration: the clips whose narrations are
                                            the captions; without it, the first of equal words
    videos/<video_id>.MP4                   whole videos, any folders

67,217 clips in training; 9,668 in test, with 3,842 captions. Beside its caption a clip has `verbs`
and `nouns`, classes from 0, and `query`, whether its caption is one of those (for
`vfe.evaluate.multi_instance`). Time stamps are HH:MM:SS.ss.
"""

from __future__ import annotations

from pathlib import Path

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant, class_numbers, tidy
from vfe.data.listing import Listing

FILES = {"train": "EPIC_100_retrieval_train.csv", "test": "EPIC_100_retrieval_test.csv"}
COLUMNS = (
  "narration_id", "video_id", "start_timestamp", "stop_timestamp", "narration", "verb_class",
  "all_noun_classes",
)  # fmt: skip
VERBS, NOUNS = 97, 300


def list_epic_kitchens(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of EPIC-Kitchens-100's retrieval files and videos."""
  choose_variant("epic_kitchens", variant)
  clips = Clips("epic_kitchens", path)
  files.needed_file(clips.folder, *FILES.values())
  for split, name in FILES.items():
    file = files.official_file(clips.folder, name)
    if file:
      _add_file(clips, split, file)
  return clips.listing()


def seconds(stamp: str) -> float | None:
  """Of HH:MM:SS.ss, or None."""
  parts = stamp.strip().split(":")
  try:
    hours, minutes, rest = int(parts[0]), int(parts[1]), float(parts[2])
  except (ValueError, IndexError):
    return None
  return 3600 * hours + 60 * minutes + rest if len(parts) == 3 else None


def _add_file(clips: Clips, split: str, file: Path) -> None:
  asked, said = _asked(clips, file), set()
  for place, row in files.read_csv(file, COLUMNS, clips.leave_out):
    verbs = class_numbers(f"[{row['verb_class']}]", VERBS)
    nouns = class_numbers(row["all_noun_classes"], NOUNS)
    words = tidy(row["narration"])
    first = row["narration_id"] in asked if asked is not None else words not in said
    said.add(words)
    if not verbs or not nouns:
      clips.leave_out(
        place,
        f"verb_class {row['verb_class']!r} of {VERBS}, all_noun_classes "
        f"{row['all_noun_classes']!r} of {NOUNS}",
      )
      continue
    video = clips.video(split, row["video_id"])
    if video:
      span = seconds(row["start_timestamp"]), seconds(row["stop_timestamp"])
      more = {"verbs": verbs, "nouns": nouns, "query": first}
      clips.add(split, place, video, words, span, more=more)


def _asked(clips: Clips, file: Path) -> set[str] | None:
  """The narration_ids of the captions, where their file is there."""
  name = file.name.removesuffix(".gz").replace(".csv", "_sentence.csv")
  sentences = files.official_file(clips.folder, name)
  rows = files.read_csv(sentences, ("narration_id",), clips.leave_out) if sentences else ()
  return {row["narration_id"] for _, row in rows} if sentences else None
