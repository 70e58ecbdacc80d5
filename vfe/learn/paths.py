"""Leaves by name: `encoder/blocks/mlp/up/kernel`. Rules on parameters are written against these."""

from collections.abc import Callable
from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
  """A key path of `jax.tree_util` as names between slashes."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
  """`jax.tree.map` whose function is given the leaf's name first."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
  )


def named_leaves(tree: Any) -> dict[str, Any]:
  """The leaves by name, in the tree's order."""
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def is_stacked(name: str) -> bool:
  """Whether a leaf holds one slice a layer, `[L, ...]`, as the blocks of `vfe.nn.blocks.Stack`."""
  return "blocks" in name.split("/")[:-1]
