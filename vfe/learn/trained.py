"""Which parameters are trained. Of the others there are neither gradients nor optimiser state."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from vfe.errors import UserError
from vfe.learn.paths import is_stacked, named_leaves
from vfe.learn.state import Params


@dataclasses.dataclass(frozen=True)
class Trained:
  """The leaves whose names the regex `pattern` finds (anywhere in the name).

  Of the stacked leaves that `cut` finds, layers before `first` are not trained either: their slices
  `[first:]` are. Trees of trained parameters hold these leaves and slices and nothing else.
  """

  pattern: str = ".*"
  cut: str = ".*"
  first: int = 0

  def __post_init__(self):
    for regex in (self.pattern, self.cut):
      try:
        re.compile(regex)
      except re.error as error:
        raise UserError(f"optimizer.trainable={regex!r} is not a regex: {error}.") from None

  @property
  def all(self) -> bool:
    """Whether it is plain that nothing is left out."""
    return self.pattern == ".*" and not self.first

  def of(self, params: Params) -> Params:
    """The trained part of a tree of arrays or of shapes.

    Raises:
      UserError: it is empty.
    """
    if self.all:
      return params
    part = _picked(params, lambda name, leaf: self._part(name, leaf), "")
    if not jax.tree.leaves(part):
      raise UserError(
        f"optimizer.trainable={self.pattern!r} matches none of the parameters, "
        f"of which the first is {next(iter(named_leaves(params)))}."
      )
    return part

  def merged(self, part: Params, params: Params) -> Params:
    """All parameters, the trained ones from `part`; no gradient reaches the rest of `params`."""
    if self.all:
      return part
    rest = jax.lax.stop_gradient(params)
    new = named_leaves(part)

    def leaf(path, old):
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      if name not in new:
        return old
      first = self._first(name)
      return jnp.concatenate([old[:first], new[name]]) if first else new[name]

    return jax.tree_util.tree_map_with_path(leaf, rest)

  def count(self, params: Params) -> tuple[int, int]:
    """Parameters that are trained, and all of them. Takes arrays or shapes."""
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    return size(self.of(params)), size(params)

  def _first(self, name: str) -> int:
    return self.first if is_stacked(name) and re.search(self.cut, name) else 0

  def _part(self, name: str, leaf: Any) -> Any:
    if not re.search(self.pattern, name):
      return None
    first = self._first(name)
    if not first:
      return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct((leaf.shape[0] - first, *leaf.shape[1:]), leaf.dtype)
    return leaf[first:]


ALL = Trained()


def _picked(tree: Any, pick: Any, name: str) -> Any:
  """The tree without the leaves for which `pick` gives None, and without empty branches."""
  if not isinstance(tree, dict):
    return pick(name, tree)
  inside = lambda key: f"{name}/{key}" if name else key
  found = {key: _picked(value, pick, inside(key)) for key, value in tree.items()}
  return {key: value for key, value in found.items() if value is not None} or None
