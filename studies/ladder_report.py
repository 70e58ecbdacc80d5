"""The tables of the ladder study, in Markdown."""

from typing import Any

import numpy as np

from studies import records
from studies.ladder_sizes import BASELINES, CONDITIONS, FACTORS, PROBED, TUNED, Size

CLEARLY = 0.9  # the gate: at most this share of the static scene's loss, for every seed


def text(rows: list[dict[str, Any]], name: str, size: Size) -> str:
  """The report of one size from its rows; what has not been run says so."""
  rows = records.select(rows, size=size.digest())
  return "\n".join([*_head(rows, name, size), *_gate(rows), *_tasks(rows), *_factors(rows)]) + "\n"


def by_seed(rows: list[dict[str, Any]], rung: str, condition: str) -> dict[int, float]:
  """Accuracy by seed."""
  found = records.select(rows, rung=rung, condition=condition)
  return {row["seed"]: row["accuracy"] for row in found}


def _head(rows, name: str, size: Size) -> list[str]:
  t, h, w = size.layout.grid
  devices = ", ".join(sorted({row["device"] for row in rows})) or "nothing yet"
  versions = rows[-1]["versions"] if rows else {}
  spent = sum(row["seconds"] for row in rows) / 60
  return [
    f"Size `{name}` ({size.digest()}), `python -m studies.ladder --size={name}`, on: {devices}; "
    + ", ".join(f"{package} {version}" for package, version in versions.items())
    + f"; {spent:.0f} minutes of one process in all.",
    "",
    f"Videos: {size.frames} frames of {size.size}x{size.size}, {size.objects[0]} to "
    f"{size.objects[1]} objects, texture {size.texture}, motion {size.motion:g}; {t}x{h}x{w} "
    f"tokens of {'x'.join(map(str, size.tubelet))}. Encoder: width {size.width}, depth "
    f"{size.depth}. Pre-training: {size.pretrain_steps} steps of {size.pretrain_batch} of "
    f"{size.pretrain_videos} videos, {1 - size.visible_sites / (h * w):.0%} tube mask, decoder "
    f"asked for {size.top:.0%} (what changes most) + {size.random:.0%} (random), pixel targets. "
    f"Fine-tuning: {size.train_videos} labelled videos, {size.tune_steps} steps of "
    f"{size.tune_batch}, both from scratch and from pre-training. Probes: attentive, "
    f"{size.probe_steps} steps of {size.probe_batch}. Tests: {size.test_videos} videos a seed.",
    "",
  ]


def _gate(rows) -> list[str]:
  """Pre-training's loss beside what needs no network."""
  lines = [
    "**Pre-training loss** on test videos, at the tokens asked of the decoder. The gate is a loss "
    f"of at most {CLEARLY:g} of the static scene's (an oracle: the clip's own mean over time).",
    "",
    "| seed | loss | data-set mean | static scene | loss / mean | loss / static | gate |",
    "|---|---|---|---|---|---|---|",
  ]
  rows = records.select(rows, condition="pre-training")
  for row in sorted(rows, key=lambda row: row["seed"]):
    mean, static = (row["loss"] / row[name] for name in ("dataset_mean", "static_scene"))
    lines.append(
      f"| {row['seed']} | {row['loss']:.3f} | {row['dataset_mean']:.3f} | "
      f"{row['static_scene']:.3f} | {mean:.2f} | {static:.2f} | "
      f"{'passed' if static <= CLEARLY else 'not passed'} |"
    )
  return [*lines, *([] if rows else ["| not run | | | | | | |"]), ""]


def _tasks(rows) -> list[str]:
  lines = [
    "**Accuracy**, the mean over a rung's factors: mean ± deviation over seeds. The difference is "
    "pre-trained less not, paired by seed, with its 95 % interval (Student's t). *Not shown at "
    "this size*: neither of the two passes the better baseline.",
    "",
    "| rung | comparison | seeds | chance | frame difference | without | with pre-training | "
    "difference | verdict |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for rung in FACTORS:
    for name, (without, trained) in (("fine-tuned", TUNED), ("frozen probe", PROBED)):
      lines.append(_comparison(rows, rung, name, without, trained))
  return [*lines, ""]


def _comparison(rows, rung: str, name: str, without: str, trained: str) -> str:
  base = [by_seed(rows, rung, baseline) for baseline in BASELINES]
  worse, better = by_seed(rows, rung, without), by_seed(rows, rung, trained)
  seeds = sorted(set(worse) & set(better))
  floor = max(np.mean(list(of.values())) for of in base) if all(base) else None
  difference = "not run"
  if seeds:
    mean, low, high = records.interval(better[seed] - worse[seed] for seed in seeds)
    difference = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
  cells = [records.spread(of.values()) for of in (*base, worse, better)]
  verdict = records.verdict(better, worse, floor)
  return f"| {' | '.join([rung, name, str(len(seeds)), *cells, difference, verdict])} |"


def _factors(rows) -> list[str]:
  """Every factor on its own: mean over seeds."""
  lines = [
    "**By factor**, mean over seeds.",
    "",
    "| rung | factor | " + " | ".join(CONDITIONS) + " |",
    "|---" * (2 + len(CONDITIONS)) + "|",
  ]
  for rung, factors in FACTORS.items():
    for factor in factors:
      cells = []
      for condition in CONDITIONS:
        found = records.select(rows, rung=rung, condition=condition)
        values = [row["factors"][factor] for row in found]
        cells.append(f"{np.mean(values):.3f}" if values else "not run")
      lines.append(f"| {' | '.join([rung, factor, *cells])} |")
  return lines
