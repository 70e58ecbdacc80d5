"""Memory and time of SViTT-Ego's training by which tokens meet and which go on, against frames.

    python benchmarks/sparse_memory.py > memory.md
    python benchmarks/sparse_memory.py --frames 4 --remat none      # the paper's setting
    python benchmarks/sparse_memory.py --time 2 --frames 4 8 16      # on the devices at hand

Compiles the loss of the recipe and its gradients for one chip, at the paper's sizes: BEiT-B and
BERT-base, 224 pixels, 8 pairs of a clip and a narration, all three losses. Nothing is run.

    temporaries  activations, gradients and workspace, by the compiler
    peak         with the parameters and the batch: the paper's "model, batch, gradients"; no
                 optimiser
    GFLOP        of a pair by formula, forward and backward

(1, 3, 56) and (1, 5, 56) have the paper's edges and keep 0.7 of the tokens after layers 3, 6 and 9;
dense has neither. "dense, N x N" holds all pairs of a head at once, as most code does; "dense" is
what the library does in its place, some queries at a time. What has been compiled is kept in --kept
and not compiled again.

With --time N the video encoder's loss and gradients of one clip are run instead, N times each, the
methods in turn: seconds, and relative to dense. A markdown table, and as the last line JSON.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

from vfe.tools import cli, recipes
from vfe.tools.plan import COMPILER, LOCAL, amount

RECIPE, STAGE = "configs/svitt_ego.py", "pretrain"
ABSENT = {"pretrain.inputs.encoder": "(a BEiT)", "pretrain.inputs.text": "(a BERT)"}
NONE_PRUNED = {"pretrain.pruning.keep": 1.0, "pretrain.fused_pruning.keep": 1.0}
DENSE = "dense"
WHOLE = "dense, N x N"
METHODS: dict[str, dict[str, Any]] = {
  "(1, 3, 56)": {"pretrain.edges.random": 3},
  "(1, 5, 56)": {"pretrain.edges.random": 5},
  "(1, 5, 56), all go on": {"pretrain.edges.random": 5} | NONE_PRUNED,
  "dense, 0.7 go on": {"pretrain.edges.size": 0},
  DENSE: {"pretrain.edges.size": 0} | NONE_PRUNED,
  WHOLE: {"pretrain.edges.size": 0} | NONE_PRUNED,
}
HEAD = "| method | frames | remat | GFLOP a pair | temporaries | peak | of dense |"


def recipe(name: str, frames: int, batch: int, remat: str, changes: Sequence[str]) -> Any:
  """The recipe of a method of `METHODS`."""
  config = recipes.read([f"--config={RECIPE}", *changes])
  made = {"data.frames": frames, "pretrain.batch": batch, "model.remat": remat} | ABSENT
  config.update_from_flattened_dict(made | METHODS[name])
  return config


def plain(q: Any, k: Any, v: Any, pattern: Any, *, size: int, first: int, bias: Any) -> Any:
  """`vfe.nn.sparse.attend_sparse` where all meet, as it is written: N x N."""
  import jax
  import jax.numpy as jnp

  from vfe.nn.relative import FROM_CLS, TO_CLS, WITHIN_CLS, between

  count = len(bias.table)
  codes = bias.codes[0]
  entries = between(codes[:, None], codes[None, :], count)
  entries = jnp.pad(entries, ((1, 0), (1, 0)), constant_values=count + TO_CLS)
  entries = entries.at[0].set(count + FROM_CLS).at[0, 0].set(count + WITHIN_CLS)
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
  logits = logits * q.shape[-1] ** -0.5 + jnp.moveaxis(bias.table[entries], -1, 0)
  return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits).astype(v.dtype), v)


def attention(name: str) -> Any:
  """In its context a method's attention is what it says."""
  if name != WHOLE:
    return contextlib.nullcontext()
  return mock.patch("vfe.nn.sparse_block.attend_sparse", plain)


def measured(config: Any, devices: Sequence[Any]) -> dict[str, Any]:
  """Bytes of a chip for the loss and its gradients, and the stage's FLOPs."""
  import jax

  from vfe.learn import sharding
  from vfe.stages.planned import planned
  from vfe.train import devices as known_devices
  from vfe.train import planning
  from vfe.train.program import program

  mesh = sharding.make_mesh(None, devices)
  stage = planned(config, STAGE, mesh)
  made = program(stage)
  params, key = made.state.groups["model"].params, jax.random.key(0)

  def loss(params, batch):
    return stage.score(params, stage.embed(params, batch, key), None, batch, key)[0]

  found = {"model_flops": stage.model_flops() // config[STAGE].batch}
  try:
    with jax.set_mesh(mesh):
      analysis = jax.jit(jax.grad(loss)).lower(params, made.batch).compile().memory_analysis()
    given = analysis.argument_size_in_bytes
    gradients = analysis.output_size_in_bytes
    temporaries = analysis.temp_size_in_bytes + gradients
    found |= {"temporaries": temporaries, "needs": given + temporaries}
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    found |= {"temporaries": None, "needs": planning.needed(str(error))}
  capacity = known_devices.capacity(devices[0])
  fits = found["temporaries"] is not None and (capacity is None or found["needs"] <= capacity)
  return found | {"fits": fits}


def timed(configs: dict[str, Any], times: int) -> dict[str, float]:
  """Seconds of the video encoder's gradients of one clip, the least of so many, method by method
  in turn."""
  import jax
  import jax.numpy as jnp

  from vfe.learn import sharding
  from vfe.models.vivit import Encoder
  from vfe.stages.encoder import execution
  from vfe.stages.planned import planned
  from vfe.tokens.selection import everything

  runs = {}
  for name, config in configs.items():
    stage = planned(config, STAGE, sharding.make_mesh(None, jax.devices()[:1]))
    model, layout = Encoder(stage.vision, execution(config, stage.dtype)), stage.vision.layout
    patches = jnp.zeros((1, layout.size, layout.channels), jnp.uint8)
    inputs = patches, everything(1, layout.size)
    params = jax.jit(model.init)(jax.random.key(0), *inputs)["params"]
    total = lambda params, *of, model=model: jnp.square(
      model.apply({"params": params}, *of)[:, 0].astype(jnp.float32)
    ).sum()
    with attention(name):
      runs[name] = jax.jit(jax.grad(total)).lower(params, *inputs).compile(), params, inputs
    print(f"{name}: compiled", file=sys.stderr, flush=True)
  least = dict.fromkeys(runs, float("inf"))
  for _ in range(1 + times):  # the first is thrown away by being slower
    for name, (run, params, inputs) in runs.items():
      begun = time.perf_counter()
      jax.block_until_ready(run(params, *inputs))
      least[name] = min(least[name], time.perf_counter() - begun)
  return least


def row(name: str, frames: int, remat: str, plan: dict[str, Any], dense: dict | None) -> str:
  """A line of the table."""
  share = f"{plan['needs'] / dense['needs']:.2f}" if dense and dense["needs"] else "-"
  cells = (
    name, frames, remat, f"{plan['model_flops'] / 1e9:,.0f}",
    amount(plan["temporaries"]) if plan["temporaries"] else "-",
    amount(plan["needs"]) + ("" if plan["fits"] else " (does not fit)"), share,
  )  # fmt: skip
  return "| " + " | ".join(map(str, cells)) + " |"


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags, changes = _flags(argv)
  if flags.time:
    _print_times(flags, changes)
    return
  if flags.topology != LOCAL:
    os.environ.update(COMPILER)
  from vfe.train import devices

  chips = devices.named(flags.topology)
  kept = pathlib.Path(flags.kept).expanduser()
  found = json.loads(kept.read_text()) if kept.is_file() else {}
  asked = []
  print(f"{HEAD}\n|" + " --- |" * (HEAD.count("|") - 1))
  for remat in flags.remat:
    for frames in flags.frames:
      key = lambda name, of=(flags.topology, remat, frames, flags.batch): " ".join(
        map(str, (*of, name, *changes))
      )
      for name in sorted(flags.method, key=lambda name: name != DENSE):
        if key(name) not in found:
          print(f"{key(name)}: compiling", file=sys.stderr, flush=True)
          config = recipe(name, frames, flags.batch, remat, changes)
          with attention(name):
            found[key(name)] = measured(config, chips)
          kept.write_text(json.dumps(found, indent=2) + "\n")
        asked.append(key(name))
        print(row(name, frames, remat, found[key(name)], found.get(key(DENSE))), flush=True)
  print("\n" + json.dumps({name: found[name] for name in asked}))


def _print_times(flags: argparse.Namespace, changes: Sequence[str]) -> None:
  found = {}
  print("| method | frames | seconds | of dense |\n| --- | --- | --- | --- |")
  for frames in flags.frames:
    configs = {name: recipe(name, frames, 1, "full", changes) for name in flags.method}
    found[frames] = timed(configs, flags.time)
    for name, seconds in found[frames].items():
      dense = found[frames].get(DENSE)
      share = f"{seconds / dense:.2f}" if dense else "-"
      print(f"| {name} | {frames} | {seconds:.2f} | {share} |", flush=True)
  print("\n" + json.dumps(found))


def _flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--method", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
  add("--frames", nargs="+", type=cli.at_least(1), default=[4, 16, 64])
  add("--batch", type=cli.at_least(1), default=8, help="pairs of a clip and a narration")
  add("--remat", nargs="+", default=["none"], choices=("none", "dots", "full"))
  add("--topology", default="v5p:1x1x1", help="one chip of vfe.tools.plan, or local")
  add("--time", type=int, default=0, help="run so many times on the devices at hand")
  add("--kept", default="sparse_memory.json", help="what has been compiled already")
  return recipes.beside(parser, argv)


if __name__ == "__main__":
  cli.run(main)
