import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.tokens.edges import Edges, pattern

KEY = jax.random.key(0)


def drawn(n, edges, layer=0, rng=KEY):
  return np.asarray(pattern(rng, layer, n, edges))


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 30), st.sampled_from([1, 3, 5]), st.integers(0, 6), st.integers(2, 9))
def test_every_block_meets_its_neighbours_and_no_block_twice(n, local, random, size):
  edges = Edges(local, random, size)
  found, blocks = drawn(n, edges), -(-n // size)
  assert found.shape == (blocks, min(local + random, blocks))
  for own, row in enumerate(found.tolist()):
    assert row == sorted(set(row)) and set(row) <= set(range(blocks))
    sides = range(-(local // 2), local // 2 + 1)
    assert len({(own + side) % blocks for side in sides} & set(row)) == min(local, blocks)


def test_the_papers_counts_of_blocks():
  """784 tokens and what is left of them by the pruning layers; the last ones have few blocks."""
  few, many = Edges(1, 3, 56), Edges(1, 5, 56)
  assert [few.blocks(n) for n in (784, 549, 385, 270)] == [14, 10, 7, 5]
  assert [few.met(n) for n in (784, 549, 385, 270)] == [4, 4, 4, 4]
  assert [many.met(n) for n in (784, 549, 385, 270)] == [6, 6, 6, 5]


def test_all_other_blocks_at_random_are_all_blocks():
  assert (drawn(784, Edges(1, 13, 56)) == np.arange(14)).all()


def test_a_pattern_is_that_of_its_key_and_layer():
  edges = Edges(1, 3, 4)
  first = drawn(56, edges)
  assert (first == drawn(56, edges)).all()
  assert (first != drawn(56, edges, layer=1)).any()
  assert (first != drawn(56, edges, rng=jax.random.key(1))).any()


def test_layers_drawn_at_once_are_those_drawn_one_by_one():
  together = jax.vmap(lambda layer: pattern(KEY, layer, 56, Edges(1, 3, 4)))(np.arange(3))
  alone = [drawn(56, Edges(1, 3, 4), layer) for layer in range(3)]
  np.testing.assert_array_equal(together, alone)


def test_random_blocks_are_equally_likely():
  """400 draws for each of 9 blocks: another one is met in 2 of 8, within 5 deviations."""
  draws = jax.vmap(lambda layer: pattern(KEY, layer, 9, Edges(1, 2, 1)))(np.arange(400))
  met = np.zeros((9, 9))
  np.add.at(met, (np.arange(9)[:, None], np.asarray(draws)), 1)
  assert (np.diag(met) == 400).all()
  others = met[~np.eye(9, dtype=bool)] / 400
  assert np.abs(others - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize(
  ("changes", "said"),
  [({"local": 2}, "edges.local=2"), ({"random": -1}, "edges.random=-1"), ({"size": 0}, "size=0")],
)
def test_impossible_edges_are_refused(changes, said):
  with pytest.raises(UserError, match=said):
    Edges(**changes)
