"""Node sparsity: which tokens go on after some layers (SViTT 2.4).

A CLS stands outside: it always goes on. What it attends to says which of the others do.
"""

import dataclasses
import math

import jax
from jaxtyping import Array, Float, Int32, Key

from vfe.config import choose
from vfe.errors import UserError
from vfe.tokens import selection

# How the tokens that go on are chosen: (scores, keys, how many) -> selection.
WAYS = {
  "cls_attention": lambda scores, keys, keep: selection.largest(scores, keep),
  "random": lambda scores, keys, keep: selection.random(keys, scores.shape[1], keep),
}


@dataclasses.dataclass(frozen=True)
class Pruning:
  """After each of the layers `after`, counted from 0, the share `keep` of the tokens goes on.

  SViTT's video encoder keeps 0.7 after 3, 6 and 9; of 784 tokens 549, 385 and 270. by: the tokens
  that the CLS attends to most, by that layer's own attention, or "random" ones (the ablation).
  """

  after: tuple[int, ...] = (3, 6, 9)
  keep: float = 0.7
  by: str = "cls_attention"

  def __post_init__(self):
    choose(WAYS, self.by, "by")
    if not 0.0 < self.keep <= 1.0:
      raise UserError(f"keep={self.keep} is no share of the tokens; use more than 0 to 1.")
    if list(self.after) != sorted(set(self.after)) or min(self.after, default=0) < 0:
      raise UserError(f"after={self.after} are not layers in order, from 0 on.")

  def kept(self, n: int) -> int:
    """How many of n tokens go on; rounded up, so never none."""
    return math.ceil(n * self.keep - 1e-6)  # 0.7 * 10 is a little more than 7

  def counts(self, n: int, depth: int) -> tuple[int, ...]:
    """Tokens in each of `depth` layers, the CLS not counted."""
    found = []
    for layer in range(depth):
      found.append(n)
      n = self.kept(n) if layer in self.after else n
    return tuple(found)

  def parts(self, depth: int) -> list[tuple[int, int]]:
    """The runs [start, stop) of layers with equally many tokens.

    Raises:
      UserError: there is no layer after one of `after`.
    """
    if max(self.after, default=0) >= depth:
      raise UserError(
        f"after={self.after}: there are {depth} layers, 0 to {depth - 1}; leave out others."
      )
    ends = [layer + 1 for layer in self.after if layer + 1 < depth]
    return list(zip([0, *ends], [*ends, depth], strict=True))

  def select(
    self, scores: Float[Array, "B N"], keys: Key[Array, "B"]
  ) -> Int32[Array, "B K"]:
    """Which of N tokens go on, in order. No gradient reaches the scores; keys are for `random`."""
    return WAYS[self.by](jax.lax.stop_gradient(scores), keys, self.kept(scores.shape[1]))
