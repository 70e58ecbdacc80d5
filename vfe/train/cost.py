"""What a stage would take here: said before it starts, and asked about where it is absurd."""

import jax

from vfe.errors import UserError
from vfe.learn.flops import flops
from vfe.stages.stage import Stage
from vfe.train.program import Program

# Operations a second that two laptop cores reach at best: an estimate is all that is asked of it.
CPU_RATE = 5e10
CPU_LIMIT = 1e15  # above it a run without an accelerator must be confirmed: hours, not minutes


def confirm(stage: Stage, made: Program, steps: int, *, yes: bool) -> None:
  """Refuses a stage that would keep a CPU busy for hours, unless the user said `--yes`.

  Raises:
    UserError: no accelerator, too much arithmetic, and no `--yes`.
  """
  if jax.default_backend() != "cpu" or yes:
    return
  a_step = flops(made.step, made.state, made.frozen, made.batch)
  total = a_step * steps
  if total > CPU_LIMIT:
    raise UserError(
      f"stage {stage.name} is {steps} steps of {a_step:.1e} operations, about "
      f"{_duration(total / CPU_RATE)} on a machine without an accelerator. Run the recipe's :demo, "
      "use a TPU or GPU, or go on with --yes."
    )


def _duration(seconds: float) -> str:
  for unit, size in (("years", 31_557_600), ("days", 86_400)):
    if seconds > 2 * size:
      return f"{seconds / size:.0f} {unit}"
  return f"{seconds / 3600:.0f} hours"
