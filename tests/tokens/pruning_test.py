"""Node sparsity: how many tokens go on, and which."""

import jax
import jax.numpy as jnp
import pytest

from vfe.errors import UserError
from vfe.tokens.pruning import Pruning


def test_the_papers_counts():
  counts = Pruning((3, 6, 9), 0.7).counts(784, 12)
  assert counts == (784,) * 4 + (549,) * 3 + (385,) * 3 + (270,) * 2
  assert Pruning((3, 6, 9), 0.6).counts(1568, 12)[::4] == (1568, 941, 565)
  assert Pruning((1,), 0.1).kept(270) == 27


def test_a_share_that_is_a_whole_number_of_tokens_is_not_rounded_up():
  assert [Pruning((0,), 0.7).kept(n) for n in (10, 20, 30)] == [7, 14, 21]


def test_the_best_seen_go_on_in_order_and_no_gradient_reaches_the_scores():
  scores = jnp.array([[0.1, 0.4, 0.2, 0.3], [0.4, 0.1, 0.1, 0.4]])
  keys = jax.random.split(jax.random.key(0), 2)
  assert Pruning((0,), 0.5).select(scores, keys).tolist() == [[1, 3], [0, 3]]
  grad = jax.grad(lambda s: s[0, Pruning((0,), 0.5).select(s, keys)[0]].sum())(scores)
  assert grad.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0]]


def test_random_ones_are_each_rows_own():
  scores = jnp.zeros((64, 8))
  found = Pruning((0,), 0.5, "random").select(scores, jax.random.split(jax.random.key(0), 64))
  assert len({tuple(row) for row in found.tolist()}) > 20
  assert all(sorted(set(row)) == row for row in found.tolist())


@pytest.mark.parametrize(
  "wrong, said",
  [
    (dict(keep=0.0), "keep=0.0"),
    (dict(after=(6, 3)), "after=(6, 3)"),
    (dict(by="magic"), "by='magic'"),
  ],
)
def test_what_makes_no_sense_is_said(wrong, said):
  with pytest.raises(UserError) as error:
    Pruning(**wrong)
  assert said in str(error.value)


def test_layers_that_there_are_not():
  with pytest.raises(UserError, match="there are 9 layers"):
    Pruning((3, 6, 9)).parts(9)
