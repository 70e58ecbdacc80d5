"""What every stage shares: its setting, its data, and how a training stage takes a step.

A stage says what is done; the loop (`vfe.train.loop`) says in which order, and does not know
which stage it runs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from vfe import config as configs
from vfe.data.record import Source
from vfe.data.sources import open_source
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.evaluate.evaluator import Evaluator
from vfe.learn import optimizer as optimizers
from vfe.learn import sharding
from vfe.learn import state as states
from vfe.learn.exports import Export
from vfe.learn.state import Params, State
from vfe.learn.step import Gradients, Metrics, Update, apply, gradients
from vfe.learn.trained import Trained

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
  """Where a stage runs: its name, the whole config, its folder, its inputs by role, the mesh.

  open_source(data config, split) gives the videos of a split; a planned stage has a stand-in.
  """

  name: str
  config: ml_collections.ConfigDict
  folder: pathlib.Path
  inputs: dict[str, Any]
  mesh: jax.sharding.Mesh
  open_source: Callable[[ml_collections.ConfigDict, str], Source] = open_source

  @property
  def platform(self) -> str:
    """`cpu`, `gpu` or `tpu`: of the mesh, whose devices a planner need not have."""
    return self.mesh.devices.flat[0].platform

  def export(self, role: str, *kinds: str) -> Export | None:
    """The input of that role, None where the config names none.

    Raises:
      UserError: the input is an export of another kind than the stage can use.
    """
    export = self.inputs.get(role)
    if export is not None and export.kind not in kinds:
      raise UserError(
        f"config.{self.name}.inputs.{role}: {export.path} holds a {export.kind}, "
        f"not a {' or a '.join(kinds)}."
      )
    return export


class Stage:
  """A stage of a recipe. Kinds that do not train override `run` instead of the rest."""

  trains = True
  roles: tuple[str, ...] = ()  # the inputs that a kind can use
  needed: tuple[str, ...] = ()  # those of them that it cannot do without

  def __init__(self, setting: Setting):
    self.setting = setting
    self.name = setting.name
    self.config = configs.stage_config(setting.config, setting.name)
    self.dtype = compute_dtype(setting.config.precision, setting.platform)
    for role in setting.inputs:
      if role not in self.roles:
        raise UserError(
          f"config.{self.name}.inputs.{role} is not an input of kind {self.config.kind!r} "
          f"({configs.nearest(role, self.roles)})."
        )
    for role in self.needed:
      if role not in setting.inputs:
        raise UserError(f"config.{self.name}.inputs.{role} is not set; name a stage or a folder.")

  @classmethod
  def ready(cls, section: ml_collections.ConfigDict) -> None:
    """Raises UserError where this machine lacks what a stage of this section needs: asked before
    the first stage of a recipe runs."""

  # Data.

  @functools.cached_property
  def source(self):
    """The training videos."""
    return self.setting.open_source(self.config.data, "train")

  @functools.cached_property
  def eval_source(self):
    """The validation videos."""
    return self.setting.open_source(self.config.data, "validation")

  def inputs(self) -> dict[str, Stream]:
    """The streams of a training batch."""
    return {"clip": Stream.of(self.source, self.config.data, self.config.batch)}

  def check(self) -> None:
    """Raises UserError for what can be known to fail before anything is written."""
    if self.trains:
      for stream in self.inputs().values():
        sharding.check_batch(stream.batch, self.setting.mesh, self.config.accumulate)

  def notes(self) -> list[str]:
    """Lines that a person is told once, before the stage begins."""
    return []

  def batch_shapes(self) -> dict[str, Any]:
    """Shapes of what the loop gives to a step."""
    return {name: stream.shapes() for name, stream in self.inputs().items()}

  @functools.cached_property
  def steps(self) -> int:
    """Steps of the whole stage: `steps` if it is set, else from `epochs`.

    A stage of 0 steps measures what its inputs give, and exports that in its own shape.
    """
    if self.config.get("steps") is not None:
      return self.config.steps
    streams = self.inputs().values()
    return max(1, round(self.config.epochs * max(s.steps_an_epoch for s in streams)))

  # State.

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """Fresh parameters of every group. Pure: it is traced for shapes and jitted onto the mesh."""
    raise NotImplementedError

  def warm(self) -> dict[str, Params]:
    """Parameters from the inputs that replace fresh ones: group -> a tree with part of its keys."""
    return {}

  @property
  def frozen(self) -> dict[str, Params]:
    """Parameters that the step reads and nobody trains, from the inputs."""
    return {}

  def optimizer_config(self, group: str) -> ml_collections.ConfigDict:
    """The section that says how a group is trained."""
    del group
    return self.config.optimizer

  def trained(self, group: str) -> Trained:
    """Which of a group's parameters are trained."""
    return Trained(self.optimizer_config(group).get("trainable") or ".*")

  @property
  def averages(self) -> dict[str, float]:
    """The decay of the average of each group that has one."""
    return {"model": self.config.ema} if self.config.ema else {}

  @functools.cached_property
  def updates(self) -> dict[str, Update]:
    """How each group is updated, built from the shapes of its parameters."""
    shapes = jax.eval_shape(self.init, jax.random.key(0))
    updates = {}
    for group, tree in shapes.items():
      config = self.optimizer_config(group)
      made, schedule = optimizers.make_optimizer(
        config, tree, steps=self.steps, batch=self.config.batch
      )
      updates[group] = Update(
        made,
        schedule,
        trained=self.trained(group),
        clip_norm=config.clip_norm,
        ema=self.averages.get(group, 0.0),
      )
    return updates

  def init_state(self, rng: jax.Array) -> State:
    """The state before the first step. Pure."""
    return states.create(self.init(rng), self.updates, averaged=tuple(self.averages))

  # A step.

  def prepared(self, batch: Batch, rng: jax.Array) -> Batch:
    """What is done to the whole batch, before it is cut into accumulated parts. Pure."""
    del rng
    return batch

  def loss(
    self, params: Params, frozen: dict[str, Params], extra: Any, batch: Batch, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics, Any]:
    """(sum, weight, metrics, extra) of a batch. Pure; the division comes after accumulation."""
    raise NotImplementedError

  def step(
    self, state: State, frozen: dict[str, Params], batch: Batch, rng: jax.Array
  ) -> tuple[State, Metrics]:
    """One update of a stage with a single group, `model`. Metrics are of the state before it."""

    def loss(params, extra, part):
      return self.loss(params, frozen, extra, part, rng)

    params = state.groups["model"].params
    batch = self.prepared(batch, rng)
    update, accumulate = self.updates["model"], self.config.accumulate
    found = gradients(
      loss, params, state.extra, batch, accumulate=accumulate, trained=update.trained
    )
    state, norms = apply(state, "model", found.grads, found.loss, update)
    state = state.replace(step=state.step + 1, extra=found.extra)
    return state, {"loss": mean(found), **found.metrics, **norms}

  # Results.

  def evaluators(self) -> list[Evaluator]:
    """What is measured while the stage trains and when it ends."""
    return []

  def evaluated(self, state: State) -> Params:
    """The parameters that evaluators and the export take: averaged where there is an average."""
    return state.averaged("model")

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """(kind, model config, parameters) that other stages and `vfe.load` read."""
    raise NotImplementedError

  def files(self) -> dict[str, str]:
    """Texts that lie beside the export's parameters, by file name."""
    return {}

  def tokens(self) -> int:
    """Tokens that a clip puts through the encoder, for tokens per second; 0 where none."""
    return 0

  def model_flops(self) -> int:
    """Operations of a step on the whole batch, as `vfe.models.flops` counts: forward and backward,
    of what is frozen the forward pass only, nothing twice. The optimiser is no part of it."""
    raise NotImplementedError


def mean(found: Gradients) -> tuple[jax.Array, jax.Array]:
  """A loss that is divided already, as a metric."""
  return found.loss, jnp.float32(1)


def compute_dtype(precision: str, platform: str) -> str:
  """`auto` is bfloat16 on TPU and GPU and float32 on the CPU, which has no fast bfloat16."""
  table = {
    "auto": "float32" if platform == "cpu" else "bfloat16",
    "float32": "float32",
    "bfloat16": "bfloat16",
  }
  return configs.choose(table, precision, "config.precision")
