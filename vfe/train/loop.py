"""The loop that every training stage runs in: order here, mechanisms elsewhere."""

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vfe.evaluate.evaluation import Evaluation
from vfe.learn import hosts, sharding
from vfe.learn.state import Params, State
from vfe.stages.stage import Stage
from vfe.train import cost
from vfe.train.budget import Budget
from vfe.train.checkpoints import Checkpoints
from vfe.train.clock import Clock
from vfe.train.feed import Feed
from vfe.train.log import Log
from vfe.train.profile import Profile
from vfe.train.program import Program, program
from vfe.train.stop import EXIT_STOPPED, Stop
from vfe.train.writers import Writer, make_writer, parameter_table

IN_FLIGHT = 2  # steps that may wait on the device before the host waits for it


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a finished stage leaves: the parameters to export, and its last evaluation."""

  params: Params
  metrics: dict[str, float]


def train(stage: Stage, *, meta: dict[str, Any], clock: Clock, yes: bool) -> Trained:
  """Trains a stage to its last step, from its newest checkpoint if there is one.

  Every process of a run calls it. Told to stop (SIGTERM), it saves after the step that it is at
  and leaves with SystemExit(EXIT_STOPPED).

  Args:
    stage: what to train.
    meta: plain JSON that is kept with every checkpoint.
    clock: accounts for the time and tells a person what happens.
    yes: whether to start what would take a machine without an accelerator very long.
  """
  config, folder, steps = stage.setting.config, stage.setting.folder, stage.steps
  say = lambda text: clock.say(f"{stage.name}: {text}")
  made = program(stage)
  with contextlib.ExitStack() as opened:
    checkpoints = opened.enter_context(Checkpoints(folder, keep=config.checkpoint.keep, meta=meta))
    state = _restored_or_new(stage, made, checkpoints, clock, say, yes)
    frozen = hosts.put(stage.frozen, sharding.shardings(stage.frozen, stage.setting.mesh))
    start = int(state.step)
    writer = opened.enter_context(make_writer(folder, say, use_tensorboard=config.log.tensorboard))
    _describe(stage, made.state, say, writer)
    evaluations = [Evaluation(evaluator, stage.setting.mesh) for evaluator in stage.evaluators()]

    if start < steps:
      feed = opened.enter_context(_feed(stage, start, say))
      say("waiting for the first batch")
      with clock("data"):
        batch = next(feed)
        budget = Budget(feed, say)
      say("compiling the training step")
      with clock("compile"):
        step_function = hosts.compiled(made.step, state, frozen, batch)
      writer.memory(step_function)
    profile = Profile(config.profile, folder, start)
    waiting: collections.deque[Any] = collections.deque()
    log = Log(stage, writer, clock, say)
    clock.start(stage.name, start, steps, rows=_rows(stage), tokens=stage.tokens())
    with Stop() as stop:
      for done in range(start + 1, steps + 1):
        profile.before(done - 1)
        budget.before()
        with clock("step"):
          # Metrics are of the state before this update; the old state's buffers are given up.
          state, metrics = step_function(state, frozen, batch)
          waiting.append(metrics)
          if len(waiting) > IN_FLIGHT:
            jax.block_until_ready(waiting.popleft())
          budget.after(metrics)
        profile.after(done, metrics)
        log.add(metrics)
        last = stop.after(done) or done == steps
        if not last:
          with clock("data"):
            batch = next(feed)

        if last or _due(done, config.log.every):
          log.line(done, state.guard, feed.metrics)
        if not last and _due(done, config.evaluate.every):
          with clock("eval"):
            writer.scalars(done, _evaluate(evaluations, stage.evaluated(state), frozen, None))
        if last or _due(done, config.checkpoint.every):
          with clock("checkpoint"):
            checkpoints.save(done, state)
            writer.flush()
        if last and done < steps:
          checkpoints.wait()
          say(f"{stop.signal}: saved at step {done} of {steps}; the same command goes on from it")
          raise SystemExit(EXIT_STOPPED)

    params = stage.evaluated(state)
    clock.finish()
    say("evaluating")
    with clock("eval"):
      measured = _evaluate(evaluations, params, frozen, folder)
    writer.scalars(steps, measured)
  return Trained(params, measured)


def _restored_or_new(
  stage: Stage, made: Program, checkpoints: Checkpoints, clock: Clock, say: Callable, yes: bool
) -> State:
  """The state of the newest checkpoint; else a fresh one with what the stage's inputs give."""
  state = checkpoints.restore(made.state, made.layout)
  if state is not None:
    say(f"resumed at step {int(state.step)} of {stage.steps}")
    return state
  cost.confirm(stage, made, stage.steps, yes=yes)
  say("initialising")
  with clock("initialise"):
    init = jax.jit(stage.init_state, out_shardings=made.layout)
    state = hosts.compiled(init, made.rng)(made.rng)
    return _warmed(state, stage.warm(), made.layout)


def _warmed(state: State, warm: dict[str, Any], layout: State) -> State:
  """Puts parameters from a stage's inputs in place of fresh ones, in the average too."""
  groups, ema = dict(state.groups), dict(state.ema)
  for name, params in warm.items():
    where = layout.groups[name].params
    groups[name] = groups[name].replace(params=_replaced(groups[name].params, params, where))
    if name in ema:
      ema[name] = jax.tree.map(jnp.copy, groups[name].params)
  return state.replace(groups=groups, ema=ema)


def _replaced(fresh: Any, given: Any, where: Any) -> Any:
  """The tree with the given leaves in place of its own, each where it is to lie."""
  if not isinstance(given, dict):
    return hosts.put(given, where)
  return fresh | {name: _replaced(fresh[name], of, where[name]) for name, of in given.items()}


def _feed(stage: Stage, start: int, say: Callable) -> contextlib.closing:
  config = stage.setting.config
  share = stage.config.data.max_fault_share
  speak = hosts.speaking(say)  # an unreadable video is named by the process that met it
  return contextlib.closing(
    Feed(
      stage.inputs(), stage.setting.mesh,
      seed=config.seed, start=start, max_fault_share=share, say=speak,
    )
  )  # fmt: skip


def _rows(stage: Stage) -> int:
  return sum(stream.batch for stream in stage.inputs().values())


def _describe(stage: Stage, shapes: State, say: Callable, writer: Writer) -> None:
  for name, group in shapes.groups.items():
    trained, total = stage.updates[name].trained.count(group.params)
    say(f"{name}: {trained:,} of {total:,} parameters are trained, {stage.steps} steps")
    writer.text(0, {f"parameters_{name}": parameter_table(group.params)})


def _evaluate(
  evaluations: list[Evaluation], params: Any, frozen: Any, folder: pathlib.Path | None
) -> dict[str, float]:
  measured: dict[str, float] = {}
  for evaluation in evaluations:
    measured |= evaluation.run(params, frozen, folder)
  return measured


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
