"""The tabletop world from the command line: look at it, write its videos, write its annotations.

    python -m vfe.tools.tabletop sheet --out=tabletop.png --rung=all --count=1
    python -m vfe.tools.tabletop cache --rung=verb --count=1000
    python -m vfe.tools.tabletop annotations --out=annotations --split=validation --count=100

`sheet` draws a contact sheet, one video a row. `cache` writes mp4 files and prints their manifest.
`annotations` writes one file a task in the layout of the official ones (docs/tabletop.md).
"""

import csv
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vfe.data import tabletop
from vfe.data.tabletop import asking
from vfe.data.tabletop.world import SPLITS, TEXTURES, World
from vfe.errors import UserError
from vfe.tools import cli

MARGIN, LINE = 4, 15  # pixels of the sheet between videos, and for a line of text
WIDTH = 1024  # about how wide a sheet becomes
ALL = "all"


def _strip(video: UInt8[np.ndarray, "T S S 3"], columns: int) -> UInt8[np.ndarray, "h w 3"]:
  """Frames at equal distances side by side, a gap between them, pixels enlarged to squares."""
  wanted = np.linspace(0, len(video) - 1, columns).round().astype(int)
  scale = max(1, WIDTH // columns // video.shape[1])
  large = video[wanted].repeat(scale, 1).repeat(scale, 2)
  gap = ((0, 0), (0, 0), (0, MARGIN), (0, 0))
  return np.concatenate(list(np.pad(large, gap, constant_values=255)), axis=1)


def _label_line(world: World, scene: tabletop.Scenario) -> str:
  values = tabletop.labels(scene)
  heads = tabletop.heads(world.rung).items()
  if world.rung == "control":
    return "on the table: " + ", ".join(thing.name for thing in scene.things)
  return "   ".join(f"{head}: {names[values[head]]}" for head, names in heads)


def sheet(worlds: Sequence[World], indices: Sequence[int], split: str, columns: int) -> Image.Image:
  """One video a row, with its labels and its caption; worlds and indices go in pairs."""
  rows = []
  for world, index in zip(worlds, indices, strict=True):
    scene = tabletop.scenario(world, index, split)
    lines = (f"{world.rung}, {world.texture}   |   {_label_line(world, scene)}",)
    strip = _strip(tabletop.render(world, scene), columns)
    rows.append(((*lines, tabletop.caption(scene)), strip))
  width = max(strip.shape[1] for _, strip in rows)
  height = sum(strip.shape[0] + 2 * LINE + 3 * MARGIN for _, strip in rows)
  image = Image.new("RGB", (width, height), "white")
  pen = ImageDraw.Draw(image)
  font = ImageFont.load_default(LINE - 2)
  top = 0
  for lines, strip in rows:
    for number, line in enumerate(lines):
      pen.text((MARGIN, top + MARGIN + number * LINE), line, fill="black", font=font)
    image.paste(Image.fromarray(strip), (0, top + 2 * LINE + 2 * MARGIN))
    top += strip.shape[0] + 2 * LINE + 3 * MARGIN
  return image


def _write_json(path: pathlib.Path, content) -> None:
  path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_table(path: pathlib.Path, rows: list[dict], delimiter: str) -> None:
  with path.open("w", newline="", encoding="utf-8") as file:
    table = csv.DictWriter(file, rows[0], delimiter=delimiter, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)


def annotations(world: World, split: str, count: int, folder: pathlib.Path) -> None:
  """Writes every task's annotations of the first `count` videos of a split into a folder."""
  folder.mkdir(parents=True, exist_ok=True)
  scenes = [tabletop.scenario(world, index, split) for index in range(count)]
  _write_table(folder / "labels.csv", [_label_row(world, scene) for scene in scenes], ",")
  narrated = [row for scene in scenes for row in tabletop.narrations(scene)]
  _write_table(folder / "egoclip.csv", narrated, "\t")
  kinds = (asking.INTER_VIDEO, asking.INTRA_VIDEO)
  items = [q for kind in kinds for q in asking.multiple_choice(world, split, count, kind).values()]
  _write_json(folder / "egomcq.json", {str(i): item for i, item in enumerate(items)})
  _write_json(folder / "nlq.json", tabletop.language_queries(world, split, count))
  asked = [question for scene in scenes for question in tabletop.questions(world, scene)]
  answers = {question["q_uid"]: question.pop("answer") for question in asked}
  _write_json(folder / "questions.json", asked)
  _write_json(folder / "answers.json", answers)
  lines = [
    {"video": scene.uid, "caption": tabletop.caption(scene), "summary": tabletop.summary(scene)}
    for scene in scenes
  ]
  _write_json(folder / "captions.json", lines)
  (folder / "vocabulary.txt").write_text("\n".join(tabletop.vocabulary()) + "\n", encoding="utf-8")


def _label_row(world: World, scene: tabletop.Scenario) -> dict:
  values = tabletop.labels(scene)
  names = tabletop.heads(world.rung).items()
  return {"video": scene.uid, **{head: classes[values[head]] for head, classes in names}}


def _objects(value: str) -> tuple[int, int]:
  low, _, high = value.partition(",")
  if not (low.isdigit() and high.isdigit()):
    raise UserError(f"--objects={value} is not least,most; use for example 2,4.")
  return int(low), int(high)


def _parser() -> cli.Parser:
  parser = cli.Parser(__doc__)
  parser.add_argument("what", choices=("sheet", "cache", "annotations"))
  parser.add_argument("--out", help="file of the sheet, folder of annotations or of the cache")
  parser.add_argument(
    "--rung", default=World.rung, choices=(*tabletop.RUNGS, ALL), help=f"{ALL}: a sheet of each"
  )
  parser.add_argument("--size", type=int, default=World.size)
  parser.add_argument("--frames", type=int, default=World.frames)
  parser.add_argument("--objects", default="2,4", help="least,most objects on the table")
  parser.add_argument("--texture", default=World.texture, choices=tuple(TEXTURES))
  parser.add_argument("--motion", type=float, default=World.motion, help="factor on head motion")
  parser.add_argument("--seed", type=int, default=World.seed)
  parser.add_argument("--split", default="train", choices=SPLITS)
  parser.add_argument("--count", type=int, default=6, help="videos, from the first")
  parser.add_argument("--columns", type=int, default=8, help="frames of a video on the sheet")
  return parser


def _worlds(args) -> list[World]:
  """The world of the flags, or one of each rung."""
  rungs = tabletop.RUNGS if args.rung == ALL else (args.rung,)
  objects = _objects(args.objects)
  rest = (objects, args.texture, args.motion, args.seed)
  return [World(args.size, args.frames, rung, *rest) for rung in rungs]


def main(argv: Sequence[str]) -> None:
  """Runs one command line."""
  args = _parser().parse_args(argv)
  for name in ("count", "columns"):
    if getattr(args, name) < 1:
      raise UserError(f"--{name}={getattr(args, name)} is not 1 or more.")
  worlds = _worlds(args)
  if len(worlds) > 1 and args.what != "sheet":
    raise UserError(f"--rung={ALL} is for sheets; {args.what} needs one of the rungs.")
  if args.what == "cache":
    print(tabletop.write_cache(worlds[0], args.split, args.count, args.out))
    return
  if not args.out:
    raise UserError(f"{args.what} needs --out, the place to write to.")
  out = pathlib.Path(args.out)
  try:
    if args.what == "annotations":
      annotations(worlds[0], args.split, args.count, out)
    else:
      indices = range(len(worlds) * args.count)  # each rung shows other videos than the next
      shown = [world for world in worlds for _ in range(args.count)]
      sheet(shown, indices, args.split, args.columns).save(out, optimize=True)
  except (OSError, ValueError) as error:
    raise UserError(f"--out={out} cannot be written: {error}.") from None
  print(out)


if __name__ == "__main__":
  cli.run(main)
