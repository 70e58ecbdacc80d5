"""The state of a training stage: all that a checkpoint holds."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Params = Any  # a pytree of float32 arrays


@flax.struct.dataclass
class Group:
  """Parameters that one optimiser trains. A GAN has two groups, most stages one."""

  params: Params
  opt_state: Any


@flax.struct.dataclass
class Guard:
  """Updates that were skipped because something was not finite. Read at log lines only.

  All are scalars: `skipped` int32 steps in all, `step` int32 of the last one (-2: none),
  `in_a_row` int32 steps up to that one, `loss` and `norm` float32, the two quantities as they
  were then. Untyped, as `eval_shape` and `tree.map` put other things there.
  """

  skipped: Any
  in_a_row: Any
  step: Any
  loss: Any
  norm: Any

  @classmethod
  def clean(cls) -> "Guard":
    """Nothing skipped yet."""
    count = lambda value: jnp.asarray(value, jnp.int32)
    return cls(count(0), count(0), count(-2), jnp.float32(0), jnp.float32(0))


@flax.struct.dataclass
class State:
  """step int32[]; groups: Group by name; ema: averaged parameters by group name; extra: what a
  stage carries besides (running statistics); guard: Guard. Frozen inputs are not here: they are
  held by reference, with their digest in the checkpoint's metadata."""

  step: Any
  groups: Any
  ema: Any
  extra: Any
  guard: Any

  def averaged(self, name: str = "model") -> Params:
    """The group's averaged parameters where the stage keeps an average, else its parameters."""
    return self.ema.get(name, self.groups[name].params)


def create(
  params: dict[str, Params],
  optimizers: dict[str, Any],
  averaged: tuple[str, ...] = (),
  extra: Any = None,
) -> State:
  """The state before the first step. `optimizers`, Optax's or `vfe.learn.step.Update`, give the
  state of each group's optimiser by `init(params)`."""
  return State(
    step=jnp.zeros((), jnp.int32),
    groups={name: Group(params[name], optimizers[name].init(params[name])) for name in params},
    # A copy: donated buffers may not be named twice.
    ema={name: jax.tree.map(jnp.copy, params[name]) for name in averaged},
    extra={} if extra is None else extra,
    guard=Guard.clean(),
  )
