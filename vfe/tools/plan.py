"""What a training step takes, per chip, on TPUs that you need not have: by the TPU's own compiler.

    python -m vfe.tools.plan --config=configs/lvmae_128.py --topology=v5e:4x4
    python -m vfe.tools.plan --config=configs/lvmae_128.py --stage=pretrain --topology=v5e:1x1 \\
      --fit=batch
    python -m vfe.tools.plan --config=configs/lvmae_128.py:demo --topology=local

Takes what vfe.main takes: --config=FILE:argument and --config.key=value (the mesh too:
--config.mesh.fsdp=4). Every training stage of the recipe is planned, or --stage alone. Needs no
data and no finished stage: what is not here is assumed. docs/planning.md explains the lines.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from vfe import config as configs
from vfe.errors import UserError
from vfe.stages import stage_class
from vfe.tools import cli, recipes

LOCAL = "local"
# The worker compiles for TPUs on the CPU's JAX: no TPU of this machine is looked for or locked. A
# flag of another compiler would end it (LIBTPU_INIT_ARGS has the TPU's).
COMPILER = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_STDERR_LOG_LEVEL": "3",
  "XLA_FLAGS": "",
}
NOISE = 4000  # characters of the compiler's own messages that are shown when it dies


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _flags(argv)
  config = recipes.read(argv)
  stages = _stages(config, flags.stage)
  if flags.worker:
    _work(config, stages, flags)
    return
  found = []
  for message in _from_worker(argv, flags.topology):
    if "say" in message:
      print(message["say"], file=sys.stderr, flush=True)
    else:
      found.append(message["plan"])
      print(("\n" if len(found) > 1 else "") + table(message["plan"]), flush=True)
  if flags.json:
    out = pathlib.Path(flags.json).expanduser()
    out.write_text(json.dumps({"topology": flags.topology, "plans": found}, indent=2) + "\n")


def _flags(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--config", help="the recipe, e.g. configs/lvmae_128.py:size=l")
  add("--stage", help="plan this stage only")
  add("--topology", required=True, help="chips, such as v5e:4x4 or v5p:2x2x2; or local")
  add("--fit", help="find the largest batch, frames or size (of the model) that fits")
  add("--json", metavar="FILE", help="write the plans to this file, too")
  add("--worker", action="store_true", help=argparse.SUPPRESS)
  return recipes.beside(parser, argv)[0]


def _stages(config: ml_collections.ConfigDict, only: str | None) -> list[str]:
  names = configs.stage_names(config)
  trains = lambda name: stage_class(config[name].kind, f"config.{name}.kind").trains
  if only is None:
    return [name for name in names if trains(name)]
  if only not in names:
    raise UserError(f"--stage={only} is not a stage ({configs.nearest(only, names)}).")
  if not trains(only):
    raise UserError(f"--stage={only} does not train, so it has no step to plan.")
  return [only]


# The worker: it alone has JAX, and the environment that the TPU's compiler wants.


def _work(config: ml_collections.ConfigDict, stages: list[str], flags: argparse.Namespace) -> None:
  out, sys.stdout = sys.stdout, sys.stderr  # what stages print is not a message
  tell = lambda **message: print(json.dumps(message), file=out, flush=True)
  say = lambda text: tell(say=text)
  try:
    from vfe.train import devices, planning

    chips = devices.named(flags.topology)
    for name in stages:
      if flags.fit:
        made = planning.fit(config, name, chips, flags.fit, say)
      else:
        say(f"{name}: compiling the step for {len(chips)} x {chips[0].device_kind}")
        made = planning.plan(config, name, chips)
      tell(plan=made.as_json())
  except UserError as error:
    tell(error=str(error))


def _from_worker(argv: Sequence[str], topology: str) -> Iterator[dict[str, Any]]:
  """The messages of a worker that does the same command line.

  Raises:
    UserError: the worker's own.
  """
  command = [sys.executable, "-m", "vfe.tools.plan", "--worker", *argv]
  environment = os.environ | (COMPILER if topology != LOCAL else {})
  with tempfile.TemporaryFile("w+") as noise:
    worker = subprocess.Popen(
      command, env=environment, stdout=subprocess.PIPE, stderr=noise, text=True
    )
    with worker:
      for line in worker.stdout:
        message = json.loads(line)
        if "error" in message:
          raise UserError(message["error"])
        yield message
    if worker.returncode:
      noise.seek(0)
      sys.stderr.write(noise.read()[-NOISE:])
      raise SystemExit(f"vfe: the planner's worker ended with {worker.returncode}; see above.")


# The table.


def table(plan: dict[str, Any]) -> str:
  """A plan (`vfe.train.planning.Plan.as_json`) for a person."""
  mesh = ", ".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1)
  head = f"{plan['stage']}: {plan['devices']} x {plan['device']}, mesh {mesh or 'of one'}"
  tokens = f", {plan['tokens']:,} tokens encoded" if plan["tokens"] else ""
  batch = f"batch {plan['batch']} of {plan['frames']} x {plan['pixels']}² pixels{tokens}"
  if not plan["frames"]:
    batch = f"batch {plan['batch']} of texts, {plan['tokens']:,} words each"
  rows = [("size", plan["size"]), ("batch", batch)]
  if plan["memory"]:
    rows += [(name, amount(size)) for name, size in plan["memory"].items()]
  rows.append(("peak", _verdict(plan)))
  flops = plan["model_flops"]
  rows.append(("model FLOPs", f"{flops:.3e} a step, {flops / plan['devices']:.3e} a device"))
  if plan["traffic"]:
    rows += _traffic(plan["traffic"])
  elif plan["memory"]:
    rows.append(("collectives", "not known: this jaxlib cannot read the compiler's program"))
  rows.append(("compiled in", f"{plan['seconds']:.0f} s"))
  return "\n".join([head, *(f"  {name:<19} {text}" for name, text in rows)])


def amount(size: int) -> str:
  """Bytes in GiB, MiB or KiB."""
  for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
    if abs(size) >= scale:
      return f"{size / scale:.2f} {unit}"
  return f"{size / 2**10:.1f} KiB"


def _verdict(plan: dict[str, Any]) -> str:
  needs = amount(plan["needs"]) if plan["needs"] else "more than there is"
  if not plan["capacity"]:
    return f"{needs} (how much the device has is not known)"
  capacity = amount(plan["capacity"])
  if plan["fits"]:
    return f"{needs} of {capacity}: fits"
  return f"does not fit (needs {needs} of {capacity})"


def _traffic(traffic: dict[str, Any]) -> list[tuple[str, str]]:
  if not traffic["collectives"]:
    return [("collectives", "none")]
  rows = [
    (one["kind"], f"{one['count']} a step, {amount(one['bytes'])} a device")
    for one in traffic["collectives"]
  ]
  if not traffic["exact"]:
    rows.append(("", "a loop of unknown length was counted as one run"))
  return rows


if __name__ == "__main__":
  cli.run(main)
