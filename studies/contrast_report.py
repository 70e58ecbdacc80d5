"""The tables of the contrastive study, in Markdown."""

import dataclasses
from typing import Any

import numpy as np

from studies import records
from studies.contrast_sizes import MIXINGS, Size

MARGIN = 0.05  # two that differ by no more tie
Values = dict[int, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A claim: on texts of a form `better` is more accurate than `worse`, or ties with it.

  less: two more conditions, whose difference is taken off: whether one falls by more than another.
  """

  claim: str
  form: str
  better: str
  worse: str
  ties: bool = False
  less: tuple[str, str] | None = None


def comparisons(size: Size) -> list[Comparison]:
  """All claims, in the paper's order as far as it has one."""
  most = f"{100 * max(size.masks):.0f}"
  falls = lambda mixing: (f"{mixing}-0", f"{mixing}-{most}")
  last = "last layers and 75 % masked tie with full tuning unmasked"
  return [
    Comparison(f"1. joint stays at {most} % masked", "order", *falls("joint"), ties=True),
    *[Comparison(f"1. {m} falls at {most} % masked", "order", *falls(m)) for m in MIXINGS[1:]],
    *[
      Comparison(f"1. {m} falls by more than joint", "order", *falls(m), less=falls("joint"))
      for m in MIXINGS[1:]
    ],
    Comparison(f"3. {last}", "summary", "long-full", "long-last-75", ties=True),
    Comparison("4. joint beats frame-level on text with order", "order", "joint-0", "frame-0"),
    Comparison(
      "4. and ties on text of objects", "objects", "joint-objects", "frame-objects", ties=True
    ),
    Comparison("5. the long stage helps: full", "summary", "long-full", "before"),
    Comparison("5. the long stage helps: last layers", "summary", "long-last-75", "before"),
    Comparison("6. without videos it falls", "order", "images-and-videos", "images-only"),
    Comparison("6. without images it falls", "order", "images-and-videos", "joint-0"),
    Comparison(
      "6. without images it falls, on text of objects", "objects", "images-and-videos", "joint-0"
    ),
  ]


# What a comparison is of, and what of the row it stands beside. Of objects there is no order.
MEASURES = {"R@1": "chance", "order": None}


def text(rows: list[dict[str, Any]], name: str, size: Size) -> str:
  """The report of one size from its rows; what has not been run says so."""
  rows = records.select(rows, size=size.digest())
  parts = [_head(rows, name, size), _gate(rows), _claims(rows, size), _conditions(rows, size)]
  return "\n".join(line for part in parts for line in part) + "\n"


def values(rows: list[dict[str, Any]], condition: str, form: str, measure: str) -> Values:
  """A measure by seed; R@1 is the mean of both directions."""
  found = {}
  for row in records.select(rows, condition=condition):
    of = row["forms"].get(form)
    if of is not None:
      both = (of["text_to_video"] + of["video_to_text"]) / 2
      found[row["seed"]] = both if measure == "R@1" else of[measure]
  return found


def tie(one: Values, other: Values) -> str:
  """What may be said of "both are the same to within the margin", by the interval."""
  seeds = sorted(set(one) & set(other))
  if not seeds:
    return "not run"
  _, low, high = records.interval(one[seed] - other[seed] for seed in seeds)
  if low >= -MARGIN and high <= MARGIN:
    return "held"
  return "not held" if low > MARGIN or high < -MARGIN else "within noise"


def shown(rows, form: str, conditions: tuple[str, ...]) -> bool:
  """Whether any of the conditions can read the text: order above a half, or of texts of objects R@1
  above chance, by the interval over seeds."""
  able = []
  for condition in conditions:
    if form == "objects":
      got, floor = (values(rows, condition, form, name) for name in ("R@1", "chance"))
    else:
      got = values(rows, condition, form, "order")
      floor = dict.fromkeys(got, 0.5)
    able.append(bool(got) and records.interval(got[seed] - floor[seed] for seed in got)[1] > 0)
  return any(able)


def verdict(rows, comparison: Comparison, measure: str) -> str:
  """The word of a comparison."""
  of = comparison
  better, worse = (values(rows, name, of.form, measure) for name in (of.better, of.worse))
  if of.less:
    more, less = (values(rows, name, of.form, measure) for name in of.less)
    better = {seed: better[seed] - more[seed] for seed in set(better) & set(more)}
    worse = {seed: worse[seed] - less[seed] for seed in set(worse) & set(less)}
  if len(set(better) & set(worse)) < 2:  # one seed has no interval
    return "not run"
  if not shown(rows, of.form, (of.better, of.worse, *(of.less or ()))):
    return "not shown at this size"
  return tie(better, worse) if of.ties else records.verdict(better, worse, -np.inf)


def _head(rows, name: str, size: Size) -> list[str]:
  t, h, w = size.vision("short").layout.grid
  devices = ", ".join(sorted({row["device"] for row in rows})) or "nothing yet"
  versions = rows[-1]["versions"] if rows else {}
  spent = sum(row.get("seconds", 0) for row in rows) / 60
  spoken = "colours and shapes" if size.shape_words else "colours and no shapes"
  return [
    f"Size `{name}` ({size.digest()}), `python -m studies.contrast --size={name}`, on: {devices}; "
    + ", ".join(f"{package} {version}" for package, version in versions.items())
    + f"; {spent:.0f} minutes of one process in all, as the clock went.",
    "",
    f"Clips: two events on {size.objects[0]} to {size.objects[1]} objects, {size.frames} frames "
    f"(long: {size.long_frames}) of {size.size}x{size.size}, texture {size.texture}, motion "
    f"{size.motion:g}; {t}x{h}x{w} tokens of {'x'.join(map(str, size.tubelet))}. Texts have "
    f"{spoken}. Encoder: width {size.width}, depth {size.depth}; text: width {size.text_width}, "
    f"depth {size.text_depth}. Image stage: {size.image_steps} steps of {size.image_batch} of "
    f"{size.images} images. Short: {size.steps} of {size.batch} of {size.videos} clips. Long: "
    f"{size.long_steps} of {size.long_batch} of {size.long_videos}, the text frozen; last: "
    f"{size.last} of {size.depth} layers. Tests: {size.tests} clips a seed.",
    "",
  ]


def _gate(rows) -> list[str]:
  """Whether the joint encoder learns at all, from either input."""
  lines = [
    "**Gate**: does the joint encoder, unmasked, read the order of a text? (a choice between it "
    "and itself with the two events swapped, chance 0.5)",
    "",
    "| input | seeds | order, mean ± deviation | 95 % interval | gate |",
    "|---|---|---|---|---|",
  ]
  for name, condition in (
    ("difference and pixels", "joint-0"),
    ("raw pixels", "joint-pixels"),
  ):
    got = values(rows, condition, "order", "order")
    cells = "not run | not run"
    if got:
      _, low, high = records.interval(got.values())
      cells = f"[{low:.3f}, {high:.3f}] | {'passed' if low > 0.5 else 'not passed'}"
    lines.append(f"| {name} | {len(got)} | {records.spread(got.values())} | {cells} |")
  return [*lines, ""]


def _claims(rows, size: Size) -> list[str]:
  lines = [
    "**Claim by claim.** R@1 is the mean of both directions. The difference is of the pairs by "
    "seed, with its 95 % interval (Student's t). A claim of more is *held* where the interval lies "
    f"above 0; one of a tie, where it lies within ±{MARGIN:g}. *Not shown at this size*: none of "
    "the conditions reads the text's order (of objects: passes chance) by its own interval.",
    "",
    "| claim | text | measure | conditions | n | difference | verdict |",
    "|---|---|---|---|---|---|---|",
  ]
  for comparison in comparisons(size):
    for measure in MEASURES:
      if comparison.form != "objects" or measure == "R@1":
        lines.append(_row(rows, comparison, measure))
  return [*lines, ""]


def _row(rows, of: Comparison, measure: str) -> str:
  names = [of.better, of.worse, *(of.less or ())]
  got = [values(rows, name, of.form, measure) for name in names]
  seeds = sorted(set.intersection(*map(set, got)))
  means = [f"{np.mean([v[s] for s in seeds]):.3f}" if seeds else "not run" for v in got]
  said = [f"{name} {mean}" for name, mean in zip(names, means, strict=True)]
  conditions = " − ".join(said[:2]) + (f" − ({' − '.join(said[2:])})" if of.less else "")
  difference = "not run"
  if seeds:
    sign = (1, -1, -1, 1)
    each = [sum(k * v[s] for k, v in zip(sign, got, strict=False)) for s in seeds]
    mean, low, high = records.interval(each)
    difference = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
  cells = [of.claim, of.form, measure, conditions, str(len(seeds)), difference]
  return f"| {' | '.join([*cells, verdict(rows, of, measure)])} |"


def _conditions(rows, size: Size) -> list[str]:
  """Every condition on its own."""
  lines = [
    "**By condition**, mean ± deviation over seeds. Objects only, words only: R@1 of one who knows "
    "which objects a text names, or all its words, and guesses the rest. Clock: seconds of "
    "training a seed.",
    "",
    "| condition | text | n | text→video R@1 | video→text R@1 | order | chance R@1 | "
    "objects only | words only | clock |",
    "|---" * 10 + "|",
  ]
  measures = ("text_to_video", "video_to_text", "order", "chance", "objects_only", "words_only")
  for name in (*size.conditions(), "before"):
    found = records.select(rows, condition=name)
    stage = found[0]["stage"] if found else None
    forms = {"image": ("objects",), "short": ("order", "objects"), "long": ("summary",)}
    for form in forms.get(stage, ("",)):
      got = [values(rows, name, form, measure) for measure in measures]
      cells = [records.spread(x.values()) for x in got[:3]]
      cells[2] = "" if form == "objects" else cells[2]
      cells += [f"{np.mean(list(x.values())):.3f}" if x else "" for x in got[3:]]
      spent = [row["training"] for row in found if "training" in row]
      cells.append(f"{np.mean(spent):.0f}" if spent else "")
      lines.append(f"| {' | '.join([name, form, str(len(got[0])), *cells])} |")
  return lines
