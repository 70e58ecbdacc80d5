"""Words a second of a language model that writes, with its cache and without, and the first word.

    python benchmarks/generate.py                                 # what suits the device at hand
    python benchmarks/generate.py --size 135m 1b --rows 8 32 --words 128 --dtype bfloat16
    python benchmarks/generate.py --folder /models/gemma-3-1b     # a config.json decides the shape

What is timed is `vfe.models.generation`, whole, in one program: the prompt is read and every row
writes --words more, whatever they are. Weights are drawn: no folder's are read, for they change no
time. Ways of choosing words: `greedy`, `beam` (--beams texts are followed) and `top_p` (drawn from
0.9 of the probability).

    cache       with: keys and values of earlier words are kept; without: for every word all places
                of prompt and words are read again, as a program of fixed shapes does (there are
                logits of the last word alone)
    first ms    from the prompt to the first word of all rows
    ms/word     each further one; with the cache, little of it depends on the length
    tokens/s    words written by all rows, first ones included; of the texts of a beam one counts
    gain        tokens/s over those without the cache
    same        share of words that are the same without the cache (in bfloat16 near ties differ)

Medians of some runs after a first one. Prints a table and, as its last line, the same as JSON.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vfe.interop import language_model as hugging_face
from vfe.interop.safetensors import read_config
from vfe.models import generation
from vfe.models.generation import Choice, Written
from vfe.models.language_model import Cache, LanguageConfig, LanguageModel
from vfe.nn.blocks import Execution
from vfe.tools import cli

# Llama's kind: SmolLM2 135M and Llama 3.2 1B as published, and `vfe.models.language_model.SIZES`.
SHAPES: Mapping[str, LanguageConfig] = {
  "test": LanguageConfig.of("test", 256),
  "demo": LanguageConfig.of("demo", 2048),
  "135m": LanguageConfig.of(
    "demo", 49_152, width=576, depth=30, heads=9, groups=3, head_dim=64, mlp=1536,
    windows=(0,) * 30, scale=64**-0.5,
  ),
  "1b": LanguageConfig.of(
    "demo", 128_256, width=2048, depth=16, heads=32, groups=8, head_dim=64, mlp=8192,
    windows=(0,) * 16, scale=64**-0.5,
  ),
}  # fmt: skip
TOP_P = 0.9
REPEATS, SECONDS = 3, 0.5  # of a measurement, at the least
HEAD = (
  f"{'size':<16} | {'rows':>4} | {'prompt':>6} | {'words':>5} | {'choice':<6} | {'cache':<7} | "
  f"{'first ms':>9} | {'ms/word':>8} | {'tokens/s':>9} | {'gain':>6} | {'same':>6}"
)


def choices(words: int, beams: int) -> dict[str, Choice]:
  """The ways of choosing words by name. Nothing ends a text."""
  return {
    "greedy": Choice(words),
    "beam": Choice(words, beams=beams),
    "top_p": Choice(words, temperature=1.0, top_p=TOP_P),
  }


class Words(NamedTuple):
  """Instead of keys and values: the words read so far, int32[B, S], the first `length` of a row."""

  ids: jax.Array
  length: jax.Array

  def take(self, rows: jax.Array) -> "Words":
    """Of these rows, in this order."""
    return Words(self.ids[rows], self.length[rows])


class Writer:
  """A model with drawn weights that writes on from prompts of equal length."""

  def __init__(self, config: LanguageConfig, dtype: str):
    self.config, self.dtype = config, dtype
    self.module = LanguageModel(config, Execution(dtype=dtype))
    one = jnp.zeros((1, 1), jnp.int32)

    @jax.jit
    def draw(rng):
      params = self.module.init(rng, one, one == 0)["params"]
      return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    self.params = draw(jax.random.key(0))

  def program(
    self, ids: np.ndarray, choice: Choice, slots: int, cached: bool
  ) -> Callable[[], Written]:
    """A compiled program: a call writes once and waits for it."""
    run = jax.jit(functools.partial(self._write, choice=choice, slots=slots, cached=cached))
    inputs = (self.params, jnp.asarray(ids), jax.random.key(1))
    compiled = run.lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs))

  def _write(self, params, ids, rng, *, choice: Choice, slots: int, cached: bool) -> Written:
    apply = functools.partial(self.module.apply, {"params": params}, method="read")
    empty = lambda rows: Cache.empty(self.config, rows, slots, self.dtype)

    def read_all(ids, count, so_far: Words):
      rows = jnp.arange(len(ids))[:, None]
      places = so_far.length[:, None] + jnp.arange(ids.shape[1])
      ids = so_far.ids.at[rows, places].set(ids, mode="drop")
      logits, _ = apply(ids, so_far.length + count, empty(len(ids)))
      return logits, Words(ids, so_far.length + count)

    rows = len(ids)
    nothing = Words(jnp.zeros((rows, slots), jnp.int32), jnp.zeros(rows, jnp.int32))
    read, start = (apply, empty(rows)) if cached else (read_all, nothing)
    return generation.generate(read, start, ids, jnp.ones(ids.shape, bool), choice, rng)


def timed(run: Callable[[], Any]) -> float:
  """Seconds of a call: the median of some."""
  run()
  found = []
  while len(found) < REPEATS or sum(found) < SECONDS:
    begun = time.perf_counter()
    run()
    found.append(time.perf_counter() - begun)
  return statistics.median(found)


def measured(
  writer: Writer, name: str, rows: int, prompt: int, words: int, choice: str, beams: int
) -> list[dict[str, Any]]:
  """The row with the cache and the one without."""
  ids = np.random.default_rng(0).integers(0, writer.config.vocabulary, (rows, prompt), np.int32)
  found, said = [], {}
  for cached in (False, True):
    program = lambda count, cached=cached: writer.program(
      ids, choices(count, beams)[choice], prompt + words, cached
    )
    whole = program(words)
    said[cached], seconds, first = np.asarray(whole().ids), timed(whole), timed(program(1))
    found.append({
      "size": name, "rows": rows, "prompt": prompt, "words": words, "choice": choice,
      "beams": beams if choice == "beam" else 1, "cached": cached, "dtype": writer.dtype,
      "seconds": seconds, "first_seconds": first, "tokens_per_s": rows * words / seconds,
      "word_seconds": (seconds - first) / (words - 1),
    })  # fmt: skip
  for row in found:
    row["gain"] = row["tokens_per_s"] / found[0]["tokens_per_s"]
    row["same"] = float(np.mean(said[row["cached"]] == said[False]))
  return found[::-1]


def line(row: dict[str, Any]) -> str:
  """A row of the table."""
  cells = (
    f"{row['size']:<16}", f"{row['rows']:>4}", f"{row['prompt']:>6}", f"{row['words']:>5}",
    f"{row['choice']:<6}", f"{'with' if row['cached'] else 'without':<7}",
    f"{1e3 * row['first_seconds']:>9.2f}", f"{1e3 * row['word_seconds']:>8.3f}",
    f"{row['tokens_per_s']:>9,.0f}", f"{row['gain']:>6.1f}", f"{row['same']:>6.1%}",
  )  # fmt: skip
  return " | ".join(cells)


def shapes(flags: argparse.Namespace) -> dict[str, LanguageConfig]:
  """What is timed, by name."""
  if not flags.folder:
    return {name: SHAPES[name] for name in flags.size}
  folder = pathlib.Path(flags.folder)
  config = read_config(folder, *hugging_face.DEFAULTS)
  return {folder.name: LanguageConfig.from_hugging_face(config)}


def main(argv: Sequence[str]) -> None:
  """The command line."""
  flags = _flags(argv)
  rows = []
  print(HEAD)
  for name, config in shapes(flags).items():
    writer = Writer(config, flags.dtype)
    for count in flags.rows:
      for choice in flags.choice:
        pair = measured(writer, name, count, flags.prompt, flags.words, choice, flags.beams)
        rows += pair
        print("\n".join(map(line, pair)), flush=True)
  about = {
    "device": jax.devices()[0].device_kind,
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "jax": jax.__version__,
  }
  print(json.dumps(about | {"rows": rows}))


def _flags(argv: Sequence[str]) -> argparse.Namespace:
  small = jax.default_backend() == "cpu"
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  ways = list(choices(1, 1))
  add("--size", nargs="+", default=["demo"] if small else ["135m", "1b"], choices=list(SHAPES))
  add("--folder", help="instead: a Hugging Face folder, of which config.json is read")
  add("--rows", nargs="+", type=cli.at_least(1), default=[8] if small else [1, 32])
  add("--prompt", type=cli.at_least(1), default=32 if small else 128, help="words of a prompt")
  add("--words", type=cli.at_least(2), default=32 if small else 128, help="that are written")
  add("--choice", nargs="+", default=ways, choices=ways)
  add("--beams", type=cli.at_least(2), default=3)
  add("--dtype", default="float32" if small else "bfloat16", choices=("float32", "bfloat16"))
  return parser.parse_args(argv)


if __name__ == "__main__":
  cli.run(main)
