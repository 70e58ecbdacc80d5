"""Memory of the contrastive losses over the global batch, a chip, by the TPU's own compiler.

    python benchmarks/contrastive.py
    python benchmarks/contrastive.py --topology v5p:4x8x8 --pairs 16384 --loss info_nce

Compiles the loss of M pairs and its gradients with respect to both sides' embeddings, whose rows
lie over all chips, and reads the temporary bytes from `memory_analysis()`. Nothing is run.

    placed      as the compiler places it: what the chip's fast memory (VMEM) has room for is there
                and takes no HBM
    all in HBM  with nothing in fast memory, so everything that is alive at once counts (v5e and
                v6e; v5p's compiler does as it likes)
    sent        what collectives move, a chip (`vfe.train.hlo`)

Needs the libtpu wheel; --topology local takes the devices at hand. Prints a table and, as its last
line, the same as JSON.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from vfe.tools import cli
from vfe.tools.plan import COMPILER, LOCAL

PAIRS = (1024, 4096, 16384, 32768, 65536)
NOTHING_FAST = {"xla_msa_enable": "false", "xla_vf_vmem_memory_space_assignment": "false"}
HEAD = (
  f"{'loss':<9} | {'pairs':>6} | {'width':>5} | {'type':<8} | {'placed MiB':>10} | "
  f"{'all in HBM MiB':>14} | {'sent MiB':>8}"
)


def compiled(mesh: Any, loss: str, pairs: int, width: int, dtype: str, options: dict) -> Any:
  """The compiled loss and gradients of embeddings [pairs, width] over the mesh."""
  import jax
  import jax.numpy as jnp

  from vfe.learn import sharding
  from vfe.models import contrastive

  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  side = jax.ShapeDtypeStruct((pairs, width), jnp.dtype(dtype), sharding=rows)
  one = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
  valid = jax.ShapeDtypeStruct((pairs,), bool, sharding=rows)

  def mean(video, text, log_scale, bias, valid):
    scale = contrastive.scale_of(log_scale)
    if loss == "sigmoid":
      total, weight, metrics = contrastive.sigmoid_loss(video, text, scale, bias, valid=valid)
    else:
      total, weight, metrics = contrastive.info_nce(
        video, text, scale, smoothing=0.1, valid=valid
      )
    return total / weight, metrics

  step = jax.jit(
    jax.value_and_grad(mean, (0, 1, 2, 3), has_aux=True),
    out_shardings=(whole, (rows, rows, whole, whole)),
  )
  return step.lower(side, side, one, one, valid).compile(compiler_options=options)


def measured(mesh: Any, loss: str, pairs: int, width: int, dtype: str) -> dict[str, Any]:
  """Temporary bytes a chip, and what collectives move."""
  from vfe.train import hlo

  temporary = lambda step: step.memory_analysis().temp_size_in_bytes
  make = lambda options: compiled(mesh, loss, pairs, width, dtype, options)
  placed = make({})
  tpu = mesh.devices.flat[0].platform == "tpu"
  return {
    "loss": loss, "pairs": pairs, "width": width, "dtype": dtype,
    "placed_bytes": temporary(placed),
    "hbm_bytes": temporary(make(NOTHING_FAST) if tpu else placed),
    "sent_bytes": sum(one.bytes for one in hlo.traffic(placed.as_text()).collectives),
  }  # fmt: skip


def main(argv: Sequence[str]) -> None:
  """The command line."""
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--topology", default="v5e:16x16", help="chips of vfe.tools.plan, or local")
  add("--pairs", nargs="+", type=cli.at_least(1), default=list(PAIRS), help="of the global batch")
  add("--width", type=cli.at_least(1), default=768, help="of an embedding")
  add("--loss", nargs="+", default=["info_nce", "sigmoid"], choices=("info_nce", "sigmoid"))
  add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the embeddings")
  flags = parser.parse_args(argv)
  if flags.topology != LOCAL:
    os.environ.update(COMPILER)
  import jax

  from vfe.learn import sharding
  from vfe.train import devices

  mesh = sharding.make_mesh({"data": -1}, devices.named(flags.topology))
  rows = []
  print(HEAD)
  for loss in flags.loss:
    for pairs in flags.pairs:
      row = measured(mesh, loss, pairs, flags.width, flags.dtype)
      rows.append(row)
      mib = [row[name] / 2**20 for name in ("placed_bytes", "hbm_bytes", "sent_bytes")]
      print(
        f"{loss:<9} | {pairs:>6} | {flags.width:>5} | {flags.dtype:<8} | {mib[0]:>10.2f} | "
        f"{mib[1]:>14.2f} | {mib[2]:>8.1f}",
        flush=True,
      )
  about = {"topology": flags.topology, "chips": mesh.size, "jax": jax.__version__}
  print(json.dumps(about | {"rows": rows}))


if __name__ == "__main__":
  cli.run(main)
