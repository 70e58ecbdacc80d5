import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn import topk

TOPK = {name: jax.jit(mask, static_argnums=(1, 2)) for name, mask in topk.TOPK.items()}
topk_mask = jax.jit(topk.topk_mask, static_argnums=1)
GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "topk.npz")


@pytest.mark.parametrize("k", [0, 1, 5, 8])
def test_hard_mask_has_exactly_k_ones_even_among_ties(k):
  scores = jnp.array([[1.0, 1, 1, 1, 1, 1, 1, 1], [3.0, 2, 2, 2, 2, 0, 9, 2]])
  for function in (topk_mask, TOPK["straight_through"]):
    mask = function(scores, k)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert mask.sum(axis=1).tolist() == [k, k]


def test_hard_mask_takes_the_highest_and_the_first_of_equals():
  assert topk_mask(jnp.array([[3.0, 2, 2, 2, 0, 9]]), 3).tolist() == [[1, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize("name", TOPK)
def test_gradient_raises_the_scores_that_are_wanted(name):
  scores = jax.random.normal(jax.random.key(0), (2, 12))
  gain = jnp.where(jnp.arange(12) % 2 == 0, 1.0, -1.0)  # the loss falls where even ones are kept
  gradient = jax.jit(jax.grad(lambda s: -(TOPK[name](s, 5, 1.0) * gain).sum()))(scores)
  assert jnp.isfinite(gradient).all()
  assert jnp.abs(gradient).sum() > 0.1
  if name == "straight_through":  # a sigmoid a score: each has its own sign
    assert (gradient[:, ::2] < 0).all() and (gradient[:, 1::2] > 0).all()
  better = scores - 0.1 * gradient
  assert (TOPK["soft"](better, 5, 1.0) * gain).sum() > (TOPK["soft"](scores, 5, 1.0) * gain).sum()


@pytest.mark.parametrize("name", TOPK)
def test_gradient_is_finite_where_all_scores_are_equal(name):
  gradient = jax.jit(jax.grad(lambda s: (TOPK[name](s, 3) * jnp.arange(8.0)).sum()))(
    jnp.zeros((1, 8))
  )
  assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("name", TOPK)
def test_the_scale_of_the_scores_does_not_matter(name):
  scores = jax.random.normal(jax.random.key(1), (2, 12))
  slope = jax.jit(jax.grad(lambda s: (TOPK[name](s, 5) * jnp.arange(12.0)).sum()))
  np.testing.assert_allclose(TOPK[name](100 * scores, 5), TOPK[name](scores, 5), atol=1e-4)
  np.testing.assert_allclose(100 * slope(100 * scores), slope(scores), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("k", "strength"), [(5, 0.1), (16, 1.0)])
def test_soft_mask_and_its_gradient_are_those_of_the_published_code(k, strength):
  """The golden scores have unit deviation, so temperature is their regularisation strength."""
  scores = jnp.asarray(GOLDEN["scores"])
  mask = TOPK["soft"](scores, k, strength)
  np.testing.assert_allclose(mask, GOLDEN[f"mask_{k}_{strength}"], atol=1e-5)
  weighted = lambda s: (TOPK["soft"](s, k, strength) @ GOLDEN["weight"]).sum()
  gradient = jax.jit(jax.grad(weighted))(scores)
  np.testing.assert_allclose(gradient, GOLDEN[f"gradient_{k}_{strength}"], atol=1e-4)


def test_soft_mask_sums_to_k_within_0_and_1_and_hardens_as_it_cools():
  scores = jax.random.normal(jax.random.key(2), (3, 200))
  for temperature in (3.0, 0.3, 1e-4):
    mask = TOPK["soft"](scores, 70, temperature)
    assert mask.min() >= 0 and mask.max() <= 1
    np.testing.assert_allclose(mask.sum(axis=1), 70, atol=1e-3)
  # the coldest scores are about 3 / 1e-4, where float32 numbers are 2e-3 apart
  np.testing.assert_allclose(mask, topk_mask(scores, 70), atol=2e-3)
  np.testing.assert_allclose(TOPK["soft"](jnp.ones((1, 4)), 1), 0.25)


def test_k_beyond_the_row_is_an_error():
  with pytest.raises(ValueError, match="k=9 of n=8"):
    topk_mask(jnp.zeros((1, 8)), 9)
