"""Charades-Ego (arXiv 1804.09627): scripted daily activities, several in a video, first person.

    CharadesEgo_v1_train_only1st.csv    id,script,descriptions,actions,length,... a video a line;
                                        actions: "c077 12.10 18.00;c079 11.80 17.30"
    CharadesEgo_v1_test_only1st.csv     the same; test
    Charades_v1_classes.txt             "c000 Holding some clothes": 157 classes
    videos/<id>.mp4                     any folders

In training every action is a clip, its class's name the caption; in test every video is one, with
its script as the caption. A clip's `classes` are the numbers of those that it shows, none in some
of the test videos (for `vfe.evaluate.multi_label`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vfe.data.captioned import files
from vfe.data.captioned.collect import Clips, choose_variant
from vfe.data.listing import Listing
from vfe.errors import UserError

FILES = {"train": "CharadesEgo_v1_train_only1st.csv", "test": "CharadesEgo_v1_test_only1st.csv"}
CLASSES = "Charades_v1_classes.txt"


def list_charades_ego(path: str, variant: str | None = None) -> Listing:
  """Reads a local folder of Charades-Ego's files and videos."""
  choose_variant("charades_ego", variant)
  clips = Clips("charades_ego", path)
  files.needed_file(clips.folder, *FILES.values())
  names = charades_classes(clips.folder)
  numbers = {code: number for number, code in enumerate(names)}
  for split, name in FILES.items():
    file = files.official_file(clips.folder, name)
    rows = files.read_csv(file, ("id", "script", "actions"), clips.leave_out) if file else ()
    for place, row in rows:
      actions = _actions(row["actions"], numbers)
      video = clips.video(split, row["id"])
      if actions is None:
        clips.leave_out(place, f"actions {row['actions']!r:.60}")
      elif video and split == "train":
        for code, start, end in actions:
          more = {"classes": (numbers[code],)}
          clips.add(split, place, video, names[code], (start, end), more=more)
      elif video:
        shown = tuple(sorted({numbers[code] for code, *_ in actions}))
        clips.add(split, place, video, row["script"], more={"classes": shown})
  return clips.listing()


def charades_classes(folder: Path) -> Mapping[str, str]:
  """Code -> name of the classes, in the order of their numbers."""
  names: dict[str, str] = {}
  for place, line in files.read_lines(files.needed_file(folder, CLASSES)):
    code, _, name = line.partition(" ")
    if not name.strip() or code in names:
      raise UserError(f"{place}: {line!r:.60} is no code and name of a class.")
    names[code] = name.strip()
  return names


def _actions(written: str, numbers: Mapping[str, int]) -> list[tuple[str, str, str]] | None:
  """(code, start, end) of each, or None where one is none."""
  actions = [tuple(part.split()) for part in written.split(";") if part.strip()]
  fine = all(len(action) == 3 and action[0] in numbers for action in actions)
  return actions if fine else None
