"""The work of the ladder study: pre-training of some seeds, and a rung's tasks for some seeds."""

import functools
import pathlib
import time
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from studies.ladder_sizes import FACTORS, PRETRAINED_ON, Size
from studies.training import (
  Schedule,
  by_parts,
  make_trainer,
  over_seeds,
  seed_keys,
  standard_tubelets,
  with_statistics,
)
from vfe.data.tabletop import baselines
from vfe.data.tabletop.workers import arrays
from vfe.data.tabletop.world import heads as rung_heads
from vfe.models.classifier import Classifier, TokenPool
from vfe.models.mae import MAE, masked_mse
from vfe.models.vivit import Encoder
from vfe.nn.blocks import Execution
from vfe.nn.positions import sincos3d
from vfe.tokens import selection
from vfe.tokens.importance import token_difference

Seeds = tuple[int, ...]


def draw(size: Size, rung: str, seeds: Seeds, split: str, count: int):
  """({video, mean, scale}, {head: classes}), each [S, count, ...]; each seed has its own."""
  apart = size.drawn_frames // size.frames
  drawn = [arrays(size.world(rung, seed), split, count) for seed in seeds]
  drawn = [(np.ascontiguousarray(video[:, ::apart]), labels) for video, labels in drawn]
  stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  return stack([with_statistics(video) for video, _ in drawn]), stack([y for _, y in drawn])


# Pre-training


def pretrain(size: Size, seeds: Seeds, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Trains the encoders on unlabelled videos, leaves them in `folder`, returns a row a seed.

  Pixels of the tokens that the encoder did not see, of which the decoder is asked for those that
  change most and some at random; loss and baselines are of test videos at the tokens asked there.
  """
  began = time.monotonic()
  model = MAE(size.encoder, size.decoder, size.layout.channels, Execution(dtype=size.dtype))
  data, _ = draw(size, PRETRAINED_ON, seeds, "train", size.pretrain_videos)
  data = jax.device_put(with_importance(size, data, seeds))
  schedule = Schedule(size.pretrain_steps, size.pretrain_batch, size.pretrain_rate)
  train = make_trainer(functools.partial(_pixel_loss, size, model), schedule, len(seeds))
  params = _init(lambda rng: model.init(rng, *_dummies(size))["params"], seeds, "pretrain")
  params, loss = train("pre-training", params, data, seed_keys(seeds, "pretrain"))
  test, _ = draw(size, PRETRAINED_ON, seeds, "test", size.test_videos)
  test = with_importance(size, test, seeds)
  errors = _reconstruction(size, model, params, data, test, seeds)
  save(folder, seeds, params["encoder"])
  seconds = time.monotonic() - began
  return [
    {
      "condition": "pre-training",
      "seed": seed,
      "rung": PRETRAINED_ON,
      "n_train": size.pretrain_videos,
      "n_test": size.test_videos,
      "steps": size.pretrain_steps,
      "training_loss": float(loss[i]),
      **{name: float(value[i]) for name, value in errors.items()},
      "seconds": round(seconds / len(seeds), 1),
    }
    for i, seed in enumerate(seeds)
  ]


def choose_tokens(size: Size, importance: jax.Array, keys: jax.Array):
  """(visible [B, K], asked [B, M], weight [B, M]): a tube mask, and a budget for the decoder.

  What changes most is asked for, and some at random (LVMAE 3.2); what was visible weighs nothing.
  """
  layout, n = size.layout, size.layout.size
  visible = selection.tube(keys, layout, size.visible_sites)
  fresh = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1)
  top, random = selection.count(n, size.top), selection.count(n, size.random)
  asked = selection.top_and_random(fresh, importance, top, random)
  return visible, asked, ~selection.contains(visible, asked, n)


def all_tubelets(size: Size, rows) -> jax.Array:
  """Every tubelet of the clips, standardised, float32[B, N, P]."""
  everything = selection.everything(len(rows["mean"]), size.layout.size)
  return standard_tubelets(rows, size.layout, everything)


def with_importance(size: Size, data, seeds: Seeds):
  """The data and each token's distance to the latent frame before it, computed once."""

  def measure(_, rows):
    return token_difference(all_tubelets(size, rows), size.layout)

  program = jax.jit(over_seeds(measure, len(seeds)))
  nothing = jnp.zeros(len(seeds))
  return {**data, "importance": by_parts(program, nothing, data, size.part)}


def _pixel_loss(size: Size, model: MAE, params, rows, keys) -> jax.Array:
  visible, asked, weight = choose_tokens(size, rows["importance"], keys)
  seen, target = (standard_tubelets(rows, size.layout, chosen) for chosen in (visible, asked))
  total, count = masked_mse(model.apply({"params": params}, seen, visible, asked), target, weight)
  return total / count


def _reconstruction(size: Size, model: MAE, params, data, test, seeds: Seeds):
  """{loss, dataset_mean, static_scene: [S]} on test videos, all at the same tokens.

  The static scene is an oracle: each pixel's mean over the clip's own time, hidden places too.
  """
  (t, _, _), (dt, _, _) = size.layout.grid, size.layout.tubelet
  few = jax.tree.map(lambda leaf: leaf[:, : size.test_videos], data)
  tubelets = jax.jit(over_seeds(lambda _, rows: all_tubelets(size, rows).mean(0)[None], len(seeds)))
  mean = jnp.asarray(by_parts(tubelets, jnp.zeros(len(seeds)), few, size.part).mean(axis=1))

  def still(patches):
    pixels = patches.reshape(len(patches), t, size.layout.per_frame, dt, -1)
    return jnp.broadcast_to(pixels.mean((1, 3), keepdims=True), pixels.shape).reshape(patches.shape)

  def errors(params_and_mean, rows):
    params, mean = params_and_mean
    patches = all_tubelets(size, rows)
    keys = jax.vmap(jax.random.key)(rows["number"])
    visible, asked, weight = choose_tokens(size, rows["importance"], keys)
    pick = lambda tokens: selection.gather_tokens(tokens, asked)
    seen = selection.gather_tokens(patches, visible)
    guesses = {
      "loss": model.apply({"params": params}, seen, visible, asked),
      "dataset_mean": pick(jnp.broadcast_to(mean, patches.shape)),
      "static_scene": pick(still(patches)),
    }
    total = lambda guess: [part[None] for part in masked_mse(guess, pick(patches), weight)]
    return {name: total(guess) for name, guess in guesses.items()}

  number = np.broadcast_to(np.arange(size.test_videos), (len(seeds), size.test_videos))
  sums = by_parts(
    jax.jit(over_seeds(errors, len(seeds))), (params, mean), {**test, "number": number}, size.part
  )
  return {name: total.sum(axis=1) / count.sum(axis=1) for name, (total, count) in sums.items()}


def _init(init, seeds: Seeds, name: str):
  return jax.jit(over_seeds(init, len(seeds)))(seed_keys(seeds, name))


def _dummies(size: Size):
  """Arguments of the right ranks for `init`, which reads no values."""
  index = jnp.zeros((1, 2), jnp.int32)
  return jnp.zeros((1, 2, size.layout.channels)), index, index


def save(folder: pathlib.Path, seeds: Seeds, encoder) -> None:
  """Writes each seed's encoder as a file of its own."""
  folder.mkdir(parents=True, exist_ok=True)
  flat = flax.traverse_util.flatten_dict(jax.device_get(encoder), sep="/")
  for i, seed in enumerate(seeds):
    np.savez(folder / f"encoder-{seed}.npz", **{name: leaf[i] for name, leaf in flat.items()})


def load(folder: pathlib.Path, seeds: Seeds):
  """The encoders of the seeds, leaves [S, ...]."""
  files = [np.load(folder / f"encoder-{seed}.npz") for seed in seeds]
  flat = {name: jnp.stack([file[name] for file in files]) for name in files[0].files}
  return flax.traverse_util.unflatten_dict(flat, sep="/")


# The tasks of a rung


def evaluate(size: Size, rung: str, seeds: Seeds, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Every condition of a rung, a row for each of them and each seed."""
  task = _Task(size, rung, seeds)
  encoder = load(folder, seeds)
  rows = task.baselines()
  rows += task.tune("fine-tuned from scratch", None)
  rows += task.tune("fine-tuned from pre-training", encoder)
  rows += task.probe("probe of random features", task.random_encoder())
  rows += task.probe("probe of pre-trained features", encoder)
  return rows


class Probe(nn.Module):
  """An attentive probe: a learned token asks the frozen tokens, with a linear head a factor."""

  size: Size
  heads: dict[str, int]

  @nn.compact
  def __call__(self, tokens):
    pooled = TokenPool(self.size.heads, 2 * self.size.width, False)(tokens)
    return {name: nn.Dense(n, name=f"head_{name}")(pooled) for name, n in self.heads.items()}


class _Task:
  """A rung's videos on the device, and the programs that all its conditions share."""

  def __init__(self, size: Size, rung: str, seeds: Seeds):
    self.size, self.rung, self.seeds = size, rung, seeds
    self.heads = {head: len(rung_heads(rung)[head]) for head in FACTORS[rung]}
    self.train, labels = draw(size, rung, seeds, "train", size.train_videos)
    self.train_labels = {head: labels[head] for head in self.heads}
    self.test, labels = draw(size, rung, seeds, "test", size.test_videos)
    self.test_labels = {head: labels[head] for head in self.heads}
    self.run = Execution(dtype=size.dtype)
    self.classifier = Classifier(size.encoder, self.heads, "attentive", self.run)
    self.prober = Probe(size, self.heads)
    schedule = Schedule(size.tune_steps, size.tune_batch, size.tune_rate)
    self.tuner = make_trainer(self._tuning_loss, schedule, len(seeds))
    schedule = Schedule(size.probe_steps, size.probe_batch, size.probe_rate)
    self.probe_trainer = make_trainer(self._probe_loss, schedule, len(seeds))
    jit = lambda function: jax.jit(over_seeds(function, len(seeds)))
    self.classify, self.encode, self.ask = jit(self._classify), jit(self._encode), jit(self._ask)

  def baselines(self) -> list[dict[str, Any]]:
    """Chance, and the frame difference of every tubelet into a small network."""
    began = time.monotonic()
    scores = {"chance": [], "frame difference": []}
    for i, seed in enumerate(self.seeds):
      labels = {h: (self.train_labels[h][i], self.test_labels[h][i]) for h in self.heads}
      train, test = (
        baselines.difference_tokens(data["video"][i], self.size.tubelet)
        for data in (self.train, self.test)
      )
      scores["chance"].append({h: baselines.chance(*labels[h]) for h in self.heads})
      scores["frame difference"].append(
        {
          h: baselines.mlp_accuracy((train, labels[h][0]), (test, labels[h][1]), seed=seed)
          for h in self.heads
        }
      )
    return [row for name, by in scores.items() for row in self._rows(name, by, 0, began)]

  def tune(self, condition: str, encoder) -> list[dict[str, Any]]:
    """Trains encoder and head; `encoder` replaces the drawn weights where there is one."""
    began = time.monotonic()
    params = _init(
      lambda rng: self.classifier.init(rng, *_dummies(self.size)[:2])["params"], self.seeds, "tune"
    )
    if encoder is not None:
      params = {**params, "encoder": encoder}
    data = jax.device_put({**self.train, "labels": self.train_labels})
    params, loss = self.tuner(condition, params, data, seed_keys(self.seeds, "tune"))
    logits = by_parts(self.classify, params, self.test, self.size.part)
    return self._rows(condition, self._accuracy(logits), self.size.tune_steps, began, loss)

  def probe(self, condition: str, encoder) -> list[dict[str, Any]]:
    """Trains an attentive probe on the frozen encoder's tokens, which are computed once.

    A token's features are standardised, less the mean at its place in the training clips; then the
    positions, which that takes off, are put back.
    """
    began = time.monotonic()
    train, test = (
      by_parts(self.encode, encoder, data, self.size.part) for data in (self.train, self.test)
    )
    mean, scale = train.mean(axis=1, keepdims=True), train.std(axis=(1, 2), keepdims=True)
    layout = self.size.layout
    places = sincos3d(layout.places(jnp.arange(layout.size)), layout.grid, self.size.width)
    places = np.asarray(places)
    train, test = ((tokens - mean) / (scale + 1e-6) + places for tokens in (train, test))
    params = _init(
      lambda rng: self.prober.init(rng, jnp.zeros((1, 2, self.size.width)))["params"],
      self.seeds,
      "probe",
    )
    data = jax.device_put({"tokens": train, "labels": self.train_labels})
    params, loss = self.probe_trainer(condition, params, data, seed_keys(self.seeds, "probe"))
    logits = by_parts(self.ask, params, {"tokens": test}, self.size.part)
    return self._rows(condition, self._accuracy(logits), self.size.probe_steps, began, loss)

  def random_encoder(self):
    """The encoder that fine-tuning from scratch begins with."""
    return _init(
      lambda rng: self.classifier.init(rng, *_dummies(self.size)[:2])["params"]["encoder"],
      self.seeds,
      "tune",
    )

  def _tuning_loss(self, params, rows, keys):
    n = self.size.layout.size
    kept = selection.random(keys, n, selection.count(n, self.size.tune_keep))
    patches = standard_tubelets(rows, self.size.layout, kept)
    return _cross_entropy(self.classifier.apply({"params": params}, patches, kept), rows["labels"])

  def _probe_loss(self, params, rows, keys):
    return _cross_entropy(self.prober.apply({"params": params}, rows["tokens"]), rows["labels"])

  def _classify(self, params, rows):
    return self.classifier.apply({"params": params}, *self._all_tokens(rows))

  def _encode(self, params, rows):
    encoder = Encoder(self.size.encoder, self.run)
    return encoder.apply({"params": params}, *self._all_tokens(rows)).astype(jnp.float32)

  def _ask(self, params, rows):
    return self.prober.apply({"params": params}, rows["tokens"])

  def _all_tokens(self, rows):
    tubelets = all_tubelets(self.size, rows)
    return tubelets, selection.everything(len(tubelets), self.size.layout.size)

  def _accuracy(self, logits) -> list[dict[str, float]]:
    right = {h: logits[h].argmax(axis=-1) == self.test_labels[h] for h in self.heads}
    return [{h: float(right[h][i].mean()) for h in self.heads} for i in range(len(self.seeds))]

  def _rows(self, condition, factors, steps, began, loss=None) -> list[dict[str, Any]]:
    seconds = (time.monotonic() - began) / len(self.seeds)
    rows = []
    for i, seed in enumerate(self.seeds):
      row = {
        "condition": condition,
        "seed": seed,
        "rung": self.rung,
        "n_train": self.size.train_videos,
        "n_test": self.size.test_videos,
        "steps": steps,
        "accuracy": float(np.mean(list(factors[i].values()))),
        "factors": factors[i],
        "seconds": round(seconds, 1),
      }
      rows.append(row if loss is None else {**row, "training_loss": float(loss[i])})
    return rows


def _cross_entropy(logits, labels):
  """The sum over factors of the mean over clips."""
  losses = [
    optax.softmax_cross_entropy_with_integer_labels(logits[head], labels[head]).mean()
    for head in logits
  ]
  return sum(losses)
