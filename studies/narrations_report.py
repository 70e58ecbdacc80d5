"""The tables of the study of narrations, in Markdown."""

import dataclasses
from typing import Any

import numpy as np

from studies import records
from studies.contrast_report import MARGIN, Values, tie
from studies.narrations_sizes import BASELINES, CONDITIONS, Size
from vfe.data.tabletop.asking import CHOICES
from vfe.evaluate.egomcq import KINDS


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A claim: on questions of a kind `better` is more accurate than `worse`, or ties with it.

  kind "intra - inter": by how much more it is so on the one than on the other.
  """

  claim: str
  kind: str
  better: str
  worse: str
  ties: bool = False


GAIN = "intra - inter"
CHANCE = 1 / CHOICES
COMPARISONS = (
  *[
    of
    for worse, how in (("info_nce-3", ""), ("info_nce-alone", ", which has no neighbours"))
    for of in (
      Comparison(f"1. EgoNCE beats InfoNCE{how}", "intra", "egonce-3", worse),
      Comparison("1. and hardly between videos", "inter", "egonce-3", worse, ties=True),
      Comparison("1. and by more within videos than between", GAIN, "egonce-3", worse),
    )
  ],
  *[
    Comparison(f"2. (1, {random}) ties with dense", kind, f"egonce-{random}", "egonce-dense", True)
    for random in (3, 5)
    for kind in KINDS
  ],
  *[
    Comparison(f"2. {what} ties with dense", kind, name, "egonce-dense", True)
    for name, what in (("edges-alone", "(1, 3) without pruning"), ("nodes-alone", "pruning alone"))
    for kind in KINDS
  ],
  Comparison("tokens by CLS attention beat random ones", "intra", "egonce-3", "random-nodes"),
  Comparison("matching and hidden words help", "intra", "all-losses", "egonce-3"),
)


def text(rows: list[dict[str, Any]], name: str, size: Size) -> str:
  """The report of one size from its rows; what has not been run says so."""
  rows = records.select(rows, size=size.digest())
  parts = [_head(rows, name, size), _claims(rows), _conditions(rows)]
  return "\n".join(line for part in parts for line in part) + "\n"


def values(rows: list[dict[str, Any]], condition: str, kind: str) -> Values:
  """Accuracy on the questions of a kind, by seed."""
  found = {row["seed"]: row["scores"] for row in records.select(rows, condition=condition)}
  accuracy = lambda of, kind: of[f"{kind}/accuracy"]
  if kind == GAIN:
    return {seed: accuracy(of, "intra") - accuracy(of, "inter") for seed, of in found.items()}
  return {seed: accuracy(of, kind) for seed, of in found.items()}


def shown(rows, condition: str, kind: str) -> bool:
  """Whether a condition passes chance, by the interval over seeds."""
  kinds = KINDS if kind == GAIN else (kind,)
  above = []
  for each in kinds:
    got = values(rows, condition, each)
    above.append(bool(got) and records.interval(got.values())[1] > CHANCE)
  return all(above)


def verdict(rows, of: Comparison) -> str:
  """The word of a comparison."""
  better, worse = (values(rows, name, of.kind) for name in (of.better, of.worse))
  if len(set(better) & set(worse)) < 2:  # one seed has no interval
    return "not run"
  if not any(shown(rows, name, of.kind) for name in (of.better, of.worse)):
    return "not shown at this size"
  return tie(better, worse) if of.ties else records.verdict(better, worse, -np.inf)


def _head(rows, name: str, size: Size) -> list[str]:
  t, h, w = size.vision(CONDITIONS["egonce-3"]).layout.grid
  counts = size.vision(CONDITIONS["egonce-3"]).pruning.counts(t * h * w, size.depth)
  devices = ", ".join(sorted({row["device"] for row in rows})) or "nothing yet"
  versions = rows[-1]["versions"] if rows else {}
  spent = sum(row.get("cpu", 0) for row in rows) / 60
  spoken = "colours and shapes" if size.shape_words else "colours and no shapes"
  return [
    f"Size `{name}` ({size.digest()}), `python -m studies.narrations --size={name}`, on: {devices};"
    " " + ", ".join(f"{package} {version}" for package, version in versions.items())
    + f"; {spent:.0f} minutes of one core in all.",
    "",
    f"Videos of {size.frames} frames of {size.size}x{size.size} with 7 to 9 narrated events on "
    f"{size.objects[0]} to {size.objects[1]} objects, texture {size.texture}, motion "
    f"{size.motion:g}; a clip is {size.seen} frames of an event, {t}x{h}x{w} tokens of "
    f"{'x'.join(map(str, size.tubelet))}. Narrations have {spoken}. Blocks of {size.block} tokens; "
    f"tokens in each layer, where not dense: {', '.join(map(str, counts))}. Encoder: width "
    f"{size.width}, depth {size.depth}; text: width {size.text_width}, depth {size.text_depth}. "
    f"{size.steps} steps of {size.batch} clips of {size.videos} videos; the contrastive loss alone "
    f"but in `all-losses`. Tests: {size.tests} videos a seed, with a question of either kind each; "
    "those that have two answers are left out.",
    "",
  ]


def _claims(rows) -> list[str]:
  lines = [
    "**Claim by claim.** Accuracy of EgoMCQ by the dual encoder. The difference is of the pairs by "
    "seed, with its 95 % interval (Student's t). A claim of more is *held* where the interval lies "
    f"above 0; one of a tie, where it lies within ±{MARGIN:g}. *Not shown at this size*: neither "
    "condition passes chance by its own interval.",
    "",
    "| claim | questions | conditions | n | difference | verdict |",
    "|---|---|---|---|---|---|",
  ]
  for of in COMPARISONS:
    got = [values(rows, name, of.kind) for name in (of.better, of.worse)]
    seeds = sorted(set(got[0]) & set(got[1]))
    means = [f" {np.mean([v[s] for s in seeds]):.3f}" if seeds else "" for v in got]
    difference = "not run"
    if seeds:
      mean, low, high = records.interval(got[0][s] - got[1][s] for s in seeds)
      difference = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    names = f"{of.better}{means[0]} − {of.worse}{means[1]}"
    cells = [of.claim, of.kind, names, str(len(seeds)), difference, verdict(rows, of)]
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def _conditions(rows) -> list[str]:
  """Every condition on its own, and what it stands beside."""
  lines = [
    f"**By condition**, mean ± deviation over seeds. Chance is {CHANCE:g}. `difference`: a linear "
    "map from the frame differences of tokens to words. `nouns`, `verbs`: of one who knows those "
    "of every clip and nothing else, and guesses. Positives: of a clip in a batch, besides itself. "
    "Core: seconds of one.",
    "",
    "| condition | n | inter | intra | passes, intra | loss | positives | core |",
    "|---" * 8 + "|",
  ]
  for name in (*BASELINES, *CONDITIONS):
    found = records.select(rows, condition=name)
    got = {kind: values(rows, name, kind) for kind in KINDS}
    cells = [name, str(len(found)), *(records.spread(of.values()) for of in got.values())]
    cells += [_passed(rows, got) if name in CONDITIONS else ""]
    for measure, form in (("training_loss", ".3f"), ("positives", ".2f"), ("cpu", ".0f")):
      of = [row[measure] for row in found if measure in row]
      cells.append(f"{np.mean(of):{form}}" if of else "")
    lines.append(f"| {' | '.join(cells)} |")
  return lines


def _passed(rows, got: dict[str, Values]) -> str:
  """The baselines that a condition passes within videos, by the interval over seeds."""
  passed = []
  for name in BASELINES:
    floor = values(rows, name, "intra")
    each = [got["intra"][seed] - floor[seed] for seed in set(got["intra"]) & set(floor)]
    if each and records.interval(each)[1] > 0:
      passed.append(name)
  return ", ".join(passed)
