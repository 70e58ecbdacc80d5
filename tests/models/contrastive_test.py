"""The contrastive losses: their values, what is left out of them, and the same on every mesh."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.learn import sharding
from vfe.learn.step import cached_gradients
from vfe.models import contrastive

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "contrastive.npz"
LOSSES = {
  "info_nce": functools.partial(contrastive.info_nce, smoothing=0.1),
  "sigmoid": functools.partial(contrastive.sigmoid_loss, bias=jnp.float32(-3.0)),
}
PAIRS, WIDTH = 16, 8


def pairs(seed=0, rows=PAIRS):
  """Texts that resemble their videos, so that some are hits and some are not."""
  rng = np.random.default_rng(seed)
  video = rng.normal(size=(rows, WIDTH))
  text = video + rng.normal(size=(rows, WIDTH))
  return np.float32(3 * video), np.float32(text)


def by_hand(video, text, scale, smoothing, valid):
  """(sum, weight, video's hits, text's hits) in float64, row by row, without what is not valid."""
  unit = [rows / np.sqrt((rows**2).sum(1, keepdims=True)) for rows in (video[valid], text[valid])]
  logits = scale * np.float64(unit[0]) @ np.float64(unit[1]).T
  count, total, hits = len(logits), 0.0, []
  for table in (logits, logits.T):
    hits.append(0)
    for i, row in enumerate(table):
      target = np.full(count, smoothing / count)
      target[i] += 1 - smoothing
      probability = np.exp(row - row.max())
      total -= 0.5 * target @ np.log(probability / probability.sum())
      hits[-1] += all(row[i] > other for j, other in enumerate(row) if j != i)
  return total, count, *hits


def by_hand_sigmoid(video, text, scale, bias, valid):
  """The sum in float64, pair by pair."""
  total = 0.0
  for i in np.flatnonzero(valid):
    for j in np.flatnonzero(valid):
      a, b = np.float64(video[i]), np.float64(text[j])
      logit = scale * (a @ b) / np.sqrt((a @ a) * (b @ b)) + bias
      total += np.log1p(np.exp(-logit if i == j else logit))
  return total


def with_gradients(loss, **more):
  """(video, text, scale) -> ((mean, all that the loss gives), gradients)"""

  def mean(video, text, scale):
    found = loss(video, text, scale, **more)
    return found[0] / found[1], found

  return jax.value_and_grad(mean, (0, 1, 2), has_aux=True)


@jax.jit
def both(video, text, scale, valid):
  """Every loss with its gradients, compiled once for the rows of these tests."""
  return {
    name: with_gradients(loss, valid=valid)(video, text, scale) for name, loss in LOSSES.items()
  }


def close(found, expected, tolerance=2e-6):
  """Float32's rounding of sums of PAIRS terms, relative to the largest."""
  scale = max(np.abs(expected).max(), 1e-3)
  np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_transformers_loss_of_clip(smoothing):
  golden = np.load(GOLDEN)
  found = jax.jit(with_gradients(contrastive.info_nce, smoothing=smoothing))
  (loss, _), gradients = found(*(golden[name] for name in ("video", "text", "scale")))
  close(loss, golden[f"loss_{smoothing}"])
  for name, gradient in zip(("video", "text", "scale"), gradients, strict=True):
    close(gradient, golden[f"{name}_gradient_{smoothing}"])


@settings(max_examples=15, deadline=None)
@given(
  seed=st.integers(0, 999),
  scale=st.floats(0.5, 100, width=32),
  valid=st.lists(st.booleans(), min_size=PAIRS, max_size=PAIRS).filter(any),
)
def test_losses_are_those_by_hand(seed, scale, valid):
  (video, text), valid = pairs(seed), np.array(valid)
  found = both(video, text, jnp.float32(scale), valid)
  total, weight, to_text, to_video = by_hand(video, text, scale, 0.1, valid)
  for name, expected in (
    ("info_nce", total), ("sigmoid", by_hand_sigmoid(video, text, scale, -3.0, valid))
  ):  # fmt: skip
    (_, (found_sum, found_weight, metrics)), _ = found[name]
    # A logit is scale times a product of unit rows, each rounded.
    np.testing.assert_allclose(found_sum, expected, rtol=1e-5, atol=3e-6 * scale * weight)
    assert found_weight == weight
    assert metrics["top1/video_to_text"] == (to_text, weight)
    assert metrics["top1/text_to_video"] == (to_video, weight)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_that_are_not_valid_change_nothing_and_get_no_gradient(name):
  video, text = pairs()
  valid = np.arange(PAIRS) % 3 > 0
  other = [np.where(valid[:, None], rows, fill) for rows, fill in ((video, 0.0), (text, np.nan))]
  one, two = (both(*rows, jnp.float32(20), valid)[name] for rows in ((video, text), other))
  assert float(one[0][0]) == float(two[0][0])
  for a, b in zip(one[1], two[1], strict=True):
    np.testing.assert_array_equal(a, b)
  assert not np.any(one[1][0][~valid]) and not np.any(one[1][1][~valid])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("left", [1, 0])
def test_a_batch_of_which_one_row_or_none_is_left_is_finite(name, left):
  video, text = pairs()
  video[3:] = 0.0
  (loss, (total, weight, _)), gradients = both(
    video, text, jnp.float32(100), np.arange(PAIRS) < left
  )[name]
  assert weight == left and np.isfinite(total)
  assert left or total == 0.0
  if left:
    assert all(np.isfinite(leaf).all() for leaf in (loss, *gradients))
    assert name != "info_nce" or abs(total) < 1e-4  # nothing to be told from


@pytest.mark.parametrize("name", LOSSES)
def test_sides_and_rows_can_be_exchanged(name):
  video, text = pairs()
  given = jnp.float32(20), np.ones(PAIRS, bool)
  order = np.random.default_rng(1).permutation(PAIRS)
  (loss, (*_, metrics)), (to_video, to_text, to_scale) = both(video, text, *given)[name]
  (turned, (*_, other)), (back_text, back_video, _) = both(text, video, *given)[name]
  close(turned, loss)
  close(back_video, to_video)
  close(back_text, to_text)
  assert metrics["top1/video_to_text"] == other["top1/text_to_video"]
  (moved, _), gradients = both(video[order], text[order], *given)[name]
  close(moved, loss)
  close(gradients[0], to_video[order])
  close(gradients[2], to_scale)


def test_equal_embeddings_hit_nothing():
  rows = np.ones((PAIRS, WIDTH), np.float32)
  (loss, (*_, metrics)), gradients = both(rows, rows, jnp.float32(20), np.ones(PAIRS, bool))[
    "info_nce"
  ]
  close(loss, np.log(PAIRS))
  assert {name: hits for name, (hits, _) in metrics.items()} == {
    "top1/video_to_text": 0, "top1/text_to_video": 0,
  }  # fmt: skip
  assert all(np.isfinite(leaf).all() for leaf in gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_embeddings_are_taken_as_they_are_and_computed_on_in_float32(name):
  given = [jnp.asarray(rows, jnp.bfloat16) for rows in pairs()]
  rest = jnp.float32(50), np.ones(PAIRS, bool)
  (loss, _), gradients = both(*given, *rest)[name]
  (exact, _), expected = both(*(rows.astype(jnp.float32) for rows in given), *rest)[name]
  assert loss.dtype == jnp.float32 and float(loss) == float(exact)
  assert gradients[0].dtype == jnp.bfloat16
  close(np.float32(gradients[0]), expected[0], 2**-8)


@pytest.mark.parametrize(
  "sizes",
  [{"data": -1}, {"data": 2, "fsdp": -1}, {"fsdp": 4, "tensor": 2}],
  ids=["data", "data_fsdp", "fsdp_tensor"],
)
def test_on_eight_devices_loss_and_gradients_are_those_of_one(sizes):
  mesh = sharding.make_mesh(sizes)
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  video, text = pairs()
  valid = np.arange(PAIRS) != 5
  expected = both(video, text, jnp.float32(20), valid)
  laid = [jax.device_put(leaf, rows) for leaf in (video, text)]
  found = both(*laid, jax.device_put(jnp.float32(20), whole), jax.device_put(valid, rows))
  jax.tree.map(close, found, expected)


def test_the_embedding_cache_gives_the_whole_batchs_gradient():
  video, text = pairs()
  batch = {"video": video, "text": text, "valid": jnp.arange(PAIRS) < 13}
  params = {
    "video": jnp.eye(WIDTH),
    "text": jnp.eye(WIDTH)[::-1],
    "log_scale": jnp.float32(contrastive.INITIAL["info_nce"]["log_scale"]),
  }

  def embed(params, part):
    return {name: jnp.tanh(part[name] @ params[name]) for name in ("video", "text")}

  def loss(params, made, extra, batch):
    scale = contrastive.scale_of(params["log_scale"])
    return *contrastive.info_nce(**made, scale=scale, valid=batch["valid"]), extra

  def whole(params):
    total, weight, *_ = loss(params, embed(params, batch), {}, batch)
    return total / weight

  expected, gradients = jax.jit(jax.value_and_grad(whole))(params)
  found = jax.jit(lambda p: cached_gradients(embed, loss, p, {}, batch, parts=4))(params)
  close(found.loss, expected)
  jax.tree.map(close, found.grads, gradients)


def test_the_scale_starts_where_the_papers_do_and_is_bounded():
  start = lambda name: contrastive.scale_of(jnp.float32(contrastive.INITIAL[name]["log_scale"]))
  assert start("info_nce") == pytest.approx(1 / 0.07, rel=1e-6)
  assert start("sigmoid") == pytest.approx(10, rel=1e-6)
  assert contrastive.INITIAL["sigmoid"]["bias"] == -10
  assert contrastive.scale_of(jnp.float32(50.0)) == 100


@pytest.mark.parametrize("log_scale", [2.0, 4.7, 9.0])
def test_at_its_bound_the_scale_can_only_come_down(log_scale):
  bounded = log_scale > np.log(100)
  up = jax.grad(lambda s: -contrastive.scale_of(s))(jnp.float32(log_scale))
  down = jax.grad(contrastive.scale_of)(jnp.float32(log_scale))
  assert (up == 0) == bounded and down == pytest.approx(min(np.exp(log_scale), 100), rel=1e-5)
