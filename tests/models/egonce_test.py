"""EgoNCE: which pairs are positives, its value against one by hand, and the same on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.learn import sharding
from vfe.models import contrastive
from vfe.models.egonce import egonce, egonce_positives

PAIRS, WIDTH, NOUNS, VERBS = 16, 8, 7, 5


def drawn(seed=0):
  """Embeddings and tags of PAIRS narrations, the last of which has no nouns."""
  rng = np.random.default_rng(seed)
  video = rng.normal(size=(PAIRS, WIDTH))
  text = video + rng.normal(size=(PAIRS, WIDTH))
  nouns, verbs = rng.random((PAIRS, NOUNS)) < 0.3, rng.random((PAIRS, VERBS)) < 0.3
  nouns[-1] = False
  return np.float32(3 * video), np.float32(text), nouns, verbs


positives_of = jax.jit(egonce_positives, static_argnames="share")


@jax.jit
def found(video, text, scale, nouns, verbs, valid):
  """((mean, all that the loss gives), gradients), compiled once."""
  positives = egonce_positives(nouns, verbs)

  def mean(video, text, scale):
    given = egonce(video, text, scale, positives, valid=valid)
    return given[0] / given[1], given

  return jax.value_and_grad(mean, (0, 1, 2), has_aux=True)(video, text, scale)


def shares(nouns, verbs, i, j):
  """Whether two narrations share a noun and a verb, by sets."""
  both = [set(np.flatnonzero(tags[i])) & set(np.flatnonzero(tags[j])) for tags in (nouns, verbs)]
  return i == j or all(both)


def by_hand(video, text, scale, nouns, verbs, valid):
  """(sum, hits of the videos, hits of the texts, other positives), in float64, pair by pair."""
  rows = np.flatnonzero(valid)
  unit = lambda row: np.float64(row) / np.sqrt(np.float64(row) @ np.float64(row))
  like = {(i, j): scale * unit(video[i]) @ unit(text[j]) for i in rows for j in rows}
  good = {(i, j) for i in rows for j in rows if shares(nouns, verbs, i, j)}
  total, hits = 0.0, [0, 0]
  for way, turn in enumerate((lambda i, j: (i, j), lambda i, j: (j, i))):
    for i in rows:
      pairs = [turn(i, j) for j in rows]
      mine, others = [p for p in pairs if p in good], [p for p in pairs if p not in good]
      most = max(like[pair] for pair in pairs)
      part = sum(np.exp(like[p] - most) for p in mine)
      total -= np.log(part / sum(np.exp(like[p] - most) for p in pairs))
      hits[way] += all(max(like[p] for p in mine) > like[p] for p in others)
  return total, *hits, len(good) - len(rows)


@settings(max_examples=12, deadline=None)
@given(
  seed=st.integers(0, 999),
  scale=st.floats(0.5, 20, width=32),
  valid=st.lists(st.booleans(), min_size=PAIRS, max_size=PAIRS).filter(any),
)
def test_it_is_the_loss_by_hand(seed, scale, valid):
  video, text, nouns, verbs = drawn(seed)
  valid = np.array(valid)
  (_, (total, weight, metrics)), _ = found(video, text, jnp.float32(scale), nouns, verbs, valid)
  expected, to_text, to_video, others = by_hand(video, text, scale, nouns, verbs, valid)
  # A logit is scale times a product of unit rows, each rounded; both directions are added.
  np.testing.assert_allclose(total, expected, rtol=1e-5, atol=6e-6 * scale * valid.sum())
  assert weight == valid.sum()
  assert metrics["top1/video_to_text"] == (to_text, weight)
  assert metrics["top1/text_to_video"] == (to_video, weight)
  assert metrics["positives"] == (others, weight)


def test_with_own_pairs_alone_it_is_twice_info_nce():
  video, text, *_ = drawn()
  valid, scale = np.arange(PAIRS) % 5 > 0, jnp.float32(20)
  none = jnp.zeros((PAIRS, PAIRS), bool)  # a row's own pair counts whether it is there or not
  total, weight, metrics = jax.jit(egonce)(video, text, scale, none, valid=valid)
  half, rows, plain = jax.jit(contrastive.info_nce)(video, text, scale, valid=valid)
  assert float(total) == pytest.approx(2 * float(half), rel=1e-6) and weight == rows
  assert {name: metrics[name] for name in plain} == plain and metrics["positives"][0] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_positives_share_a_noun_and_a_verb(seed):
  *_, nouns, verbs = drawn(seed)
  expected = [[shares(nouns, verbs, i, j) for j in range(PAIRS)] for i in range(PAIRS)]
  positives = positives_of(nouns, verbs)
  np.testing.assert_array_equal(positives, expected)
  assert positives[-1].sum() == 1  # without nouns it shares with none


def test_the_ablations_ask_for_nouns_or_verbs_alone():
  nouns, verbs = np.array([[1, 0], [1, 1], [0, 1]], bool), np.array([[1], [0], [1]], bool)
  of = lambda share: np.argwhere(np.triu(positives_of(nouns, verbs, share=share), 1)).tolist()
  assert of("noun") == [[0, 1], [1, 2]] and of("verb") == [[0, 2]] and of("noun_verb") == []
  with pytest.raises(UserError, match=r"egonce\.share='nouns' is unknown \(nearest: noun"):
    positives_of(nouns, verbs, share="nouns")


def test_rows_of_one_clip_are_positives_without_tags():
  blank = np.zeros((4, 3), bool)
  found = positives_of(blank, blank, jnp.array([7, 3, 7, 5]))
  assert np.argwhere(np.triu(found, 1)).tolist() == [[0, 2]] and np.diag(found).all()


def test_rows_that_are_not_valid_change_nothing_and_get_no_gradient():
  video, text, nouns, verbs = drawn()
  valid, scale = np.arange(PAIRS) % 3 > 0, jnp.float32(20)
  one = found(video, text, scale, nouns, verbs, valid)
  other = [np.where(valid[:, None], rows, fill) for rows, fill in ((video, 0.0), (text, np.nan))]
  two = found(*other, scale, nouns | ~valid[:, None], verbs | ~valid[:, None], valid)
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert not np.any(one[1][0][~valid]) and not np.any(one[1][1][~valid])


@pytest.mark.parametrize("left", [1, 0])
def test_a_batch_of_which_one_row_or_none_is_left_is_finite(left):
  video, text, nouns, verbs = drawn()
  valid = np.arange(PAIRS) < left
  (_, (total, weight, _)), gradients = found(video, text, jnp.float32(100), nouns, verbs, valid)
  assert weight == left and abs(total) < 1e-4
  assert not left or all(np.isfinite(leaf).all() for leaf in gradients)


def test_where_all_are_positives_nothing_is_learned():
  video, text, *_ = drawn()
  every = np.ones((PAIRS, 1), bool), np.ones((PAIRS, 1), bool)
  total, _, metrics = jax.jit(egonce)(video, text, jnp.float32(20), positives_of(*every))
  assert abs(total) < 1e-4 and metrics["top1/video_to_text"] == (PAIRS, PAIRS)


@pytest.mark.parametrize("sizes", [{"data": -1}, {"data": 2, "fsdp": -1}, {"fsdp": 4, "tensor": 2}],
                         ids=["data", "data_fsdp", "fsdp_tensor"])  # fmt: skip
def test_on_eight_devices_loss_and_gradients_are_those_of_one(sizes):
  mesh = sharding.make_mesh(sizes)
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  video, text, nouns, verbs = drawn()
  valid = np.arange(PAIRS) != 5
  expected = found(video, text, jnp.float32(20), nouns, verbs, valid)
  laid = [jax.device_put(leaf, rows) for leaf in (video, text, nouns, verbs, valid)]
  laid.insert(2, jax.device_put(jnp.float32(20), whole))

  def close(one, other):  # float32's rounding of sums of PAIRS terms
    scale = max(np.abs(other).max(), 1e-3)
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6 * scale)

  jax.tree.map(close, found(*laid), expected)
