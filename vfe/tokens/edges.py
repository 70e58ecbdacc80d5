"""Edge sparsity: which tokens meet which, by blocks of neighbours in the sequence (SViTT 2.2).

A CLS meets everybody and stands outside the blocks. `vfe.nn.sparse` computes what is drawn here.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key

from vfe.errors import UserError
from vfe.nn.random import key


@dataclasses.dataclass(frozen=True)
class Edges:
  """Blocks of `size` tokens (G); the tokens of a block see those of `local` blocks (K_l: it and as
  many on both sides, around the ends) and of `random` others (K_r).

  (1, 3, 56) and (1, 5, 56) are SViTT-Ego's. Where all blocks are fewer, each sees all of them.
  """

  local: int = 1
  random: int = 3
  size: int = 56

  def __post_init__(self):
    if self.local < 1 or self.local % 2 == 0:
      raise UserError(f"edges.local={self.local} is not a block and its sides; use 1, 3, 5 ...")
    if self.random < 0 or self.size < 1:
      raise UserError(
        f"edges.random={self.random}, edges.size={self.size}: use 0 or more random blocks of 1 or "
        "more tokens."
      )

  def blocks(self, n: int) -> int:
    """M, the number of blocks of n tokens; the last one may not be full."""
    return -(-n // self.size)

  def met(self, n: int) -> int:
    """J, the number of blocks that each block of n tokens meets, its own among them."""
    return min(self.local + self.random, self.blocks(n))


def all_edges(n: int) -> Edges:
  """All of n tokens meet: one block, whose pairs are not held at once."""
  return Edges(1, 0, n)


def pattern(
  rng: Key[Array, ""], layer: int | Int[Array, ""], n: int, edges: Edges
) -> Int32[Array, "M J"]:
  """The blocks that each block of n tokens meets, in order and none of them twice.

  One draw for all rows and heads of a layer. In training `rng` is that of the step; for numbers
  that can be had again, evaluation gives the same one every time. Memory is M² while it is drawn.
  """
  blocks = edges.blocks(n)
  noise = jax.random.uniform(jax.random.fold_in(key(rng, "edges"), layer), (blocks, blocks))
  local = min(edges.local, blocks)
  own = jnp.arange(blocks)[:, None]
  around = (own + jnp.arange(local) - local // 2) % blocks
  noise = noise.at[own, around].set(1.0)  # noise lies in [0, 1)
  return jnp.sort(jax.lax.top_k(noise, edges.met(n))[1].astype(jnp.int32), axis=1)
