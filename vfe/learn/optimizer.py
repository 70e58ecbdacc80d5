"""Optimisers from a config that holds rules: rates per 256 clips, warm-up as a share of the run.

Clipping is not here: `vfe.learn.step.apply` does it, where the norm is at hand to be logged.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from vfe.config import choose, nearest
from vfe.errors import UserError
from vfe.learn.paths import is_stacked, map_named, named_leaves

Section = Mapping[str, Any] | ml_collections.ConfigDict

# What each key means; a config may leave any of them out. VideoMAE's pre-training values.
DEFAULTS = dict(
  kind="adamw",
  base_lr=1.5e-4,  # for `batch_reference` clips
  batch_reference=256,
  b1=0.9,
  b2=0.95,
  eps=1e-8,
  weight_decay=0.05,  # decoupled, times the learning rate
  schedule="cosine",
  warmup=0.0,  # share of the run, below 1
  end_lr=0.0,  # for `batch_reference` clips, as base_lr
  layer_decay=1.0,  # 1: every layer learns at the same rate
  trainable=".*",  # regex over parameter names (vfe.learn.trained); the others stay as they are
  clip_norm=0.0,  # 0: off; read by vfe.learn.step
)

# Matrices decay; biases, scales, positions and learned tokens do not.
_DECAYED = re.compile(r"(^|/)(kernel|embedding)$")
_POSITIONS = re.compile(r"position|pos_emb")

# Share of the way from the peak to the end that is still to go, over progress in [0, 1].
SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
  "linear": lambda progress: 1 - progress,
  "constant": lambda progress: jnp.ones_like(progress),
}

KINDS = {"adamw": True, "adam": False}  # whether the weights decay


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rate of a run, resolved. `dataclasses.asdict` of it belongs in the log.

  lr and end_lr are for the batch at hand; steps counts updates, warm-up included.
  """

  kind: str
  lr: float
  end_lr: float
  warmup_steps: int
  steps: int
  batch: int

  def __call__(self, step: Any) -> jax.Array:
    """The rate of update `step` (from 0), float32[]: step 0 of a warm-up is not wasted at 0."""
    step = jnp.asarray(step, jnp.float32)
    warm = (step + 1) / max(self.warmup_steps, 1)
    after = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
    share = SCHEDULES[self.kind](jnp.clip(after, 0, 1))
    decayed = self.end_lr + (self.lr - self.end_lr) * share
    return jnp.where(step < self.warmup_steps, self.lr * warm, decayed)


def complete(config: Section) -> dict[str, Any]:
  """The config's optimiser section with the defaults filled in and every value checked.

  Raises:
    UserError: an unknown key or kind, or a value out of its range, by its name.
  """
  given = {key: value for key, value in config.items() if value is not None}
  for key in given:
    if key not in DEFAULTS:
      raise UserError(f"optimizer.{key} is not a key of an optimiser ({nearest(key, DEFAULTS)}).")
  values = {**DEFAULTS, **given}
  choose(KINDS, values["kind"], "optimizer.kind")
  choose(SCHEDULES, values["schedule"], "optimizer.schedule")
  for key, lowest, below in (
    ("base_lr", 0, math.inf), ("end_lr", 0, math.inf), ("weight_decay", 0, math.inf),
    ("clip_norm", 0, math.inf), ("warmup", 0, 1), ("b1", 0, 1), ("b2", 0, 1),
    ("batch_reference", 1, math.inf), ("layer_decay", 1e-6, 1 + 1e-9),
  ):  # fmt: skip
    if not lowest <= values[key] < below:
      limit = f"at least {lowest:g}" if below == math.inf else f"in [{lowest:g}, {below:g})"
      raise UserError(f"optimizer.{key}={values[key]} must be {limit}.")
  if values["weight_decay"] and not KINDS[values["kind"]]:
    raise UserError(
      f"optimizer.weight_decay={values['weight_decay']} has no effect with "
      f"optimizer.kind={values['kind']}; set it to 0 or take kind=adamw."
    )
  return values


def resolve(config: Section, *, steps: int, batch: int) -> Schedule:
  """The rates and steps that the rules give for this many updates of this many clips each."""
  values = complete(config)
  scale = batch / values["batch_reference"]
  return Schedule(
    kind=values["schedule"],
    lr=values["base_lr"] * scale,
    end_lr=values["end_lr"] * scale,
    warmup_steps=round(values["warmup"] * steps),
    steps=steps,
    batch=batch,
  )


def make_optimizer(
  config: Section, params: Any, *, steps: int, batch: int
) -> tuple[optax.GradientTransformation, Schedule]:
  """The optimiser of one group of parameters, and its learning rate by update.

  Args:
    config: the `optimizer` section; see DEFAULTS.
    params: all of the group's parameters or their shapes, with stacked layers in the canonical
      layout (one `[L, ...]` leaf a weight, under the name `blocks`). The optimiser is for the
      trained part of them (`vfe.learn.trained`).
    steps: updates in the run.
    batch: clips in an update, over all processes and accumulated parts.

  Raises:
    UserError: see `complete`.
  """
  values = complete(config)
  schedule = resolve(config, steps=steps, batch=batch)
  parts = [optax.scale_by_adam(b1=values["b1"], b2=values["b2"], eps=values["eps"])]
  if values["weight_decay"]:
    parts.append(optax.add_decayed_weights(values["weight_decay"], mask=decayed))
  if values["layer_decay"] != 1:
    parts.append(_scale_by_layer(values["layer_decay"], _depth(params)))
  parts.append(optax.scale_by_learning_rate(schedule))
  return optax.chain(*parts), schedule


def decayed(params: Any) -> Any:
  """Which leaves weight decay applies to, as a tree of bool.

  By name, not by rank: a stacked bias is a matrix too.
  """
  return map_named(
    lambda name, _: bool(_DECAYED.search(name)) and not _POSITIONS.search(name), params
  )


def layer_scales(name: str, layers: int, decay: float) -> np.ndarray:
  """The factor on the updates of one leaf of a classifier: float32[L], or float32[] outside.

  `decay ** (L + 1 - i)` where the encoder's embedding is layer 0, its blocks are layers 1 to L,
  and all the rest, the encoder's last norm included, is layer L + 1 (BEiT, VideoMAE).
  """
  if "encoder" not in name.split("/"):
    index = layers + 1
  elif is_stacked(name):
    index = np.arange(1, layers + 1)
  elif "embed" in name.split("encoder/", 1)[1] or _POSITIONS.search(name):
    index = 0
  else:
    index = layers + 1
  return np.asarray(decay ** (layers + 1.0 - index), np.float32)


def _depth(params: Any) -> int:
  """L of the encoder's stacked leaves."""
  depths = {
    leaf.shape[0]
    for name, leaf in named_leaves(params).items()
    if "encoder" in name.split("/") and is_stacked(name)
  }
  if len(depths) != 1:
    raise ValueError(f"layer_decay needs one encoder of stacked blocks; its depths are {depths}.")
  return depths.pop()


def _scale_by_layer(decay: float, layers: int) -> optax.GradientTransformation:
  def scale(name, update):
    factor = layer_scales(name, layers, decay)
    factor = factor[layers - len(update) :] if factor.ndim else factor  # the last ones are trained
    return update * factor.reshape(factor.shape + (1,) * (update.ndim - factor.ndim))

  return optax.stateless(lambda updates, _: map_named(scale, updates))
