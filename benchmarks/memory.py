"""Memory of a pre-training step by the share of tokens that the decoder is asked for.

    python benchmarks/memory.py

Compiles LVMAE's step (loss, gradients, AdamW) for one clip of 128 frames of 224 pixels through
ViT-B and reads the temporary bytes from the compiler's `memory_analysis()`. Nothing is run and no
array is made, so a small machine will do. The encoder sees 10 % of the tokens (tube mask); targets
and importance are given, as stored ones are. JAX_PLATFORMS names the backend (default: cpu).

Prints a table and, as its last line, the same as JSON.
"""

import json
import os
import platform
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

from vfe.learn import optimizer, state
from vfe.learn.step import Update, apply, gradients
from vfe.models.mae import MAE, DecoderConfig, masked_mse
from vfe.models.vivit import SIZES, EncoderConfig
from vfe.nn.attention import IMPLEMENTATIONS
from vfe.nn.blocks import REMAT, Execution
from vfe.nn.random import row_keys
from vfe.tokens import selection
from vfe.tokens.tubelets import gather_tubelets
from vfe.tools import cli

BUDGETS = (1.0, 0.5, 0.3, 0.15)
MASKED = 0.9  # of the encoder's tokens
RANDOM = 1 / 3  # of the budget: 5 of the paper's 15 %
LATENT = 6  # numbers a token, the tokenizer's
BATCH = 1


def temporary_bytes(model: MAE, asked: int) -> int:
  """Temporary bytes of a compiled step that asks for so many tokens."""
  layout = model.encoder.layout
  kept = selection.visible(layout.per_frame, MASKED)
  at_random = round(asked * RANDOM)

  def loss(params, extra, batch):
    keys = row_keys(jax.random.key(0), "masks", jnp.arange(BATCH))
    visible = selection.tube(keys, layout, kept)
    wanted = selection.top_and_random(keys, batch["importance"], asked - at_random, at_random)
    patches = gather_tubelets(batch["video"], layout, visible)
    predicted = model.apply({"params": params}, patches, visible, wanted)
    target = selection.gather_tokens(batch["latent"], wanted)
    weight = ~selection.contains(visible, wanted, layout.size)
    return *masked_mse(predicted, target, weight), {}, extra

  def init(rng):
    patches, one = jnp.zeros((1, 1, layout.channels), jnp.uint8), jnp.zeros((1, 1), jnp.int32)
    return model.init(rng, patches, one, one)["params"]

  params = jax.eval_shape(init, jax.random.key(0))
  made, schedule = optimizer.make_optimizer({}, params, steps=1000, batch=BATCH)
  update = Update(made, schedule)
  before = jax.eval_shape(lambda params: state.create({"model": params}, {"model": made}), params)

  def step(before, batch):
    found = gradients(loss, before.groups["model"].params, before.extra, batch)
    after, _ = apply(before, "model", found.grads, found.loss, update)
    return after

  shape = jax.ShapeDtypeStruct
  batch = {
    "video": shape((BATCH, *layout.video, 3), jnp.uint8),
    "latent": shape((BATCH, layout.size, LATENT), jnp.float32),
    "importance": shape((BATCH, layout.size), jnp.float32),
  }
  compiled = jax.jit(step, donate_argnums=0).lower(before, batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def main(argv: Sequence[str]) -> None:
  """The command line."""
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--size", default="b", choices=tuple(SIZES), help="of the model")
  add("--frames", type=int, default=128, help="frames a clip")
  add("--pixels", type=int, default=224, help="pixels of a side")
  add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of activations")
  add("--remat", default="full", choices=tuple(REMAT), help="what is computed again backwards")
  add("--attention", nargs="+", default=["xla", "chunked"], choices=tuple(IMPLEMENTATIONS))
  flags = parser.parse_args(argv)
  encoder = EncoderConfig.of(flags.size, flags.frames, flags.pixels)
  print(f"{'budget':>6} | {'asked':>6} | {'attention':>9} | {'temporary MiB':>13} | of 100 %")
  rows: list[dict[str, Any]] = []
  for attention in flags.attention:
    run = Execution(dtype=flags.dtype, remat=flags.remat, attention=attention)
    model = MAE(encoder, DecoderConfig.of(flags.size), LATENT, run)
    for budget in BUDGETS:
      asked = selection.count(encoder.layout.size, budget)
      taken = temporary_bytes(model, asked)
      rows.append({"attention": attention, "budget": budget, "asked": asked, "bytes": taken})
      whole = next(row["bytes"] for row in rows if row["attention"] == attention)
      line = f"{budget:>6.0%} | {asked:>6} | {attention:>9} | {taken / 2**20:>13,.0f}"
      print(f"{line} | {taken / whole:.3f}", flush=True)
  about = {
    "settings": {name: value for name, value in vars(flags).items() if name != "debug"},
    "backend": jax.default_backend(),
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "jax": jax.__version__,
  }
  print(json.dumps(about | {"rows": rows}))


if __name__ == "__main__":
  cli.run(main)
