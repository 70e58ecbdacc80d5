"""Keys: folded from names and row numbers, never split in an order that code can change."""

import zlib

import jax
from jaxtyping import Array, Int, Key


def key(rng: Key[Array, ""], name: str) -> Key[Array, ""]:
  """The key of a named use. crc32, because `hash()` differs between processes."""
  return jax.random.fold_in(rng, zlib.crc32(name.encode()))


def row_keys(rng: Key[Array, ""], name: str, rows: Int[Array, "B"]) -> Key[Array, "B"]:
  """One key a row, from the row's number in the global batch.

  What is drawn from it is a function of (seed, step, row), so neither the mesh nor gradient
  accumulation changes it.
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key(rng, name), rows)
