"""The training step of a stage as one program.

The loop runs it, the planner compiles it for devices that are not there, the benchmarks time it.
"""

import dataclasses
import functools
from typing import Any

import jax

from vfe.learn import sharding
from vfe.learn.state import State
from vfe.nn.random import key
from vfe.stages.stage import Stage


@dataclasses.dataclass(frozen=True)
class Program:
  """`step(state, frozen, batch) -> (state, metrics)`, jitted, the state's buffers given up.

  state, frozen and batch are the shapes of its arguments, each with its sharding; `rng` is the key
  that the stage is initialised with and from which every step's is folded.
  """

  step: Any
  rng: jax.Array
  state: State
  frozen: Any
  batch: Any

  @functools.cached_property
  def layout(self) -> State:
    """The sharding of every leaf of the state."""
    return jax.tree.map(lambda leaf: leaf.sharding, self.state)

  def compile(self) -> Any:
    """The compiled step. Enter the stage's mesh (`jax.set_mesh`) first."""
    return self.step.lower(self.state, self.frozen, self.batch).compile()


def program(stage: Stage) -> Program:
  """The step of a stage on its mesh. Nothing is computed and no array is made."""
  mesh = stage.setting.mesh
  rng = key(jax.random.key(stage.setting.config.seed), stage.name)
  state = sharded_shapes(jax.eval_shape(stage.init_state, rng), mesh)
  frozen = sharded_shapes(stage.frozen, mesh)
  rows = sharding.batch_sharding(mesh)
  batch = jax.tree.map(lambda x: _shape(x, rows), stage.batch_shapes())
  layout = jax.tree.map(lambda leaf: leaf.sharding, state)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=(layout, None))
  def step(state: State, frozen: Any, batch: Any):
    return stage.step(state, frozen, batch, jax.random.fold_in(rng, state.step))

  return Program(step, rng, state, frozen, batch)


def sharded_shapes(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """The shapes of a tree of parameters, each with the sharding that it gets on the mesh."""
  return jax.tree.map(_shape, tree, sharding.shardings(tree, mesh))


def _shape(leaf: Any, where: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
