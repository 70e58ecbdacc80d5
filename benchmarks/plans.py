"""What every recipe takes on v5e, v5p and v6e, as the table of docs/planning.md.

    python benchmarks/plans.py > plans.md
    python benchmarks/plans.py --recipe configs/lvmae_128.py:size=l --chips v5e:1x1 v5e:4x4

Plans each training stage (`vfe.tools.plan`) with the recipe's own batch on a slice, its parameters
spread over the chips (fsdp), and finds the largest batch of one chip. Each line takes minutes of
compiling on two cores; what has been found is kept in --kept and not compiled again.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from vfe.tools import cli, recipes
from vfe.tools.plan import amount

# Recipe -> what it cannot be planned without: a folder of BERT, whose shapes are assumed.
RECIPES = {
  "configs/lvmae_128.py": (),
  "configs/lvmae_128.py:size=l": (),
  "configs/longvivit_256.py": (
    "--config.image.inputs.text=(a BERT)", "--config.caption.inputs.language=(a Llama 3.2 1B)",
  ),
}
CHIPS = ("v5e:1x1", "v5p:1x1x1", "v6e:1x1", "v5e:8x8", "v5p:4x4x4", "v6e:8x8")
HEAD = (
  "| recipe | stage | chips | batch | parameters | optimiser | temporaries | peak a chip | of |"
  " model TFLOP a step | collectives a chip |"
)


def planned(recipe: str, topology: str, changes: Sequence[str]) -> list[dict[str, Any]]:
  """The plans of all training stages; the largest batch on one chip, else the recipe's own."""
  single = set(topology.partition(":")[2].split("x")) == {"1"}
  extra = ["--fit=batch"] if single else ["--config.mesh.data=1", "--config.mesh.fsdp=-1"]
  extra += RECIPES.get(recipe, ())
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / "plan.json"
    command = [
      sys.executable, "-m", "vfe.tools.plan", f"--config={recipe}", f"--topology={topology}",
      f"--json={out}", *extra, *changes,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    return [] if done.returncode else json.loads(out.read_text())["plans"]


def row(recipe: str, topology: str, plan: dict[str, Any]) -> str:
  """A line of the table."""
  memory = plan["memory"] or {}
  size = lambda name: amount(memory[name]) if memory else "-"
  sent = _sent(plan["traffic"]) if plan["traffic"] else "-"
  cells = (
    recipe, plan["stage"], topology, plan["batch"], size("parameters"), size("optimizer"),
    size("temporaries"), amount(plan["needs"]) if plan["fits"] else "does not fit",
    amount(plan["capacity"]), f"{plan['model_flops'] / 1e12:.2f}", sent,
  )  # fmt: skip
  return "| " + " | ".join(map(str, cells)) + " |"


def _sent(traffic: dict[str, Any]) -> str:
  total = sum(one["bytes"] for one in traffic["collectives"])
  return amount(total) if total else "none"


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags, changes = _flags(argv)
  kept = pathlib.Path(flags.kept).expanduser()
  found = json.loads(kept.read_text()) if kept.is_file() else {}
  print(HEAD)
  print("|" + " --- |" * (HEAD.count("|") - 1))
  for recipe in flags.recipe:
    for topology in flags.chips:
      name = " ".join([recipe, topology, *changes])
      if name not in found:
        plans = planned(recipe, topology, changes)
        if not plans:
          continue  # why was told on standard error
        found[name] = plans
        kept.write_text(json.dumps(found, indent=2) + "\n")
      for plan in found[name]:
        print(row(recipe, topology, plan), flush=True)


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--recipe", nargs="+", default=list(RECIPES), help="with its argument after a colon")
  add("--chips", nargs="+", default=list(CHIPS), help="topologies of vfe.tools.plan")
  add("--kept", default="plans.json", help="what has been compiled already")
  return recipes.beside(parser, argv)


if __name__ == "__main__":
  cli.run(main)
