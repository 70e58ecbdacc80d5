"""The tables of the captions study, in Markdown."""

import dataclasses
from typing import Any

import numpy as np

from studies import records
from studies.captions_sizes import CONDITIONS, LANGUAGE, Size
from vfe.evaluate.multiple_choice import wilson

MARGIN = 0.5  # CIDEr, which goes to 10: two that differ by no more tie
LARGE = 0.5  # share of the difference that one has who says the truth of what it is shown
QUESTIONS = {"whole": "which of five orders of two events", "order": "which of two events first"}
Values = dict[int, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A claim: `better` says or answers more of a kind than `worse`, or ties with it."""

  claim: str
  kind: str
  better: str
  worse: str
  ties: bool = False


def comparisons() -> list[Comparison]:
  """Claims 3 and 4."""
  found = []
  for number, claim, worse in (
    (3, "64 frames beat 16 spread evenly", "spread"),
    (3, "64 frames beat the first 16", "first"),
    (4, "whole video beats captions of its segments", "segments"),
    (4, "whole video beats true texts of its segments", "oracle"),
  ):
    kinds = (*QUESTIONS, "summary")
    found += [Comparison(f"{number}. {claim}", kind, "long", worse) for kind in kinds]
    if worse == "spread":
      found.append(Comparison("3. and tie on short clips", "caption", "long", worse, ties=True))
  return found


def text(rows: list[dict[str, Any]], name: str, size: Size) -> str:
  """The report of one size from its rows; what has not been run says so."""
  rows = records.select(rows, size=size.digest())
  parts = [_head(rows, name, size), _looks(rows), _blind(rows), _claims(rows), _conditions(rows)]
  return "\n".join(line for part in parts for line in part) + "\n"


def values(rows, condition: str, kind: str, video: str = "right", measure: str = "") -> Values:
  """By seed: the accuracy on a kind of questions, or a measure (CIDEr) of a kind of texts."""
  found = {}
  for row in records.select(rows, condition=condition):
    if kind in QUESTIONS:
      of = row.get("answered", {}).get(video, {}).get(kind)
      value = of and of["hits"] / of["n"]
    else:
      of = row.get("written", {}).get(kind, {}).get(video)
      value = of and of[measure or "CIDEr"]
    if of is not None:
      found[row["seed"]] = value
  return found


def share(rows, condition: str, kind: str) -> Values:
  """By seed: how much better it is with its own video than with another's, of what the truth is."""
  found = {}
  of = [values(rows, c, kind, v) for c in (condition, "truth") for v in ("right", "wrong")]
  for seed in set.intersection(*map(set, of)):
    own, other, most, least = (each[seed] for each in of)
    found[seed] = (own - other) / (most - least)
  return found


def word(got: Values, low: float, high: float = np.inf) -> str:
  """Whether the interval of the mean lies within the bounds."""
  if len(got) < 2:  # one seed has no interval
    return "not run"
  _, least, most = records.interval(got.values())
  if least >= low and most <= high:
    return "held"
  return "not held" if most < low or least > high else "within noise"


def verdict(rows, of: Comparison) -> str:
  """The word of a comparison. Nothing is shown where neither is better with its own video than
  with another's."""
  better, worse = (values(rows, name, of.kind) for name in (of.better, of.worse))
  seeds = sorted(set(better) & set(worse))
  if len(seeds) < 2:
    return "not run"
  if not any(_looks_at(rows, name, of.kind) for name in (of.better, of.worse)):
    return "not shown at this size"
  each = {seed: better[seed] - worse[seed] for seed in seeds}
  return word(each, -MARGIN, MARGIN) if of.ties else word(each, 0.0)


def _looks_at(rows, condition: str, kind: str) -> bool:
  own, other = (values(rows, condition, kind, video) for video in ("right", "wrong"))
  seeds = set(own) & set(other)
  return bool(seeds) and records.interval(own[seed] - other[seed] for seed in seeds)[1] > 0


def _head(rows, name: str, size: Size) -> list[str]:
  world = size.world
  devices = ", ".join(sorted({row["device"] for row in rows})) or "nothing yet"
  versions = rows[-1]["versions"] if rows else {}
  spent = sum(row.get("seconds", 0) for row in rows) / 60
  official = {of["right"]["official"] for row in rows for of in row.get("written", {}).values()}
  which = {(1.0,): "official (pycocoevalcap with Java)", (): "not measured yet"}
  scores = which.get(tuple(official), "not official (without Java)")
  return [
    f"Size `{name}` ({size.digest()}), `python -m studies.captions --size={name}`, on: {devices}; "
    + ", ".join(f"{package} {version}" for package, version in versions.items())
    + f"; {spent:.0f} minutes of one process in all, as the clock went. CIDEr goes to 10 and is "
    f"{scores}.",
    "",
    f"Clips and frozen encoders are those of the contrastive study at size `{size.contrast}` "
    f"({world.digest()}): {world.frames} frames (`joint-0`) and {world.long_frames} (`long-full`), "
    f"pooled by `{size.pool}`. Resampler: {size.queries} queries, {size.resampler_depth} layers. "
    f"Language model: width {size.width}, depth {size.depth}, {size.language_steps} steps of "
    f"{size.language_batch} on texts of {size.texts} stories, then frozen. Each condition: "
    f"{size.steps} steps of {size.batch} short clips and {size.batch} long videos (or segments). "
    f"Tests: {world.tests} short clips and {world.tests} long videos a seed, with two questions "
    "each.",
    "",
  ]


def _looks(rows) -> list[str]:
  lines = [
    "**1. Does it look?** CIDEr of texts of the own video and of another one's (each the one "
    "before it). Share: of the difference that the true texts have; *held* where its 95 % interval "
    f"(Student's t over seeds) lies above {LARGE:g}.",
    "",
    "| condition | texts | n | own video | wrong video | difference | share | verdict |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for condition in CONDITIONS:
    for kind in ("caption", "summary"):
      own, other = (values(rows, condition, kind, video) for video in ("right", "wrong"))
      of = share(rows, condition, kind)
      cells = [condition, kind, str(len(of)), records.spread(own.values())]
      cells += [records.spread(other.values()), _interval([own[s] - other[s] for s in of])]
      lines.append(f"| {' | '.join([*cells, _interval(of.values(), 2), word(of, LARGE)])} |")
  return [*lines, ""]


def _blind(rows) -> list[str]:
  lines = [
    "**2. Do the questions need the video?** The option that is likeliest to the language model, "
    "of all seeds together, with Wilson's 95 % interval. *Held*: chance lies in that of the blind "
    "score, and the score with video lies above it.",
    "",
    "| question | n | chance | blind | with video (long) | with a wrong video | verdict |",
    "|---|---|---|---|---|---|---|",
  ]
  for kind, asked in QUESTIONS.items():
    found = [
      _together(rows, condition, kind, video)
      for condition, video in ((LANGUAGE, "right"), ("long", "right"), ("long", "wrong"))
    ]
    if not all(found):
      lines.append(f"| {asked} | 0 | | not run | not run | not run | not run |")
      continue
    chance = 1 / found[0][2]
    bounds = [wilson(hits, count) for hits, count, _ in found]
    fair, above = bounds[0][0] <= chance <= bounds[0][1], bounds[1][0] > bounds[0][1]
    said = [
      f"{hits / count:.3f} [{low:.3f}, {high:.3f}]"
      for (hits, count, _), (low, high) in zip(found, bounds, strict=True)
    ]
    cells = [asked, str(found[0][1]), f"{chance:.3f}", *said]
    lines.append(f"| {' | '.join([*cells, 'held' if fair and above else 'not held'])} |")
  return [*lines, ""]


def _together(rows, condition: str, kind: str, video: str) -> tuple[int, int, int] | None:
  """(hits, questions, options) of all seeds."""
  of = [row["answered"][video][kind] for row in records.select(rows, condition=condition)]
  return of and (sum(x["hits"] for x in of), sum(x["n"] for x in of), of[0]["options"])


def _claims(rows) -> list[str]:
  lines = [
    "**3 and 4, tried.** Accuracy of questions, CIDEr of texts. The difference is of the pairs by "
    "seed, with its 95 % interval (Student's t): *held* where it lies above 0; of a tie, within "
    f"±{MARGIN:g}. *Not shown at this size*: neither is better with its own video than with "
    "another's.",
    "",
    "| claim | of | conditions | n | difference | verdict |",
    "|---|---|---|---|---|---|",
  ]
  for of in comparisons():
    better, worse = (values(rows, name, of.kind) for name in (of.better, of.worse))
    seeds = sorted(set(better) & set(worse))
    means = [f"{np.mean([v[s] for s in seeds]):.3f}" if seeds else "" for v in (better, worse)]
    cells = [of.claim, of.kind, f"{of.better} {means[0]} − {of.worse} {means[1]}"]
    cells += [str(len(seeds)), _interval([better[s] - worse[s] for s in seeds])]
    lines.append(f"| {' | '.join([*cells, verdict(rows, of)])} |")
  return [*lines, ""]


def _conditions(rows) -> list[str]:
  """Every condition on its own."""
  lines = [
    "**By condition**, mean ± deviation over seeds. Exact: the share of texts that are right word "
    f"by word. `{LANGUAGE}`: the language model without video; `oracle`: reading the true texts of "
    "the segments; `truth`: the true texts. Part: captions of segments, which `segments` writes. "
    "Clock: seconds of a seed, tests included.",
    "",
    "| condition | n | loss | caption CIDEr | exact | summary CIDEr | exact | part exact | whole | "
    "order | clock |",
    "|---" * 11 + "|",
  ]
  for name in ("truth", LANGUAGE, *CONDITIONS, "oracle"):
    found = records.select(rows, condition=name)
    columns = [(kind, m) for kind in ("caption", "summary") for m in ("CIDEr", "exact")]
    columns += [("part", "exact"), *((kind, "") for kind in QUESTIONS)]
    got = [values(rows, name, kind, measure=measure) for kind, measure in columns]
    cells = [records.spread(x.values()) if x else "" for x in got]
    spent = [row["seconds"] for row in found if "seconds" in row]
    losses = [row["training_loss"] for row in found if "training_loss" in row]
    cells = [f"{np.mean(losses):.3f}" if losses else "", *cells]
    cells.append(f"{np.mean(spent):.0f}" if spent else "")
    lines.append(f"| {' | '.join([name, str(len(found)), *cells])} |")
  return lines


def _interval(each, digits: int = 3) -> str:
  each = list(each)
  if not each:
    return "not run"
  mean, low, high = records.interval(each)
  return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
