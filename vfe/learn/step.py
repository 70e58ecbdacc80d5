"""The two halves of every training step: `gradients` and `apply`.

A stage with one group of parameters is these two in a row; a stage with its own step (a GAN)
composes the same two and loses neither accumulation, clipping, guard nor average.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vfe.learn.state import Group, Guard, Params, State
from vfe.learn.trained import ALL, Trained

# name -> (sum, weight): means are taken after accumulation, over the whole batch.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@flax.struct.dataclass
class Gradients:
  """Gradients of sum / weight over the batch, of what is trained; `loss` is that quotient,
  float32[]."""

  grads: Params
  loss: Any
  metrics: Metrics
  extra: Any


@dataclasses.dataclass(frozen=True)
class Update:
  """How a group is updated: `optimizer` is of the `trained` part of its parameters, `schedule`
  the learning rate by step, for the log; `ema` is the decay of the average, 0 for none."""

  optimizer: optax.GradientTransformation
  schedule: Callable[[int], jax.Array]
  trained: Trained = ALL
  clip_norm: float = 0.0
  ema: float = 0.0

  def init(self, params: Params) -> Any:
    """The optimiser's state before the first step."""
    return self.optimizer.init(self.trained.of(params))


def gradients(
  loss: Callable,
  params: Params,
  extra: Any,
  batch: Any,
  *,
  accumulate: int = 1,
  trained: Trained = ALL,
) -> Gradients:
  """The gradients of `sum(losses) / sum(weights)` over the batch, in `accumulate` parts.

  `loss(params, extra, batch) -> (sum, weight, metrics, extra)`, where the weight does not depend
  on params. The division comes after the parts are added, so `accumulate` does not change the
  result of a loss whose weights differ between rows. Nothing is computed backward to parameters
  that are not `trained`.
  """

  def total(part, extra, batch):
    loss_sum, weight, metrics, extra = loss(trained.merged(part, params), extra, batch)
    return loss_sum, (weight, metrics, extra)

  grad = jax.value_and_grad(total, has_aux=True)
  part = trained.of(params)

  def one(extra, batch):
    (loss_sum, (weight, metrics, extra)), grads = grad(part, extra, batch)
    return extra, (grads, loss_sum, weight, metrics)

  if accumulate == 1:
    extra, summed = one(extra, batch)
  else:
    extra, summed = _accumulated(one, extra, _parts(batch, accumulate))
  return _divided(*summed, extra)


def cached_gradients(
  embed: Callable,
  loss: Callable,
  params: Params,
  extra: Any,
  batch: Any,
  *,
  parts: int,
  trained: Trained = ALL,
) -> Gradients:
  """The gradients of a loss that needs the embeddings of all rows at once, a contrastive one.

  Accumulation would give each row the negatives of its own part only. Here the rows are embedded
  twice, `parts` of the batch one after another: without gradients, for the loss and its gradient
  with respect to every embedding; then again, to carry those back (Gao et al. 2021, arXiv
  2101.06983). The result is the whole batch's, with the activations of one part.

  Args:
    embed: (params, part of the batch) -> a tree of arrays with a row for each of its rows; the same
      whenever it is called, so what is random in it comes from keys of its rows.
    loss: (params, embeddings of all rows in their order, extra, batch) -> (sum, weight, metrics,
      extra); of params it may use others than `embed`, a temperature say, or the same.
    parts: divides the rows.
    trained: as `gradients`'.
  """
  cut = _parts(batch, parts)
  whole = lambda part: trained.merged(part, params)
  embeddings = jax.lax.map(lambda part: embed(params, part), cut)

  def total(part, embeddings):
    loss_sum, weight, metrics, new = loss(whole(part), embeddings, extra, batch)
    return loss_sum, (weight, metrics, new)

  both = jax.value_and_grad(total, (0, 1), has_aux=True)
  part = trained.of(params)
  (loss_sum, (weight, metrics, extra)), (direct, wanted) = both(part, _joined(embeddings))

  def carry_back(grads, of):
    rows, wanted = of
    _, back = jax.vjp(lambda part: embed(whole(part), rows), part)
    return jax.tree.map(jnp.add, grads, back(wanted)[0]), None

  grads, _ = jax.lax.scan(carry_back, direct, (cut, _parts(wanted, parts)))
  return _divided(grads, loss_sum, weight, metrics, extra)


def _divided(grads, loss_sum, weight, metrics, extra) -> Gradients:
  weight = jnp.maximum(weight, 1e-12)
  grads = jax.tree.map(lambda g: g / weight, grads)
  return Gradients(grads, loss_sum / weight, metrics, extra)


def _accumulated(one: Callable, extra: Any, parts: Any) -> tuple[Any, Any]:
  first = jax.tree.map(lambda x: x[0], parts)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: one(extra, first)[1])
  )

  def body(carry, part):
    extra, summed = carry
    extra, new = one(extra, part)
    return (extra, jax.tree.map(jnp.add, summed, new)), None

  (extra, summed), _ = jax.lax.scan(body, (extra, zeros), parts)
  return extra, summed


def _parts(batch: Any, parts: int) -> Any:
  # Rows lie over the devices in contiguous runs; taking every parts-th row keeps each part spread
  # over all devices without moving anything.
  return jax.tree.map(
    lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
  )


def _joined(parts: Any) -> Any:
  """The inverse of `_parts`."""
  return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)


def apply(
  state: State, name: str, grads: Params, loss: Float[Array, ""], update: Update
) -> tuple[State, Metrics]:
  """Clips and applies the gradients to one group, unless something is not finite.

  A step whose loss or gradient norm is not finite leaves parameters, optimiser state and average
  as they were and is written down in `state.guard`; nothing is read back to the host for it.
  """
  group = state.groups[name]
  norm = optax.global_norm(grads)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  if update.clip_norm:
    scale = jnp.minimum(1.0, update.clip_norm / jnp.maximum(norm, 1e-12))
    grads = jax.tree.map(lambda g: g * scale, grads)
  part = update.trained.of(group.params)
  updates, opt_state = update.optimizer.update(grads, group.opt_state, part)
  params = update.trained.merged(optax.apply_updates(part, updates), group.params)
  keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  group = Group(keep(params, group.params), keep(opt_state, group.opt_state))

  ema = dict(state.ema)
  if update.ema:
    ema[name] = keep(
      optax.incremental_update(group.params, ema[name], 1 - update.ema), ema[name]
    )
  one = jnp.float32(1)
  metrics = {
    f"norm/{name}_gradient": (jnp.where(finite, norm, 0), jnp.where(finite, one, 0)),
    f"norm/{name}_parameters": (optax.global_norm(group.params), one),
  }
  state = state.replace(
    groups={**state.groups, name: group},
    ema=ema,
    guard=_noted(state.guard, state.step, finite, loss, norm),
  )
  return state, metrics


def _noted(guard: Guard, step: jax.Array, finite: jax.Array, loss: jax.Array, norm: jax.Array):
  # Two groups may fail in the same step, which counts once; a finite group resets nothing, the
  # next finite step does (the run of bad steps is over when `guard.step` stays behind).
  in_a_row = jnp.select(
    [guard.step == step, guard.step == step - 1], [guard.in_a_row, guard.in_a_row + 1], 1
  )
  note = lambda new, old: jnp.where(finite, old, new.astype(old.dtype))
  return Guard(
    skipped=note(guard.skipped + (guard.step != step), guard.skipped),
    in_a_row=note(in_a_row, guard.in_a_row),
    step=note(step, guard.step),
    loss=note(loss, guard.loss),
    norm=note(norm, guard.norm),
  )
