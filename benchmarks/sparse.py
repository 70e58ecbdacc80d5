"""Block-sparse attention against dense: time and memory, forward and backward, over the tokens.

    python benchmarks/sparse.py                           # on the devices at hand
    python benchmarks/sparse.py --topology v5e:1x1        # memory alone, by the TPU's compiler

Clips of so many frames of 14 x 14 tokens and a CLS, depth 64 a head, tokens in blocks of --block.

    sparse K_l,K_r   each block meets itself (K_l = 1) and K_r others, with relative positions
    dense            all blocks meet, with relative positions
    dense, no bias   `vfe.nn.attention.attend` as it is chosen there

    pairs       of tokens that meet, of all N²
    forward,    milliseconds: the median of rounds in which every attention has its turn; step is
    step        forward and backward
    temporary   MiB of a device in which the step's output and gradients are not, by the compiler
    of dense    the step's time and temporaries, relative to dense with its bias
    compiling   seconds for the step

--rows are those of a device. Prints a table and, as its last line, the same as JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from vfe.tools import cli
from vfe.tools.plan import COMPILER, LOCAL

SIDE = 14  # tokens of a frame's side: 224 pixels in patches of 16
DEPTH = 64  # of a head
ROUNDS = 5
DENSE, UNBIASED = "dense", "dense, no bias"
HEAD = (
  f"{'attention':<14} | frames | tokens |  pairs | forward ms |    step ms | of dense | "
  "temporary MiB | of dense | compiling s"
)


def attentions(others: Sequence[int], block: int) -> dict[str, Any]:
  """Name -> edges, None where all tokens meet."""
  from vfe.tokens.edges import Edges

  sparse = {f"sparse 1,{random}": Edges(1, random, block) for random in others}
  return sparse | {DENSE: None, UNBIASED: None}


def programs(name: str, edges: Any, frames: int) -> tuple[Callable, Callable]:
  """The forward pass and the step, on (q, k, v, given), a table of biases and a pattern."""
  import jax
  import jax.numpy as jnp

  from vfe.nn import relative
  from vfe.nn.attention import attend
  from vfe.nn.sparse import attend_sparse
  from vfe.tokens.layout import Layout

  layout = Layout((frames, SIDE, SIDE), (1, 1, 1))
  size = edges.size if edges else layout.size

  def forward(tokens, table, pattern):
    q, k, v, _ = tokens
    if name == UNBIASED:
      return attend(q, k, v)
    codes = relative.codes(layout.places(jnp.arange(layout.size)[None]), layout.grid)
    bias = relative.RelativeBias(table, codes)
    return attend_sparse(q, k, v, pattern, size=size, bias=bias)

  def loss(tokens, table, pattern):
    return jnp.sum((forward(tokens, table, pattern) * tokens[3]).astype(jnp.float32))

  return jax.jit(forward), jax.jit(jax.grad(loss, (0, 1)))


def shapes(mesh: Any, edges: Any, frames: int, flags: argparse.Namespace) -> tuple[Any, ...]:
  """What the programs take; rows lie over all devices."""
  import jax
  import jax.numpy as jnp

  from vfe.learn import sharding
  from vfe.nn import relative

  n = frames * SIDE**2
  whole = sharding.replicated(mesh)
  tokens = jax.ShapeDtypeStruct(
    (flags.rows * mesh.size, 1 + n, flags.heads, DEPTH), jnp.dtype(flags.dtype),
    sharding=sharding.batch_sharding(mesh),
  )  # fmt: skip
  entries = relative.entries((frames, SIDE, SIDE))
  table = jax.ShapeDtypeStruct((entries, flags.heads), jnp.float32, sharding=whole)
  met = (edges.blocks(n), edges.met(n)) if edges else (1, 1)
  return (tokens,) * 4, table, jax.ShapeDtypeStruct(met, jnp.int32, sharding=whole)


def filled(shaped: tuple[Any, ...], edges: Any, n: int) -> tuple[Any, ...]:
  """Normal numbers of these shapes, and the pattern of a key."""
  import jax
  import jax.numpy as jnp

  from vfe.tokens.edges import pattern

  tokens, table, blocks = shaped

  def make():
    keys = jax.random.split(jax.random.key(0), len(tokens) + 1)
    *normal, biases = (
      jax.random.normal(key, leaf.shape, leaf.dtype)
      for key, leaf in zip(keys, (*tokens, table), strict=True)
    )
    met = pattern(jax.random.key(1), 0, n, edges) if edges else jnp.zeros(blocks.shape, jnp.int32)
    return tuple(normal), biases, met

  return jax.jit(make, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shaped))()


def measured(mesh: Any, frames: int, flags: argparse.Namespace) -> list[dict[str, Any]]:
  """A row for each attention; times where the devices are at hand."""
  import jax

  n, rows, turns = frames * SIDE**2, [], []
  for name, edges in attentions(flags.random, flags.block).items():
    shaped = shapes(mesh, edges, frames, flags)
    forward, step = (program.lower(*shaped) for program in programs(name, edges, frames))
    begun = time.perf_counter()
    step = step.compile()
    met = n * min(n, edges.met(n) * edges.size) if edges else n * n
    rows.append({
      "attention": name, "frames": frames, "tokens": 1 + n, "pairs": met / n**2,
      "forward_seconds": None, "step_seconds": None,
      "temporary_bytes": step.memory_analysis().temp_size_in_bytes,
      "compile_seconds": time.perf_counter() - begun,
    })  # fmt: skip
    if flags.topology == LOCAL:
      given = filled(shaped, edges, n)
      for key, program in (("forward_seconds", forward.compile()), ("step_seconds", step)):
        jax.block_until_ready(program(*given))
        turns.append((rows[-1], key, program, given, []))
  for _ in range(flags.rounds):
    for *_, program, given, found in turns:
      begun = time.perf_counter()
      jax.block_until_ready(program(*given))
      found.append(time.perf_counter() - begun)
  for row, key, *_, found in turns:
    row[key] = sorted(found)[len(found) // 2]
  return rows


def line(row: dict[str, Any], dense: dict[str, Any]) -> str:
  """A line of the table."""
  number = lambda key, scale, form: "-" if row[key] is None else format(row[key] * scale, form)
  ratio = lambda key: "-" if row[key] is None else f"{row[key] / dense[key]:.3f}"
  cells = (
    f"{row['attention']:<14}", f"{row['frames']:>6}", f"{row['tokens']:>6}",
    f"{row['pairs']:>6.1%}",
    f"{number('forward_seconds', 1e3, '.1f'):>10}", f"{number('step_seconds', 1e3, '.1f'):>10}",
    f"{ratio('step_seconds'):>8}", f"{number('temporary_bytes', 2**-20, '.1f'):>13}",
    f"{ratio('temporary_bytes'):>8}", f"{row['compile_seconds']:>11.1f}",
  )  # fmt: skip
  return " | ".join(cells)


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _flags(argv)
  if flags.topology != LOCAL:
    os.environ.update(COMPILER)
  import jax

  from vfe.learn import sharding
  from vfe.train import devices

  mesh = sharding.make_mesh({"data": -1}, devices.named(flags.topology))
  small = mesh.devices.flat[0].platform == "cpu"
  flags.frames = flags.frames or ([4, 8, 16] if small else [4, 8, 16, 32, 64])
  flags.rows = flags.rows or (1 if small else 8)
  flags.dtype = flags.dtype or ("float32" if small else "bfloat16")
  rows = []
  print(HEAD)
  for frames in flags.frames:
    with jax.set_mesh(mesh):
      found = measured(mesh, frames, flags)
    dense = next(row for row in found if row["attention"] == DENSE)
    for row in found:
      print(line(row, dense), flush=True)
    rows += found
  about = {
    "topology": flags.topology, "device": mesh.devices.flat[0].device_kind, "devices": mesh.size,
    "cores": os.cpu_count(), "rows_a_device": flags.rows, "heads": flags.heads,
    "block": flags.block, "dtype": flags.dtype, "jax": jax.__version__,
  }  # fmt: skip
  print(json.dumps(about | {"rows": rows}))


def _flags(argv: Sequence[str]) -> argparse.Namespace:
  parser = cli.Parser(__doc__)
  add, count = parser.add_argument, cli.at_least(1)
  add("--topology", default=LOCAL, help="chips of vfe.tools.plan, or local")
  add("--frames", nargs="+", type=count, help="default: 4 to 64, on a CPU to 16")
  add("--random", nargs="+", type=cli.at_least(0), default=[3, 5], help="K_r")
  add("--block", type=count, default=56, help="tokens of a block")
  add("--rows", type=count, help="of a device; default: 8, on a CPU 1")
  add("--heads", type=count, default=12)
  add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on a CPU float32")
  add("--rounds", type=count, default=ROUNDS, help="of timing")
  return parser.parse_args(argv)


if __name__ == "__main__":
  cli.run(main)
