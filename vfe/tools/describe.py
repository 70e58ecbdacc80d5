"""Writes what videos show, or answers a question about each, by a finished stage of kind caption.

    python -m vfe.tools.describe a.mp4 b.mkv --model=runs/x/caption
    python -m vfe.tools.describe a.mp4 --model=runs/x/caption --prompt=caption --segment=12:20
    python -m vfe.tools.describe *.mp4 --model=runs/x/caption --question="what is lifted?"
    python -m vfe.tools.describe *.mp4 --model=runs/x/caption --question="what is lifted?" \\
      --option="a cup" --option="a ball" --json=answers.json

A line a video, in their order: its path and the text. Frames are taken as the stage's evaluations
took them, and texts are written likewise. A video's text does not hang on the others. One that
cannot be read is named on standard error and the rest go on; the exit code is 2 then.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from vfe.data.faults import FaultError
from vfe.errors import UserError
from vfe.models import pretrained
from vfe.models.opened.captioner import Asked, Captioner
from vfe.tools import cli


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _parse(argv)
  captioner = pretrained.load(flags.model)
  if not isinstance(captioner, Captioner):
    raise UserError(
      f"--model={flags.model} writes no texts about videos; name a finished stage of kind caption."
    )
  asked = (captioner.asked_question if flags.question else captioner.asked)(flags.prompt)
  found = []
  for path in flags.videos:
    try:
      found.append({"video": path} | _one(captioner, path, asked, flags))
      print(f"{path}: {' '.join(found[-1]['text'].split())}", flush=True)
    except FaultError as error:
      found.append({"video": path, "error": str(error)})
      print(f"vfe: {error}", file=sys.stderr, flush=True)
  if flags.json:
    text = json.dumps(found, indent=2, ensure_ascii=False)
    pathlib.Path(flags.json).write_text(text + "\n", encoding="utf-8")
  unread = [of["video"] for of in found if "error" in of]
  if unread:
    raise UserError(f"{len(unread)} of {len(found)} videos could not be read, such as {unread[0]}.")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("videos", nargs="+", metavar="VIDEO", help="a video or image file")
  add("--model", required=True, help="a finished stage of kind caption, or its export")
  add("--prompt", help="what is asked for: one of the stage's `written`, or any text")
  add("--question", help="what is to be answered")
  add("--option", action="append", default=[], help="a possible answer; give two or more")
  add("--segment", type=_segment, default=(None, None), metavar="START:END",
      help="the seconds that are looked at; either may be left out")  # fmt: skip
  add("--json", metavar="FILE", help="what was found, as a list; of options, how likely each is")
  flags = parser.parse_args(argv)
  if flags.option and (not flags.question or len(flags.option) < 2):
    raise UserError(f"--option={flags.option[0]}: give a --question, and two options or more.")
  if flags.json and not pathlib.Path(flags.json).absolute().parent.is_dir():
    raise UserError(f"--json={flags.json}: there is no such folder; make it first.")
  return flags


def _segment(text: str) -> tuple[float | None, float | None]:
  """"12:20.5" -> (12.0, 20.5), "12:" -> (12.0, None)"""
  first, colon, last = text.partition(":")
  try:
    start, end = (float(part) if part else None for part in (first, last))
  except ValueError:
    colon = ""
  if not colon or not 0 <= (start or 0.0) < (float("inf") if end is None else end):
    raise argparse.ArgumentTypeError(f"'{text}' is not START:END in seconds, such as 12:20.5")
  return start, end


def _one(
  captioner: Captioner, path: str, asked: Asked, flags: argparse.Namespace
) -> dict[str, Any]:
  """What is found of a video: its `text`, and by what."""
  start, end = flags.segment
  video = captioner.read(path, asked, start=start, end=end)
  if not flags.question:
    return {"prompt": asked.template, "text": captioner.describe(video, asked)[0]}
  found = {"question": flags.question}
  if not flags.option:
    return found | {"text": captioner.answer(video, [flags.question], asked)[0]}
  chosen = captioner.choose(video, [flags.question], [flags.option], asked)
  return found | {
    "text": flags.option[chosen.option[0]],
    "options": flags.option,
    "log_likelihood": chosen.log_likelihood[0].tolist(),
  }


if __name__ == "__main__":
  cli.run(main)
