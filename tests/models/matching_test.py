"""Video-text matching: wrong pairs are wrong, likelier the closer they are; the loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.learn import sharding
from vfe.models import matching

PAIRS, WIDTH = 8, 4
KEY = jax.random.key(0)
hard_negatives = jax.jit(matching.hard_negatives)
loss = jax.jit(matching.matching_loss)


def drawn(seed=0):
  """Embeddings, and positives of which some are others' than a row's own."""
  rng = np.random.default_rng(seed)
  near = rng.random((PAIRS, PAIRS)) < 0.3
  pairs = rng.normal(size=(2, PAIRS, WIDTH)).astype(np.float32)
  return *map(jnp.asarray, pairs), jnp.asarray(near | near.T | np.eye(PAIRS, dtype=bool))


@settings(max_examples=20, deadline=None)
@given(
  seed=st.integers(0, 999),
  valid=st.lists(st.booleans(), min_size=PAIRS, max_size=PAIRS),
)
def test_a_positive_is_never_drawn_nor_a_row_that_is_not_valid(seed, valid):
  video, text, positives = drawn(seed)
  valid = np.array(valid)
  key, rows = jax.random.key(seed), jnp.arange(PAIRS)
  found = hard_negatives(key, video, text, jnp.float32(20), positives, rows, valid=valid)
  wrong = ~np.asarray(positives) & valid[:, None] & valid[None, :]
  np.testing.assert_array_equal(found.has, wrong.any(1))
  for chosen in (found.video, found.text):
    for i, j in enumerate(chosen.tolist()):
      assert wrong[i, j] if found.has[i] else i == j


def test_what_is_drawn_goes_as_the_similarity():
  video, text, positives = drawn(3)
  scale, draws = 4.0, 4000
  many = jax.vmap(
    lambda key: matching.hard_negatives(
      key, video, text, jnp.float32(scale), positives, jnp.arange(PAIRS)
    )
  )(jax.random.split(KEY, draws))
  unit = lambda rows: np.float64(rows) / np.linalg.norm(np.float64(rows), axis=1, keepdims=True)
  table = scale * unit(text) @ unit(video).T
  for chosen, logits in ((many.video, table), (many.text, table.T)):
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) + matching.FLOOR
    chance = np.where(positives, 0, chance)
    chance /= chance.sum(1, keepdims=True)
    for i in range(PAIRS):
      share = np.bincount(np.asarray(chosen)[:, i], minlength=PAIRS) / draws
      assert np.abs(share - chance[i]).max() < 5 * 0.5 / np.sqrt(draws)


def test_rows_draw_by_their_number_on_any_mesh_and_in_any_place():
  video, text, positives = drawn(1)
  rows, scale = np.arange(PAIRS) + 96, jnp.float32(10)
  expected = hard_negatives(KEY, video, text, scale, positives, rows)
  mesh = sharding.make_mesh({"data": -1})
  laid = [jax.device_put(x, sharding.batch_sharding(mesh)) for x in (video, text, positives, rows)]
  whole = [jax.device_put(x, sharding.replicated(mesh)) for x in (KEY, scale)]
  found = hard_negatives(whole[0], *laid[:2], whole[1], *laid[2:])
  for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(one, two)
  other = hard_negatives(KEY, video, text, scale, positives, rows + 8)
  assert np.any(other.video != expected.video)


def test_nothing_is_learned_through_what_is_drawn():
  video, text, positives = drawn()

  def picked(video, text, scale):
    found = matching.hard_negatives(KEY, video, text, scale, positives, jnp.arange(PAIRS))
    return jnp.sum(found.video * 1.0)

  gradients = jax.grad(picked, (0, 1, 2))(video, text, jnp.float32(20))
  assert not any(np.any(leaf) for leaf in gradients)


def test_the_loss_is_the_one_by_hand_and_a_row_without_a_wrong_pair_has_one_term():
  logits = np.random.default_rng(0).normal(size=(3, PAIRS, 2)).astype(np.float32)
  has, valid = np.arange(PAIRS) != 2, np.arange(PAIRS) != 5
  total, weight, metrics = loss(*logits, has, valid=valid)
  expected, right, wrong = 0.0, 0, 0
  for kind, label in enumerate((1, 0, 0)):
    for i in range(PAIRS):
      if valid[i] and (kind == 0 or has[i]):
        row = np.float64(logits[kind, i])
        expected -= row[label] - np.log(np.exp(row).sum())
        hit = row[label] > row[1 - label]
        right, wrong = right + (hit and kind == 0), wrong + (hit and kind > 0)
  assert float(total) == pytest.approx(expected, rel=1e-5) and weight == 7 + 2 * 6
  assert metrics == {"matching/right": (right, 7), "matching/wrong": (wrong, 12)}


def test_what_does_not_count_has_no_gradient_even_where_it_is_not_finite():
  logits = np.zeros((3, PAIRS, 2), np.float32)
  logits[:, 5], logits[1:, 2] = np.nan, np.inf
  has, valid = np.arange(PAIRS) != 2, np.arange(PAIRS) != 5
  gradient = jax.grad(lambda x: loss(*x, has, valid=valid)[0])(logits)
  assert np.isfinite(gradient).all() and not gradient[:, 5].any() and not gradient[1:, 2].any()
  _, _, metrics = loss(*logits, has, valid=valid)
  assert metrics["matching/right"] == (0, 7)  # a tie is judged wrongly
