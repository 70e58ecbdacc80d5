"""Blocks whose tokens meet by a pattern or relative positions, and that tell whom the CLS sees."""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.nn.attention import attend
from vfe.nn.blocks import Block, drop_path
from vfe.nn.relative import RelativeBias
from vfe.nn.sparse import attend_sparse, probabilities_of_first


@flax.struct.dataclass
class Meeting:
  """What a `SparseBlock` has to know of its tokens, the first of which may be a CLS.

  codes: int32[B, N] or [1, N] (`vfe.nn.relative`), None without relative positions. size: tokens in
  a block of the pattern, 0 where all tokens meet and no position is relative. first: 1 with a CLS.
  """

  codes: jax.Array | None
  size: int = flax.struct.field(pytree_node=False)
  first: int = flax.struct.field(pytree_node=False)


class SparseBlock(Block):
  """A block that runs with a `Meeting` and, a layer, a pattern int32[M, J] (zeros, if all meet).

  relative: entries of the layer's table of relative positions, 0 for none. What is found by the way
  is float32[B, N], the share of the CLS's attention that each token has, the mean over heads; zeros
  [B, 0] without `scored`.
  """

  relative: int = 0
  scored: bool = False

  @nn.nowrap
  def mix(self, tokens, drop, keys, where, own):
    """Attention by the pattern; parameters are drawn from a token that meets itself."""
    table = None
    if self.relative:
      shape = (self.relative, self.heads)
      table = self.param("relative", nn.initializers.zeros_init(), shape)
    found = []
    meet = attend if where is None else functools.partial(
      self._meet, where=where, pattern=own, table=table, found=found
    )  # fmt: skip
    mixed = self.attended("attention", tokens, meet)
    return tokens + drop_path(mixed, drop, keys, "attention"), found[0] if found else None

  @nn.nowrap
  def _meet(
    self,
    q: Float[Array, "B N H d"],
    k: Float[Array, "B N H d"],
    v: Float[Array, "B N H d"],
    *,
    where: Meeting,
    pattern: Any,
    table: Any,
    found: list,
    segments: None = None,
    implementation: str = "auto",
  ) -> Float[Array, "B N H d"]:
    scores = jnp.zeros((len(q), 0))
    if self.scored:
      scores = probabilities_of_first(q[:, :1], k, table)[:, :, 0, 1:].mean(1)
    found.append(jax.lax.stop_gradient(scores))
    if not where.size:
      return attend(q, k, v, implementation=implementation)
    bias = None if table is None else RelativeBias(table, where.codes)
    return attend_sparse(q, k, v, pattern, size=where.size, first=where.first, bias=bias)
