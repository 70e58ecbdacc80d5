"""The loop that every training stage runs in: order here, mechanisms elsewhere."""

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vfe.errors import UserError
from vfe.learn import sharding
from vfe.learn.optimizer import count_parameters
from vfe.learn.state import Guard, Params, State
from vfe.stages.stage import Stage
from vfe.train import cost
from vfe.train.checkpoints import Checkpoints
from vfe.train.clock import Clock
from vfe.train.evaluation import Evaluation
from vfe.train.feed import Feed
from vfe.train.profile import Profile
from vfe.train.program import program
from vfe.train.writers import Writer, make_writer, parameter_table

IN_FLIGHT = 2  # steps that may wait on the device before the host waits for it


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a finished stage leaves: the parameters to export, and its last evaluation."""

  params: Params
  metrics: dict[str, float]


def train(stage: Stage, *, meta: dict[str, Any], clock: Clock, yes: bool) -> Trained:
  """Trains a stage to its last step, from its newest checkpoint if there is one.

  Args:
    stage: what to train.
    meta: plain JSON that is kept with every checkpoint.
    clock: accounts for the time and tells a person what happens.
    yes: whether to start what would take a machine without an accelerator very long.
  """
  config, mesh, folder = stage.setting.config, stage.setting.mesh, stage.setting.folder
  steps, say = stage.steps, lambda text: clock.say(f"{stage.name}: {text}")
  streams = stage.inputs()
  rows = sum(stream.batch for stream in streams.values())

  made = program(stage)
  step_function = made.step
  frozen = jax.device_put(stage.frozen, sharding.shardings(stage.frozen, mesh))
  with contextlib.ExitStack() as opened:
    checkpoints = opened.enter_context(Checkpoints(folder, keep=config.checkpoint.keep, meta=meta))
    state = checkpoints.restore(made.state, made.layout)
    if state is not None:
      start = int(state.step)
      say(f"resumed at step {start} of {steps}")
    else:
      cost.confirm(stage, made, steps, yes=yes)
      say("initialising")
      with clock("initialise"):
        state = jax.jit(stage.init_state, out_shardings=made.layout)(made.rng)
        state, start = _warmed(state, stage.warm(), made.layout), 0
    writer = opened.enter_context(make_writer(folder, say, use_tensorboard=config.log.tensorboard))
    _describe(stage, made.state, say, writer)
    evaluations = [Evaluation(evaluator, mesh) for evaluator in stage.evaluators()]

    if start < steps:
      feed = Feed(
        streams,
        mesh,
        seed=config.seed,
        start=start,
        max_fault_share=stage.config.data.max_fault_share,
        say=say,
      )
      opened.callback(feed.close)
      say("waiting for the first batch")
      with clock("data"):
        batch = next(feed)
      say("compiling the training step")
      with clock("compile"):
        step_function = step_function.lower(state, frozen, batch).compile()
      writer.memory(step_function)
    profile = Profile(config.profile, folder, start)
    waiting: collections.deque[Any] = collections.deque()
    unread: list[Any] = []
    measured: dict[str, float] = {}
    clock.start(stage.name, start, steps, rows=rows, tokens=stage.tokens())

    for done in range(start + 1, steps + 1):
      profile.before(done - 1)
      with clock("step"):
        # Metrics are of the state before this update; the old state's buffers are given up.
        state, metrics = step_function(state, frozen, batch)
        unread.append(metrics)
        waiting.append(metrics)
        if len(waiting) > IN_FLIGHT:
          jax.block_until_ready(waiting.popleft())
      profile.after(done, metrics)
      if done < steps:
        with clock("data"):
          batch = next(feed)

      if done == steps or done % config.log.every == 0:
        found = means(unread) | learning_rates(stage, done - 1) | feed.metrics()
        guard = jax.device_get(state.guard)
        if guard.step >= done - len(unread):
          report_skipped(stage.name, guard, done, say, config.guard.steps_in_a_row)
        writer.scalars(done, found | clock.rates(done))
        clock.progress(done, found)
        unread.clear()
      if done < steps and _due(done, config.evaluate.every):
        with clock("eval"):
          measured = _evaluate(evaluations, stage.evaluated(state), frozen, None)
        writer.scalars(done, measured)
      if done == steps or _due(done, config.checkpoint.every):
        with clock("checkpoint"):
          checkpoints.save(done, state)
          writer.flush()

    params = stage.evaluated(state)
    clock.finish()
    say("evaluating")
    with clock("eval"):
      measured = _evaluate(evaluations, params, frozen, folder)
    writer.scalars(steps, measured)
  return Trained(params, measured)


def _warmed(state: State, warm: dict[str, Any], layout: State) -> State:
  """Puts parameters from a stage's inputs in place of fresh ones, in the average too."""
  groups, ema = dict(state.groups), dict(state.ema)
  for name, params in warm.items():
    where = layout.groups[name].params
    put = {part: jax.device_put(given, where[part]) for part, given in params.items()}
    groups[name] = groups[name].replace(params={**groups[name].params, **put})
    if name in ema:
      ema[name] = jax.tree.map(jnp.copy, groups[name].params)
  return state.replace(groups=groups, ema=ema)


def _describe(stage: Stage, shapes: State, say: Callable, writer: Writer) -> None:
  for name, group in shapes.groups.items():
    trained, total = count_parameters(group.params, stage.updates[name].trainable)
    say(f"{name}: {trained:,} of {total:,} parameters are trained, {stage.steps} steps")
    writer.text(0, {f"parameters_{name}": parameter_table(group.params)})


def _evaluate(
  evaluations: list[Evaluation], params: Any, frozen: Any, folder: pathlib.Path | None
) -> dict[str, float]:
  measured: dict[str, float] = {}
  for evaluation in evaluations:
    measured |= evaluation.run(params, frozen, folder)
  return measured


def means(unread: list[dict[str, tuple[Any, Any]]]) -> dict[str, float]:
  """sum / weight of every metric over some steps, where it has weight. Reads the device."""
  totals: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(2))
  for metrics in jax.device_get(unread):
    for name, pair in metrics.items():
      totals[name] += np.asarray(pair, np.float64)
  return {name: float(total / weight) for name, (total, weight) in totals.items() if weight}


def learning_rates(stage: Stage, step: int) -> dict[str, float]:
  """Of every group, at an update counted from 0."""
  return {
    f"learning_rate/{name}": float(update.schedule(step)) for name, update in stage.updates.items()
  }


def report_skipped(name: str, guard: Guard, done: int, say: Callable, limit: int) -> None:
  """Tells of updates that were skipped because something was not finite.

  Raises:
    UserError: `limit` steps in a row, up to the last of `done`, were skipped.
  """
  what = f"step {guard.step}: loss {guard.loss:g}, gradient norm {guard.norm:g}"
  if guard.step == done - 1 and guard.in_a_row >= limit:
    raise UserError(
      f"{name}: {guard.in_a_row} updates in a row were not finite, the last at {what}; lower "
      f"config.{name}.optimizer.base_lr, set its clip_norm, or look at the data."
    )
  say(f"updates skipped so far, because not finite: {guard.skipped}; the last at {what}")


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
