"""The profiler switch: `config.profile` says which steps are traced, for TensorBoard."""

import pathlib
from typing import Any

import jax
import ml_collections


class Profile:
  """Traces steps into `<stage>/profile`, from `start` on where a run is resumed past `first`.

  Does nothing where `config.profile.steps` is 0."""

  def __init__(self, config: ml_collections.ConfigDict, folder: pathlib.Path, start: int):
    self._first = max(config.start, start) if config.steps else -1
    self._last = self._first + config.steps
    self._folder = folder / "profile"

  def before(self, step: int) -> None:
    """Called before a step is started."""
    if step == self._first:
      jax.profiler.start_trace(str(self._folder))

  def after(self, done: int, metrics: Any) -> None:
    """Called after it; waits for the last traced step, so that it is in the trace."""
    if self._first >= 0 and done == self._last:
      jax.block_until_ready(metrics)
      jax.profiler.stop_trace()
