"""gradients and apply: accumulation, clipping, the guard, the average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vfe.learn import state as states
from vfe.learn.step import Update, apply, cached_gradients, gradients

ROWS = 8


def loss(params, extra, batch):
  """Rows of unequal weight, so that dividing too early would show."""
  error = jnp.square(batch["x"] @ params["w"] - batch["y"]) * batch["weight"]
  weight = jnp.sum(batch["weight"])
  metrics = {"mean_x": (jnp.sum(batch["x"][:, 0]), jnp.float32(len(batch["x"])))}
  return jnp.sum(error), weight, metrics, {"rows": extra["rows"] + len(batch["x"])}


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(ROWS, 3)), rng.normal(size=ROWS)
  weight = np.arange(1, ROWS + 1)
  return {k: jnp.asarray(v, jnp.float32) for k, v in dict(x=x, y=y, weight=weight).items()}


@pytest.fixture(scope="module")
def params():
  return {"w": jnp.asarray([0.1, -0.2, 0.3], jnp.float32)}


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_does_not_change_a_normalised_loss(batch, params, accumulate):
  extra = {"rows": jnp.int32(0)}
  whole = gradients(loss, params, extra, batch, accumulate=1)
  parts = gradients(loss, params, extra, batch, accumulate=accumulate)
  np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-6)
  np.testing.assert_allclose(parts.grads["w"], whole.grads["w"], rtol=2e-6, atol=1e-7)
  mean = lambda found: found.metrics["mean_x"][0] / found.metrics["mean_x"][1]
  np.testing.assert_allclose(mean(parts), mean(whole), rtol=1e-6)
  assert int(parts.extra["rows"]) == ROWS


def test_the_gradient_is_that_of_the_weighted_mean(batch, params):
  found = gradients(loss, params, {"rows": jnp.int32(0)}, batch)
  mean = lambda p: loss(p, {"rows": 0}, batch)[0] / jnp.sum(batch["weight"])
  np.testing.assert_allclose(found.grads["w"], jax.grad(mean)(params)["w"], rtol=1e-6)


def contrastive_batch():
  rng = np.random.default_rng(1)
  draw = lambda: jnp.asarray(rng.normal(size=(ROWS, 5)), jnp.float32)
  return {"video": draw(), "text": draw()}


def embed(params, part):
  """Two towers with a hidden layer, rows of length 1."""

  def tower(name):
    rows = jnp.tanh(part[name] @ params[name]) @ params["shared"]
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)

  return {name: tower(name) for name in ("video", "text")}


def info_nce(params, embeddings, extra, batch):
  """Every row is a negative of every other, so a part of the batch alone has another loss."""
  logits = embeddings["video"] @ embeddings["text"].T * jnp.exp(params["temperature"])
  rows = -jnp.diag(jax.nn.log_softmax(logits, 0) + jax.nn.log_softmax(logits, 1))
  weight = jnp.float32(len(rows))
  return jnp.sum(rows), weight, {"loss": (jnp.sum(rows), weight)}, {"seen": extra["seen"] + weight}


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_cached_embeddings_give_the_gradient_of_the_whole_contrastive_batch(parts):
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    "video": jax.random.normal(keys[0], (5, 7)),
    "text": jax.random.normal(keys[1], (5, 7)),
    "shared": jax.random.normal(keys[2], (7, 4)),
    "temperature": jnp.float32(1.0),
  }
  batch, extra = contrastive_batch(), {"seen": jnp.float32(0)}
  whole = jax.value_and_grad(
    lambda p: info_nce(p, embed(p, batch), extra, batch)[0] / ROWS
  )  # of JAX, on the whole batch at once
  found = jax.jit(
    lambda p: cached_gradients(embed, info_nce, p, extra, batch, parts=parts)
  )(params)
  loss, grads = whole(params)
  np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
  for name, leaf in grads.items():
    np.testing.assert_allclose(found.grads[name], leaf, rtol=1e-5, atol=1e-6, err_msg=name)
  assert float(found.extra["seen"]) == ROWS


def test_accumulation_would_change_a_contrastive_loss():
  """So that the test above could fail."""
  batch = contrastive_batch()
  params = {"video": jnp.ones((5, 7)), "text": jnp.eye(5, 7), "shared": jnp.eye(7, 4)}
  params["temperature"] = jnp.float32(1.0)
  loss = lambda params, extra, part: info_nce(params, embed(params, part), extra, part)
  one, two = (
    gradients(loss, params, {"seen": jnp.float32(0)}, batch, accumulate=n).loss for n in (1, 2)
  )
  assert abs(one - two) > 0.1


def update(**changes):
  made = dict(optimizer=optax.sgd(1.0), schedule=lambda step: 1.0, clip_norm=0.0, ema=0.0)
  return Update(**(made | changes))


def fresh(params, averaged=()):
  return states.create({"model": params}, {"model": optax.sgd(1.0, momentum=0.9)}, averaged)


def test_gradients_are_clipped_to_the_norm_and_the_norm_logged_is_before(params):
  grads = {"w": jnp.asarray([3.0, 4.0, 0.0])}
  kind = update(optimizer=optax.sgd(1.0, momentum=0.9), clip_norm=1.0)
  state, metrics = apply(fresh(params), "model", grads, jnp.float32(1), kind)
  moved = state.groups["model"].params["w"] - params["w"]
  np.testing.assert_allclose(moved, [-0.6, -0.8, 0.0], rtol=1e-6)
  assert metrics["norm/model_gradient"] == (5.0, 1.0)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_noted(params, what):
  bad = jnp.float32(jnp.nan)
  kind = update(optimizer=optax.sgd(1.0, momentum=0.9), ema=0.5)
  state = fresh(params, averaged=("model",)).replace(step=jnp.int32(7))
  grads = {"w": jnp.ones(3) * (bad if what == "gradient" else 1.0)}
  after, _ = apply(state, "model", grads, bad if what == "loss" else jnp.float32(2), kind)
  for name in ("groups", "ema"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(after, name), getattr(state, name)
    )
  assert (int(after.guard.skipped), int(after.guard.step)) == (1, 7)
  assert np.isnan(after.guard.loss if what == "loss" else after.guard.norm)


def test_the_guard_counts_steps_in_a_row_over_both_groups_of_a_gan(params):
  state = states.create(
    {"a": params, "b": params}, {"a": optax.sgd(1.0), "b": optax.sgd(1.0)}
  )
  good, bad = jnp.float32(1), jnp.float32(jnp.inf)
  grads = {"w": jnp.ones(3)}

  def step(state, loss_a, loss_b):
    state, _ = apply(state, "a", grads, loss_a, update())
    state, _ = apply(state, "b", grads, loss_b, update())
    return state.replace(step=state.step + 1)

  for losses in [(good, bad), (bad, bad), (good, bad)]:
    state = step(state, *losses)
  assert (int(state.guard.skipped), int(state.guard.in_a_row)) == (3, 3)
  state = step(step(state, good, good), bad, good)
  assert (int(state.guard.skipped), int(state.guard.in_a_row)) == (4, 1)


def test_the_average_follows_the_parameters(params):
  state = fresh(params, averaged=("model",))
  kind = update(optimizer=optax.sgd(1.0, momentum=0.9), ema=0.9)
  after, _ = apply(state, "model", {"w": jnp.ones(3)}, jnp.float32(0), kind)
  expected = 0.9 * params["w"] + 0.1 * after.groups["model"].params["w"]
  np.testing.assert_allclose(after.averaged()["w"], expected, rtol=1e-6)
