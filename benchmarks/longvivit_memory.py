"""Training memory, trained parameters and FLOPs of every method of LongViViT's Figures 2 to 5.

    python benchmarks/longvivit_memory.py > memory.md
    python benchmarks/longvivit_memory.py --size b l --frames 16   # Figure 4

Compiles the step of the recipe's `long` stage on clips alone, nothing is run: ViT-B with
BERT-medium (ViT-L with BERT-base), 256 pixels, one chip. Clips of 16 frames have captions and train
the text tower; longer ones have summaries and do not (paper, section 3). A chip's batch holds the
same frames at every length (--frames_a_chip), so the tables can be read beside each other.

    trained      parameters with a gradient and an optimiser's state: of the video tower, of the
                 text tower, of both with their projections, and how many there are
    GFLOP        of a clip's step by formula, what is frozen forward only, nothing twice
    temporaries  activations, gradients and workspace of a chip, by the compiler
    peak         with parameters, optimiser and batch; and relative to all tokens meeting unmasked

The attention is what the library takes on that chip (no N x N matrix is kept), so masking saves
what is linear in the tokens; --remat none keeps every activation, full a layer's input. What has
been compiled is kept in --kept and not compiled again. A markdown table, and as the last line JSON.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vfe.tools import cli, recipes
from vfe.tools.plan import COMPILER, LOCAL, amount

RECIPE = "configs/longvivit_256.py"
STAGE = "long"
ABSENT = {"long.inputs.encoder": "(a ViT)", "long.inputs.text": "(a BERT)"}  # their shapes assumed
SHORT = {"long.freeze_text": False, "long.data.text.key": "caption", "long.data.text.length": 64}
DENSE = "joint, all tokens"


def _masked(mixing: str) -> dict[str, dict[str, Any]]:
  shares = {f"{mixing}, {share:.0%} masked": share for share in (0.25, 0.5, 0.75)}
  return {
    name: {"model.mixing": mixing, "long.mask.ratio": share}
    for name, share in {f"{mixing}, all tokens": 0.0, **shares}.items()
  }


# Method -> the recipe's keys that make it so, beside all weights trained on all tokens.
METHODS: dict[str, dict[str, Any]] = {
  **_masked("joint"), **_masked("factorised"), **_masked("frame"),
  "MLP adapters": {"long.train": "adapters"},
  "LoRA": {"long.train": "lora"},
  "temporal attention only": {"long.train": "temporal", "model.mixing": "factorised"},
  "tubelets 4x16x16": {"model.tubelet": (4, 16, 16)},
  "tubelets 2x32x32": {"model.tubelet": (2, 32, 32)},
  "tubelets 4x32x32": {"model.tubelet": (4, 32, 32)},
  "TubeViT, four kernels": {"model.tubes": "tubevit"},
  "MLP adapters, 75% masked": {"long.train": "adapters", "long.mask.ratio": 0.75},
  "last 4 layers": {"long.train": "last"},
  "last 4 layers, 75% masked": {"long.train": "last", "long.mask.ratio": 0.75},
}  # fmt: skip

COUNTED = ("vision", "text", "trained", "all")
HEAD = (
  "| method | tokens | trained of video | of text | of both | of | GFLOP a clip | temporaries |"
  " peak | of unmasked |"
)


def recipe(name: str, size: str, frames: int, batch: int, remat: str, changes: Sequence[str]):
  """The recipe of a method of `METHODS`."""
  config = recipes.read([f"--config={RECIPE}:size={size},frames={frames},masked=0.0", *changes])
  made = {"long.train": "all", "long.batch": batch, "model.remat": remat} | ABSENT | METHODS[name]
  if frames == 16:
    made |= SHORT
  config.update_from_flattened_dict(made)
  return config


def counted(stage: Any, params: Any) -> dict[str, int]:
  """Parameters: all, trained, and of the trained those of either tower."""
  from vfe.learn.trained import ALL

  trained = stage.trained("model")
  few, everything = trained.count(params)
  towers = {tower: trained.of(params).get(tower, {}) for tower in ("vision", "text")}
  towers = {tower: ALL.count(part)[1] for tower, part in towers.items()}
  return {"all": everything, "trained": few, **towers}


def measured(config: Any, devices: Sequence[Any]) -> dict[str, Any]:
  """What the step takes of a chip, and what the stage says of itself."""
  import jax

  from vfe.learn import sharding
  from vfe.stages.planned import planned
  from vfe.train import devices as known_devices
  from vfe.train import planning
  from vfe.train.program import program

  mesh = sharding.make_mesh(config.mesh, devices)
  stage = planned(config, STAGE, mesh)
  stage.check()
  made = program(stage)
  parameters = counted(stage, made.state.groups["model"].params)
  try:
    with jax.set_mesh(mesh):
      memory = planning.memory_of(made, made.compile().memory_analysis())
    needs = memory.peak
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    memory, needs = None, planning.needed(str(error))
  capacity = known_devices.capacity(devices[0])
  return {
    "batch": config[STAGE].batch, "tokens": stage.tokens(), "model_flops": stage.model_flops(),
    "parameters": parameters,
    "memory": dataclasses.asdict(memory) if memory else None, "needs": needs,
    "fits": memory is not None and (capacity is None or needs <= capacity),
  }  # fmt: skip


def row(name: str, plan: dict[str, Any], dense: dict[str, Any] | None) -> str:
  """A line of the table."""
  share = plan["needs"] / dense["needs"] if dense and dense["needs"] else None
  cells = (
    name, plan["tokens"], *(f"{plan['parameters'][part] / 1e6:.1f} M" for part in COUNTED),
    f"{plan['model_flops'] / plan['batch'] / 1e9:,.0f}",
    amount(plan["memory"]["temporaries"]) if plan["memory"] else "-",
    amount(plan["needs"]) + ("" if plan["fits"] else " (does not fit)"),
    f"{share:.2f}" if share else "-",
  )  # fmt: skip
  return "| " + " | ".join(map(str, cells)) + " |"


def cases(flags: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
  """(remat, size, frames, batch) of every table."""
  for remat in flags.remat:
    for size in flags.size:
      for frames in flags.frames:
        yield remat, size, frames, max(1, flags.frames_a_chip // frames)


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags, changes = _flags(argv)
  if flags.topology != LOCAL:
    os.environ.update(COMPILER)
  from vfe.train import devices

  chips = devices.named(flags.topology)
  kept = pathlib.Path(flags.kept).expanduser()
  found = json.loads(kept.read_text()) if kept.is_file() else {}
  asked = []
  for remat, size, frames, batch in cases(flags):
    print(f"\nViT-{size.upper()}, {frames} frames, {batch * len(chips)} clips on {flags.topology}, "
          f"remat {remat}\n\n{HEAD}\n|" + " --- |" * (HEAD.count("|") - 1))  # fmt: skip
    key = lambda name, of=(flags.topology, remat, size, frames, batch): " ".join(
      map(str, (*of, name, *changes))
    )
    for name in flags.method:
      if key(name) not in found:
        print(f"{key(name)}: compiling", file=sys.stderr, flush=True)
        config = recipe(name, size, frames, batch * len(chips), remat, changes)
        found[key(name)] = measured(config, chips)
        kept.write_text(json.dumps(found, indent=2) + "\n")
      asked.append(key(name))
      print(row(name, found[key(name)], found.get(key(DENSE))), flush=True)
  print("\n" + json.dumps({name: found[name] for name in asked}))


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--method", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
  add("--size", nargs="+", default=["b"], choices=("s", "b", "l"))
  add("--frames", nargs="+", type=cli.at_least(1), default=[16, 128])
  add("--frames_a_chip", type=cli.at_least(1), default=256, help="frames of a chip's batch")
  add("--remat", nargs="+", default=["none"], choices=("none", "dots", "full"))
  add("--topology", default="v5p:1x1x1", help="chips of vfe.tools.plan, or local")
  add("--kept", default="longvivit_memory.json", help="what has been compiled already")
  return recipes.beside(parser, argv)


if __name__ == "__main__":
  cli.run(main)
