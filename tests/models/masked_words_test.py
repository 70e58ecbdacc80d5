"""Masked words: which are hidden, how often, and the loss on them by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.learn import sharding
from vfe.models.masked_words import Masking, hide, masked_words_loss

PAD, CLS, SEP, MASK, WORDS = 0, 1, 2, 3, 50
MASKING = Masking(mask=MASK, vocabulary=WORDS, kept=(CLS,))
KEY = jax.random.key(0)
hidden_by = jax.jit(hide, static_argnames="masking")


def texts(rows=64, length=40, seed=0):
  """Ids framed by [CLS] and [SEP], padded; some texts are of the frame alone."""
  rng = np.random.default_rng(seed)
  ids, mask = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
  for i in range(rows):
    words = rng.integers(4, WORDS, rng.integers(0, length - 1))
    ids[i, : len(words) + 2], mask[i, : len(words) + 2] = [CLS, *words, SEP], True
  return ids, mask


def test_padding_and_cls_are_never_asked_for_and_what_is_not_asked_for_stays():
  ids, mask = texts()
  for share in (0.5, 1.0):
    masking = dataclasses.replace(MASKING, share=share)
    found, asked = hidden_by(KEY, ids, mask, np.arange(64), masking=masking)
    assert not np.any(asked & ~mask) and not np.any(asked & (ids == CLS))
    np.testing.assert_array_equal(found[~asked], ids[~np.asarray(asked)])
    assert found.dtype == np.int32
  np.testing.assert_array_equal(asked, mask & (ids != CLS))  # all, [SEP] among them


def test_shares_are_those_of_bert():
  ids, mask = texts(400)
  found, asked = (np.asarray(x) for x in hidden_by(KEY, ids, mask, np.arange(400), masking=MASKING))
  free = mask & (ids != CLS)
  spread = lambda share, count: 5 * np.sqrt(share * (1 - share) / count)
  assert abs(asked.sum() / free.sum() - 0.5) < spread(0.5, free.sum())
  count = asked.sum()
  assert abs((found == MASK)[asked].mean() - 0.8 - 0.1 / WORDS) < spread(0.8, count)
  stay = 0.1 + 0.1 / WORDS  # a random word may be the word itself
  assert abs((found == ids)[asked].mean() - stay) < spread(stay, count)
  swapped = found[asked & (found != MASK) & (found != ids)]
  assert set(swapped) <= set(range(WORDS)) and len(set(swapped)) > 40


def test_a_row_is_hidden_by_its_number_on_any_mesh():
  ids, mask = texts()
  rows = np.arange(64) + 640
  expected = hidden_by(KEY, ids, mask, rows, masking=MASKING)
  again = hidden_by(KEY, ids[5:6], mask[5:6], rows[5:6], masking=MASKING)
  np.testing.assert_array_equal(again[0], expected[0][5:6])
  laid = sharding.batch_sharding(sharding.make_mesh({"data": -1}))
  ids, mask, rows = (jax.device_put(x, laid) for x in (ids, mask, rows))
  jax.tree.map(
    np.testing.assert_array_equal, hidden_by(KEY, ids, mask, rows, masking=MASKING), expected
  )
  other = hidden_by(jax.random.key(1), ids, mask, rows, masking=MASKING)
  assert np.any(other[1] != expected[1])


def test_the_loss_is_the_one_by_hand_of_the_words_asked_for():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 6, 9)).astype(np.float32)
  ids, asked = rng.integers(0, 9, (4, 6)).astype(np.int32), rng.random((4, 6)) < 0.5
  valid = np.arange(4) != 2
  total, weight, metrics = jax.jit(masked_words_loss)(logits, ids, asked, valid=valid)
  expected, hits, count = 0.0, 0, 0
  for i, j in np.argwhere(asked & valid[:, None]):
    row = np.float64(logits[i, j])
    expected += np.log(np.exp(row).sum()) - row[ids[i, j]]
    hits, count = hits + (row.argmax() == ids[i, j]), count + 1
  assert float(total) == pytest.approx(expected, rel=1e-5)
  assert weight == count and metrics == {"words/top1": (hits, count)}


def test_words_that_are_not_asked_for_have_no_gradient():
  ids, asked = jnp.zeros((2, 3), jnp.int32), jnp.array([[True, False, True], [False] * 3])
  logits = jnp.where(asked[..., None], jnp.ones((2, 3, 5)), jnp.nan)
  gradient = jax.grad(lambda x: masked_words_loss(x, ids, asked)[0])(logits)
  assert np.isfinite(gradient).all() and not np.any(gradient[~asked])
  assert masked_words_loss(logits, ids, jnp.zeros((2, 3), bool))[:2] == (0, 0)
