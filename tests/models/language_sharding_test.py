"""A language model over the axes of a mesh is the language model of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.learn import sharding
from vfe.learn.paths import named_leaves
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.nn.causal import ALL
from vfe.nn.decoder import GroupedAttention, Layer, in_order
from vfe.train import hlo

CONFIG = LanguageConfig.of("test", 24, depth=2, windows=(0, 3), tied=False, qk_norm=True)
IDS = np.random.default_rng(0).integers(0, 24, (4, 7)).astype(np.int32)
MASK = np.arange(7) < np.asarray([7, 5, 7, 2])[:, None]


def shapes(config=CONFIG):
  return jax.eval_shape(LanguageModel(config).init, jax.random.key(0), IDS, MASK)["params"]


@pytest.fixture(scope="module")
def params():
  random = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: random.normal(scale=0.3, size=leaf.shape).astype(np.float32), shapes()
  )


def on(sizes, params):
  """(loss, gradients, logits) on a mesh."""
  devices = jax.devices()[: int(np.prod(list(sizes.values())))]
  mesh = sharding.make_mesh(sizes, devices)

  def loss(params, ids, mask):
    logits = LanguageModel(CONFIG).apply({"params": params}, ids, mask)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), ids[:, 1:, None], axis=2)
    return -jnp.sum(logp[:, :, 0] * mask[:, 1:]), jnp.where(mask[:, :, None], logits, 0.0)

  with jax.set_mesh(mesh):
    layout = sharding.shardings(params, mesh)
    put = jax.device_put(params, layout)
    rows = jax.device_put((IDS, MASK), sharding.batch_sharding(mesh))
    step = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=(None, layout))
    (total, logits), grads = jax.tree.map(np.asarray, step(put, *rows))
  return total, named_leaves(grads), logits


@pytest.fixture(scope="module")
def alone(params):
  return on({"data": 1}, params)


@pytest.mark.parametrize(
  "sizes", [{"tensor": 2}, {"fsdp": 2, "tensor": 4}], ids=lambda s: "x".join(s)
)
def test_no_axis_changes_logits_loss_or_gradients(sizes, params, alone):
  """On tensor=4 two heads share each of two keys: more devices than keys."""
  loss, grads, logits = on(sizes, params)
  assert loss == pytest.approx(alone[0], rel=1e-6)
  np.testing.assert_allclose(logits, alone[2], rtol=0, atol=1e-5 * np.abs(alone[2]).max())
  assert grads.keys() == alone[1].keys()
  for name, leaf in alone[1].items():
    atol = 1e-5 * np.abs(leaf).max()
    np.testing.assert_allclose(grads[name], leaf, rtol=0, atol=atol, err_msg=name)


def specs(sizes, **changes):
  devices = jax.devices()[: int(np.prod(list(sizes.values())))]
  config = dataclasses.replace(CONFIG, **changes)
  made = sharding.shardings(shapes(config), sharding.make_mesh(sizes, devices))
  return {name: tuple(leaf.spec) for name, leaf in named_leaves(made).items()}


def test_words_lie_over_tensor_and_their_width_over_fsdp():
  made = specs({"fsdp": 2, "tensor": 2})
  assert made["word/embedding"] == made["head"] == ("tensor", "fsdp")
  assert made["blocks/mlp/gate/kernel"] == made["blocks/mlp/up/kernel"] == (None, "fsdp", "tensor")
  assert made["blocks/attention/key/kernel"] == (None, "fsdp", "tensor")
  assert made["blocks/attention/query_norm/scale"] == (None, "fsdp")


def test_what_tensor_does_not_divide_is_whole_or_left_to_fsdp():
  """25 words, and one key of 6 numbers for all heads."""
  made = specs({"fsdp": 2, "tensor": 4}, vocabulary=25, groups=1, head_dim=6)
  assert made["word/embedding"] == (None, "fsdp")
  assert made["blocks/attention/value/kernel"] == (None, "fsdp", None)
  assert made["blocks/attention/query/kernel"] == (None, "fsdp", "tensor")


def test_without_tensor_fsdp_takes_the_largest_dimension_of_the_words():
  assert specs({"fsdp": 2}, vocabulary=64)["word/embedding"] == ("fsdp", None)


def test_heads_that_do_not_divide_over_tensor_are_gathered_and_not_cut():
  """Two keys over four devices: no piece of a head is sent from one to another."""
  mesh = sharding.make_mesh({"tensor": 4}, jax.devices()[:4])
  attention = GroupedAttention(4, 2, 8, 1.0, 1e-6, False, True, 0.0, "float32")
  tokens, where = jnp.zeros((2, 6, 32)), in_order(2, 6)
  inputs = (tokens, where, Layer(ALL, jnp.ones(4)))
  params = {"attention": jax.eval_shape(attention.init, jax.random.key(0), *inputs)["params"]}
  places = sharding.shardings(params, mesh)
  kinds = {name: tuple(leaf.spec) for name, leaf in named_leaves(places).items()}
  assert kinds["attention/key/kernel"] == kinds["attention/query/kernel"] == (None, "tensor")
  with jax.set_mesh(mesh):
    put = jax.tree.map(lambda leaf, to: jnp.zeros(leaf.shape, device=to), params, places)
    run = jax.jit(lambda of: attention.apply({"params": of["attention"]}, *inputs)[0])
    sent = hlo.traffic(run.lower(put).compile().as_text()).collectives
  assert {one.kind for one in sent} == {"all-gather", "all-reduce"}
