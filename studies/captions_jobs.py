"""The work of the captions study: a language model, and what is trained between it and encoders."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from studies import contrast_jobs
from studies.captions_eyes import Eyes
from studies.captions_sizes import CONDITIONS, LANGUAGE, Size
from studies.captions_tested import Test
from studies.training import Schedule, make_trainer, seed_keys
from vfe.learn.trained import ALL, Trained
from vfe.models.language_model import LanguageModel
from vfe.nn.blocks import Execution
from vfe.nn.random import key

BETWEEN = ("resampler", "bridge")


def train_language(size: Size, seed: int, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Trains the language model on all words of texts; returns rows of what it says without video:
  of itself, of one who reads the true texts of segments, and of the truth, which needs no model."""
  began = time.monotonic()
  model = LanguageModel(size.language(), Execution(dtype=size.world.dtype))
  one = jnp.zeros((1, 1), jnp.int32)
  params = jax.jit(model.init)(seed_keys((seed,), "language")[0], one, one == 0)["params"]
  stories = size.stories("long", seed, "train", size.texts)
  data = {
    "texts": stories.forms("caption", "summary", "answer", "part"),
    "told": stories.forms("told summary", "told answer"),
  }

  def loss(params, rows, keys):
    total = jnp.float32(0)
    for name, of in rows.items():
      ids, _ = picked(keys, name, of)
      read = model.apply({"params": params}, ids, ids > 0, method="log_likelihood")
      total += nats(read, ids > 0)
    return total / len(rows)

  schedule = Schedule(size.language_steps, size.language_batch, size.language_rate)
  params, lost = fitted(LANGUAGE, loss, schedule, params, data, seed)
  save(folder, LANGUAGE, seed, params)
  test = Test(size, seed, {"language": params})
  blind = test.blind() | {"training_loss": lost}
  told = test.told([of["part"] for of in test.long.said])
  found = {LANGUAGE: blind, "oracle": told, "truth": test.truth()}
  spent = {"seconds": round(time.monotonic() - began, 1)}
  rows = [{"condition": name, "seed": seed} | row for name, row in found.items()]
  return [rows[0] | spent, *rows[1:]]


def train(
  size: Size, name: str, seed: int, folder: pathlib.Path, encoders: pathlib.Path
) -> list[dict[str, Any]]:
  """Trains a condition's resampler and bridge; returns its row."""
  began = time.monotonic()
  eyes = Eyes(size, CONDITIONS[name], encoders, seed)
  model, whole = eyes.model, CONDITIONS[name].view != "parts"
  params = model.init(seed_keys((seed,), "between")[0]) | {"language": load(folder, LANGUAGE, seed)}
  short, long = (
    size.stories(kind, seed, "train", size.world.count(kind, "train")) for kind in ("short", "long")
  )
  data = {
    "short": short.forms("caption") | eyes.short("train"),
    "long": (long.forms("summary", "answer") if whole else long.of_parts()) | eyes.long("train"),
  }

  def loss(params, rows, keys):
    total = jnp.float32(0)
    for stream, of in rows.items():
      looking = model.looking(params, of["seen"], of["there"])
      ids, answer = picked(keys, stream, of)
      total += nats(model.log_likelihood(params, ids, ids > 0, looking), answer)
    return total / len(rows)

  schedule = Schedule(size.steps, size.batch, size.rate)
  between = Trained(f"^({'|'.join(BETWEEN)})/")
  params, lost = fitted(name, loss, schedule, params, data, seed, between)
  save(folder, name, seed, {part: params[part] for part in BETWEEN})
  test = Test(size, seed, params, eyes)
  found = test.of_video() if whole else test.of_segments()
  gates = np.abs(np.tanh(params["bridge"]["blocks"]["gate"])).mean()
  spent = {"seconds": round(time.monotonic() - began, 1)}
  about = {"condition": name, "seed": seed, "training_loss": lost, "gate": float(gates)}
  return [about | spent | found]


def nats(read: Float[Array, "B L"], which: Bool[Array, "B L"]) -> Float[Array, ""]:
  """The mean over some words, of each word's log-likelihood."""
  return -jnp.sum(jnp.where(which, read, 0.0)) / jnp.sum(which)


def picked(
  keys: jax.Array, name: str, rows: dict[str, Array]
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
  """(ids, answer): of the forms [B, F, L] of each row one, drawn anew each time."""

  def one(rng, ids, answer):
    form = jax.random.randint(key(rng, name), (), 0, len(ids))
    return ids[form], answer[form]

  return jax.vmap(one)(keys, rows["ids"], rows["answer"])


def fitted(
  name: str,
  loss: Callable,
  schedule: Schedule,
  params: Any,
  data: Any,
  seed: int,
  trained: Trained = ALL,
) -> tuple[Any, float]:
  """(parameters, the loss of the last tenth). All data have as many rows, the shorter ones over
  again."""
  most = max(len(leaf) for leaf in jax.tree.leaves(data))
  again = lambda x: jnp.asarray(x[np.arange(most) % len(x)])[None]
  first = lambda tree: jax.tree.map(lambda x: x[0], tree)
  trainer = make_trainer(loss, schedule, 1, trained)
  params = jax.tree.map(lambda x: x[None], params)
  keys, label = seed_keys((seed,), name), f"{name}, seed {seed}"
  params, lost = trainer(label, params, jax.tree.map(again, data), keys)
  return first(params), float(lost[0])


def save(folder: pathlib.Path, name: str, seed: int, params: Any) -> None:
  """Writes a seed's parameters."""
  contrast_jobs.save(folder, name, (seed,), jax.tree.map(lambda x: x[None], params))


def load(folder: pathlib.Path, name: str, seed: int) -> Any:
  """Parameters that were saved."""
  return jax.tree.map(lambda x: x[0], contrast_jobs.load(folder, name, (seed,)))
