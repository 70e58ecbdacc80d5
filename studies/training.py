"""Training of several seeds in one program, on videos that lie whole in the device's memory.

Everything here takes and returns trees whose leaves lead with a dimension for the seeds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vfe.learn.trained import ALL, Trained
from vfe.nn.random import key, row_keys
from vfe.tokens.layout import Layout
from vfe.tokens.tubelets import gather_tubelets


@dataclasses.dataclass(frozen=True)
class Schedule:
  """AdamW with a linear warm-up over a tenth of the steps and a cosine to 0."""

  steps: int
  batch: int
  rate: float
  decay: float = 0.05
  clip: float = 1.0

  def optimizer(self) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0.0, self.rate, self.steps // 10, self.steps)
    decayed = lambda params: jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key == "kernel", params
    )
    return optax.chain(
      optax.clip_by_global_norm(self.clip),
      optax.adamw(rate, b2=0.95, weight_decay=self.decay, mask=decayed),
    )


def over_seeds(function: Callable, seeds: int) -> Callable:
  """vmap over the leading dimension of every argument; for one seed, without a batched program."""
  if seeds > 1:
    return jax.vmap(function)

  def one(*arguments):
    out = function(*jax.tree.map(lambda leaf: leaf[0], arguments))
    return jax.tree.map(lambda leaf: leaf[None], out)

  return one


def seed_keys(seeds: tuple[int, ...], name: str) -> jax.Array:
  """One key a seed for a named use."""
  return jnp.stack([key(jax.random.key(seed), name) for seed in seeds])


def make_trainer(
  loss: Callable, schedule: Schedule, seeds: int, trained: Trained = ALL
) -> Callable:
  """A function `train(name, params, data, keys) -> (params, losses [S])`, compiled once for all.

  `loss(params, rows, keys) -> scalar`, where rows is the data at `batch` random places and keys are
  one a row. data is a tree of arrays [S, n, ...]. The losses are means over the last tenth. Of the
  parameters only the `trained` part is changed.
  """
  optimizer = schedule.optimizer()

  def update(params, state, data, rng):
    count = len(jax.tree.leaves(data)[0])
    rows = jax.random.randint(key(rng, "rows"), (schedule.batch,), 0, count)
    drawn = row_keys(rng, "draws", jnp.arange(schedule.batch))
    batch = jax.tree.map(lambda leaf: leaf[rows], data)
    part = trained.of(params)
    of_part = lambda part: loss(trained.merged(part, params), batch, drawn)
    value, grads = jax.value_and_grad(of_part)(part)
    updates, state = optimizer.update(grads, state, part)
    return trained.merged(optax.apply_updates(part, updates), params), state, value

  step = jax.jit(over_seeds(update, seeds), donate_argnums=(0, 1))
  begin = jax.jit(over_seeds(lambda params: optimizer.init(trained.of(params)), seeds))
  fold = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))

  def train(name, params, data, keys):
    params = jax.tree.map(jnp.copy, params)  # the step donates them, the caller may need them
    state, losses, tenth = begin(params), [], -(-schedule.steps // 10)
    for number in range(1, schedule.steps + 1):
      params, state, value = step(params, state, data, fold(keys, number))
      losses = [*losses, value][-tenth:]
      if number % tenth == 0:
        mean = np.mean(jax.device_get(losses), axis=0)
        print(f"{name}: step {number} of {schedule.steps}, loss {np.round(mean, 3)}", flush=True)
    return params, np.mean(jax.device_get(losses), axis=0)

  return train


def by_parts(function: Callable, params: Any, data: Any, part: int) -> Any:
  """function(params, rows) on `part` rows [S, part, ...] at a time, joined again on the host."""
  count = jax.tree.leaves(data)[0].shape[1]
  outs = []
  for start in range(0, count, part):
    rows = jax.tree.map(lambda leaf, start=start: leaf[:, start : start + part], data)
    outs.append(jax.device_get(function(params, rows)))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *outs)


def with_statistics(video: np.ndarray) -> dict[str, np.ndarray]:
  """Videos uint8[n, T, H, W, 3] with each one's mean colour [n, 3] and one deviation [n].

  A table's colour is a constant that says nothing and swamps what moves on it: it is taken off.
  """
  mean = np.stack([clip.mean(axis=(0, 1, 2), dtype=np.float64) for clip in video])
  scale = np.stack([clip.std(axis=(0, 1, 2), dtype=np.float32).mean() for clip in video])
  return {"video": video, "mean": np.float32(mean), "scale": np.float32(scale)}


def standard_tubelets(data: dict[str, jax.Array], layout: Layout, selection: jax.Array):
  """The selected tubelets, float32[B, K, P], less the clip's mean colour, over its deviation."""
  patches = gather_tubelets(data["video"], layout, selection).astype(jnp.float32)
  mean = jnp.tile(data["mean"], layout.channels // 3)
  return (patches - mean[:, None]) / data["scale"][:, None, None]
