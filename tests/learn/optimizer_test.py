import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from vfe.errors import UserError
from vfe.learn import optimizer
from vfe.learn.paths import named_leaves
from vfe.learn.trained import Trained
from vfe.models.classifier import Classifier
from vfe.models.vivit import EncoderConfig

LAYERS = 3
BASE = dict(base_lr=1e-3, weight_decay=0.0, schedule="constant", b2=0.999)


def classifier():
  """The names and ranks of a small classifier, in the canonical layout."""
  ones = lambda *shape: jnp.ones(shape, jnp.float32)
  return {
    "encoder": {
      "embed": {"kernel": ones(6, 4), "bias": ones(4)},
      "positions": {"embedding": ones(5, 4)},
      "blocks": {
        "mlp": {"up": {"kernel": ones(LAYERS, 4, 8), "bias": ones(LAYERS, 8)}},
        "attention_norm": {"scale": ones(LAYERS, 4)},
      },
      "norm": {"scale": ones(4)},
    },
    "mask_token": ones(4),
    "head": {"kernel": ones(4, 2), "bias": ones(2)},
  }


def updates_of(config, params, steps=10, batch=256):
  made, schedule = optimizer.make_optimizer(config, params, steps=steps, batch=batch)
  grads = jax.tree.map(jnp.ones_like, params)
  updates, state = made.update(grads, made.init(params), params)
  return named_leaves(updates), state, schedule


def test_the_rate_follows_the_batch():
  config = dict(base_lr=1.5e-4, end_lr=1e-5, warmup=0.025, schedule="cosine")
  schedule = optimizer.resolve(config, steps=1600, batch=2048)
  assert dataclasses.asdict(schedule) == dict(
    kind="cosine", lr=1.5e-4 * 8, end_lr=1e-5 * 8, warmup_steps=40, steps=1600, batch=2048
  )


def test_schedule_warms_up_to_the_peak_and_ends_at_the_end_rate():
  config = dict(base_lr=1.0, end_lr=0.1, warmup=0.2, schedule="cosine")
  schedule = optimizer.resolve(config, steps=20, batch=256)
  rates = np.array([schedule(step) for step in range(21)])
  np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)
  np.testing.assert_allclose(rates[12], 0.55, rtol=1e-6)  # half way, in the mean of both
  np.testing.assert_allclose(rates[20], 0.1, rtol=1e-6)
  assert all(np.diff(rates[4:]) < 0)


@pytest.mark.parametrize(("kind", "middle", "last"), [("linear", 0.5, 0.0), ("constant", 1.0, 1.0)])
def test_other_schedules(kind, middle, last):
  schedule = optimizer.resolve(dict(base_lr=1.0, schedule=kind), steps=10, batch=256)
  np.testing.assert_allclose([schedule(5), schedule(10)], [middle, last], atol=1e-7)


def test_adamw_is_optax_adamw():
  params = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
  config = ml_collections.ConfigDict(dict(BASE, weight_decay=0.1))
  updates, _, _ = updates_of(config, params)
  reference = optax.adamw(1e-3, b1=0.9, b2=0.999, weight_decay=0.1)
  expected, _ = reference.update(
    jax.tree.map(jnp.ones_like, params), reference.init(params), params
  )
  np.testing.assert_allclose(updates["a/kernel"], expected["a"]["kernel"], rtol=1e-6)


def test_only_matrices_decay_whatever_their_rank():
  mask = named_leaves(optimizer.decayed(classifier()))
  assert {name for name, wanted in mask.items() if wanted} == {
    "encoder/embed/kernel", "encoder/blocks/mlp/up/kernel", "head/kernel"
  }  # fmt: skip


def test_layer_decay_scales_each_layer_of_a_stacked_leaf():
  updates, _, _ = updates_of(dict(BASE, layer_decay=0.5), classifier())
  rate = lambda name: -np.asarray(updates[name]) / 1e-3
  for name in ("encoder/embed/kernel", "encoder/positions/embedding"):
    np.testing.assert_allclose(rate(name), 0.5**4, rtol=1e-5)
  for name in ("encoder/blocks/mlp/up/kernel", "encoder/blocks/mlp/up/bias"):
    for layer in range(LAYERS):
      np.testing.assert_allclose(rate(name)[layer], 0.5 ** (3 - layer), rtol=1e-5)
  for name in ("encoder/norm/scale", "head/kernel"):
    np.testing.assert_allclose(rate(name), 1.0, rtol=1e-5)


def test_the_rules_fit_the_names_of_the_real_classifier():
  config = EncoderConfig.of("test", frames=4, size=32)
  model = Classifier(config, {"verb": 3}, pool="attentive")
  patches, chosen = jnp.zeros((1, 2, config.layout.channels), jnp.uint8), jnp.zeros((1, 2), int)
  params = jax.eval_shape(model.init, jax.random.key(0), patches, chosen)["params"]
  scales = {name: optimizer.layer_scales(name, 3, 0.5) for name in named_leaves(params)}
  by_rule = {
    "encoder/embed/": 0.0625,
    "encoder/blocks/": [0.125, 0.25, 0.5],
    "encoder/norm/": 1,
    "pool/": 1,
    "head_verb/": 1,
  }
  for name, scale in scales.items():
    expected = [value for start, value in by_rule.items() if name.startswith(start)]
    np.testing.assert_allclose(scale, expected[0], rtol=1e-6, err_msg=name)
  decayed = named_leaves(optimizer.decayed(params))
  assert {name.rsplit("/")[-1] for name, wanted in decayed.items() if wanted} == {"kernel"}
  assert not decayed["pool/token"]
  optimizer.make_optimizer(dict(BASE, layer_decay=0.5), params, steps=2, batch=2)


def test_layer_decay_scales_the_weight_decay_too():
  config = dict(BASE, layer_decay=0.5, weight_decay=0.1)
  updates, _, _ = updates_of(config, classifier())
  np.testing.assert_allclose(updates["encoder/embed/kernel"], -1e-3 * (1 + 0.1) * 0.5**4, rtol=1e-5)


def test_layer_decay_is_of_the_layers_that_are_trained():
  """The optimiser is made for all parameters and given the last two layers of three."""
  params = classifier()
  made, _ = optimizer.make_optimizer(dict(BASE, layer_decay=0.5), params, steps=10, batch=256)
  part = Trained("blocks|head", first=1).of(params)
  updates, _ = made.update(part, made.init(part), part)
  np.testing.assert_allclose(
    named_leaves(updates)["encoder/blocks/attention_norm/scale"],
    -1e-3 * np.array([0.25, 0.5])[:, None] * np.ones((1, 4)),
    rtol=1e-5,
  )


def test_shapes_do_as_well_as_parameters():
  shapes = jax.eval_shape(classifier)
  made, _ = optimizer.make_optimizer(dict(BASE, layer_decay=0.7), shapes, steps=2, batch=4)
  assert jax.eval_shape(made.init, shapes)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (dict(kind="adamm"), "optimizer.kind='adamm' is unknown (nearest: adam"),
    (dict(schedule="step"), "optimizer.schedule='step' is unknown (choose one of constant"),
    (dict(base_rl=1.0), "optimizer.base_rl is not a key of an optimiser (nearest: base_lr)"),
    (dict(warmup=5), r"optimizer.warmup=5 must be in [0, 1)"),
    (dict(weight_decay=-1.0), "optimizer.weight_decay=-1.0 must be at least 0"),
    (dict(kind="adam"), "optimizer.weight_decay=0.05 has no effect with optimizer.kind=adam"),
  ],
)
def test_bad_values_are_named(config, message):
  with pytest.raises(UserError) as caught:
    optimizer.make_optimizer(config, classifier(), steps=10, batch=8)
  assert message in str(caught.value) and "\n" not in str(caught.value)
