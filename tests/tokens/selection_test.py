import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.nn.random import row_keys
from vfe.tokens import selection
from vfe.tokens.layout import Layout

LAYOUT = Layout((6, 3, 4), (2, 8, 8))
N = LAYOUT.size
SEEDS = st.integers(0, 2**31 - 1)
# Few shapes, because each is compiled; many seeds.
few = settings(max_examples=10, deadline=None, derandomize=True)


@functools.partial(jax.jit, static_argnums=1)
def keys(seed, rows=3):
  return row_keys(jax.random.key(seed), "rows", jnp.arange(rows))


random = jax.jit(selection.random, static_argnums=(1, 2))
tube = jax.jit(selection.tube, static_argnums=(1, 2))
random_of_frames = jax.jit(selection.random_of_frames, static_argnums=(1, 2))
random_frames = jax.jit(selection.random_frames, static_argnums=(1, 2))
top_and_random = jax.jit(selection.top_and_random, static_argnums=(2, 3))
contains = jax.jit(selection.contains, static_argnums=2)


def check(chosen, rows, count, n=N):
  """A selection: int32, sorted, without repeats, in range."""
  chosen = np.asarray(chosen)
  assert chosen.dtype == np.int32 and chosen.shape == (rows, count)
  assert (np.diff(chosen, axis=1) > 0).all()
  assert chosen.min() >= 0 and chosen.max() < n
  return chosen


@few
@given(seed=SEEDS)
def test_every_frame_keeps_as_many_tokens_each_its_own(seed):
  chosen = check(random_of_frames(keys(seed), LAYOUT, 5), 3, 30)
  frames = chosen.reshape(3, 6, 5)
  assert (frames // LAYOUT.per_frame == np.arange(6)[:, None]).all()
  sites = frames % LAYOUT.per_frame
  assert len({tuple(of) for of in sites.reshape(-1, 5).tolist()}) > 1


@few
@given(seed=SEEDS)
def test_whole_frames_are_kept(seed):
  chosen = check(random_frames(keys(seed), LAYOUT, 2), 3, 24).reshape(3, 2, 12)
  assert (chosen % LAYOUT.per_frame == np.arange(12)).all()



@few
@given(SEEDS, st.sampled_from([1, 7, N]))
def test_random_is_a_selection(seed, keep):
  check(random(keys(seed), N, keep), 3, keep)


def test_random_picks_every_token_equally_often():
  chosen = np.asarray(random(keys(0, rows=4000), 12, 3))
  counts = np.bincount(chosen.ravel(), minlength=12)
  # Binomial of 4000 draws with p = 1/4: six standard deviations are 164.
  assert np.abs(counts - 1000).max() < 6 * np.sqrt(4000 * 0.25 * 0.75)


@few
@given(SEEDS, st.sampled_from([1, 5, 12]))
def test_tube_keeps_the_same_sites_in_every_latent_frame(seed, keep):
  chosen = check(tube(keys(seed), LAYOUT, keep), 3, 6 * keep)
  sites = chosen.reshape(3, 6, keep) % LAYOUT.per_frame
  assert (sites == sites[:, :1]).all()


@few
@given(SEEDS, st.sampled_from([(7, 4), (1, 0), (0, 3), (50, 22)]))
def test_top_and_random_is_the_top_and_then_others(seed, budget):
  top, others = budget
  importance = np.random.default_rng(seed).random((3, N), np.float32)
  chosen = check(top_and_random(keys(seed), jnp.asarray(importance), top, others), 3, top + others)
  for row, best in zip(chosen, np.argsort(-importance, axis=1)[:, :top], strict=True):
    assert set(best) <= set(row)


def test_budget_is_exact_where_importance_is_flat():
  """Ties, as on a still video, change neither the count nor that tokens differ."""
  check(top_and_random(keys(0), jnp.zeros((3, N)), 10, 5), 3, 15)


def test_the_paper_s_budget():
  layout = Layout.of_video(128, 224, (2, 16, 16))
  top, others = selection.count(layout.size, 0.10), selection.count(layout.size, 0.05)
  assert (top, others) == (1254, 627)
  importance = jax.random.uniform(jax.random.key(1), (2, layout.size))
  check(top_and_random(keys(0, 2), importance, top, others), 2, 1881, layout.size)


@pytest.mark.parametrize(
  "n, top, random", [(1568, 156, 78), (3136, 313, 156), (6272, 627, 313), (12544, 1254, 627)]
)
def test_counts_round_as_the_paper_s_table(n, top, random):
  assert (selection.count(n, 0.10), selection.count(n, 0.05)) == (top, random)


def test_a_tube_mask_of_90_percent_leaves_20_of_196():
  assert selection.visible(196, 0.9) == 20


def test_counts_do_not_suffer_from_binary_fractions():
  assert [selection.count(100, i / 100) for i in range(101)] == list(range(101))


def test_frames_keeps_every_seventh_latent_frame():
  layout = Layout((16, 2, 2), (2, 8, 8))
  chosen = check(selection.frames(2, layout, 7), 2, 3 * 4, layout.size)
  assert sorted(set(chosen[0] // 4)) == [0, 7, 14]


def test_everything_is_all():
  assert check(selection.everything(2, 9), 2, 9, 9)[1].tolist() == list(range(9))


@few
@given(SEEDS, st.sampled_from([(1, 20), (36, 36)]))
def test_contains_is_set_membership(seed, sizes):
  chosen, asked = (random(keys(seed + i), N, size) for i, size in enumerate(sizes))
  found = contains(chosen, asked, N)
  expected = [np.isin(a, c) for c, a in zip(np.asarray(chosen), np.asarray(asked), strict=True)]
  np.testing.assert_array_equal(found, expected)


def test_contains_does_not_compare_all_with_all():
  shape = lambda k: jax.ShapeDtypeStruct((1, k), jnp.int32)
  memory = contains.lower(shape(1280), shape(1881), 12544).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 1280 * 1881 / 8  # not even a bit a pair


@few
@given(SEEDS)
def test_scatter_puts_gathered_tokens_back(seed):
  tokens = jnp.asarray(np.random.default_rng(seed).random((3, N, 2), np.float32))
  chosen = random(keys(seed), N, 9)
  back = selection.scatter_tokens(selection.gather_tokens(tokens, chosen), chosen, N)
  kept = contains(chosen, selection.everything(3, N), N)
  np.testing.assert_array_equal(back, jnp.where(kept[:, :, None], tokens, 0))


def test_gather_takes_scalars_a_token_too():
  importance = jnp.asarray([[0.1, 0.9, 0.5]])
  taken = selection.gather_tokens(importance, jnp.asarray([[1, 2]]))
  np.testing.assert_array_equal(taken, jnp.asarray([[0.9, 0.5]]))


@pytest.mark.parametrize(
  "draw",
  [
    lambda rows: random(rows, N, 5),
    lambda rows: tube(rows, LAYOUT, 3),
    lambda rows: top_and_random(rows, jnp.ones((len(rows), N)), 4, 3),
  ],
)
def test_a_row_s_tokens_do_not_depend_on_its_batch(draw):
  np.testing.assert_array_equal(draw(keys(0, rows=4))[2], draw(keys(0, rows=4)[2:3])[0])


def test_no_gradient_reaches_the_importance():
  def total(importance):
    chosen = top_and_random(keys(0), importance, 4, 2)
    return selection.gather_tokens(importance, chosen).sum()

  grad = jax.grad(total)(jnp.arange(3.0 * N).reshape(3, N))
  assert set(np.unique(grad)) == {0.0, 1.0}  # from the gathered values, not from their choice


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: selection.count(10, 1.2), "a share of 1.2"),
    (lambda: random(keys(0), 10, 11), "11 of 10 tokens"),
    (lambda: random(keys(0), 10, 0), "0 of 10 tokens"),
    (lambda: selection.frames(1, LAYOUT, 0), "every 0th"),
  ],
)
def test_what_cannot_be_selected_is_an_error(call, message):
  with pytest.raises(UserError, match=message):
    call()
