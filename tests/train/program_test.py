"""What the step is, read from its lowered text and its shardings, and that no mesh changes it."""

import collections
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.learn import sharding
from vfe.learn.paths import named_leaves
from vfe.learn.step import gradients
from vfe.models.classifier import Classifier
from vfe.models.vivit import EncoderConfig
from vfe.stages.planned import planned
from vfe.train import hlo
from vfe.train.program import program


def operations(stage):
  """How often each operation stands in the program before the compiler sees it."""
  with jax.set_mesh(stage.setting.mesh):
    made = program(stage)
    text = made.step.lower(made.state, made.frozen, made.batch).as_text()
  return collections.Counter(re.findall(r"\b(?:stablehlo|chlo)\.\w+", text))


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_depth_does_not_show_in_the_program(recipe, name):
  """ViT-L has twice the layers of ViT-B and a program of as many operations."""
  mesh = sharding.make_mesh()
  # ViT-L is fine-tuned with another pooling (A.5.3).
  same = {"finetune.pool": "mean", "finetune.token_drop": 0.2, "pretrain.batch": 8}
  base, large = (
    operations(planned(recipe(f"size={size}", same), name, mesh)) for size in ("b", "l")
  )
  assert base == large and sum(base.values()) > 500


@pytest.mark.parametrize("name", ["tokenizer", "pretrain", "finetune"])
def test_state_is_fully_sharded_under_fsdp(recipe, name):
  """Of parameters, averages and the optimiser's state at most 1 % lie whole on every device."""
  made = program(planned(recipe(), name, sharding.make_mesh({"fsdp": 8})))
  whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.state)
              if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended))  # fmt: skip
  everything, one = sharding.describe(made.state, made.layout)
  assert everything == whole
  assert one <= everything * (1 / 8 + 0.01)
  for path, leaf in named_leaves(made.layout).items():
    assert not (leaf.spec and "blocks/" in path and leaf.spec[0]), f"{path}: layers are split"


def test_of_the_tokenizer_devices_send_cut_kernels_and_no_videos(tiny):
  """Of gradients in parts, where the partitioner once cut the videos as the kernels were cut."""
  changes = {
    "accumulate": 2,
    "batch": 16,
    "model.filters": 16,
    "model.multipliers": (1, 1),
    "model.temporal_downsample": (True,),
    "discriminator.filters": 16,
    "discriminator.multipliers": (1,),
  }
  config = tiny({f"tokenizer.{name}": value for name, value in changes.items()})
  mesh = sharding.make_mesh({"fsdp": 8})
  made = program(planned(config, "tokenizer", mesh))
  with jax.set_mesh(mesh):
    sent = hlo.traffic(made.compile().as_text()).collectives
  params = [leaf.size for of in made.state.groups.values() for leaf in jax.tree.leaves(of.params)]
  # Kernels are gathered where they are used, their gradients summed; 70 times as much with videos.
  assert 0 < sum(kind.bytes for kind in sent) < 10 * 4 * sum(params)


def test_the_old_state_is_given_up(recipe):
  stage = planned(recipe("", {"pretrain.batch": 8}), "pretrain", sharding.make_mesh())
  with jax.set_mesh(stage.setting.mesh):
    made = program(stage)
    lowered = made.step.lower(made.state, made.frozen, made.batch)
  given_up = [info.donated for info in jax.tree.leaves(lowered.args_info[0][0])]
  assert all(given_up) and len(given_up) == len(jax.tree.leaves(made.state))


AXES = ("data", "fsdp", "tensor", "context")
ALONE = [{axis: 2} for axis in AXES]
# Each compiles for seconds: those that a suite need not repeat every time run with -m slow.
QUICK = (("data", "tensor"), ("fsdp", "context"), ("tensor", "context"))
PAIRS = [
  pytest.param({a: 2, b: 2}, marks=[] if (a, b) in QUICK else pytest.mark.slow, id=f"{a}-{b}")
  for a, b in itertools.combinations(AXES, 2)
]


def compared(found, expected):
  """Sums in another order, in float32. An entry comes of terms as large as the largest gradient,
  which cancel in attention's keys: a sum that lacks a device's part would be wrong by more."""
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  theirs = named_leaves(expected[1])
  largest = max(float(np.abs(leaf).max()) for leaf in theirs.values())
  for path, leaf in named_leaves(found[1]).items():
    own = float(np.abs(theirs[path]).max())
    atol = 1e-5 * own + 1e-6 * largest
    assert atol < 0.1 * own, f"{path} is too small to be compared"
    np.testing.assert_allclose(leaf, theirs[path], rtol=0, atol=atol, err_msg=path)


@pytest.fixture(scope="module")
def gradient(tiny_pixels):
  """Loss and gradients of the tiny pre-training stage on a mesh, from the same parameters and
  batch on each."""
  config, rng = tiny_pixels({"pretrain.batch": 4}), jax.random.key(0)
  single = planned(config, "pretrain", sharding.make_mesh({"data": 1}, jax.devices()[:1]))
  params = jax.tree.map(np.asarray, jax.jit(single.init)(rng)["model"])
  clip = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), single.batch_shapes()["clip"])
  clip["video"] = np.random.default_rng(0).integers(0, 256, clip["video"].shape, np.uint8)
  clip |= {"valid": np.ones(4, bool), "row": np.arange(4, dtype=np.int32)}

  def on(sizes):
    devices = jax.devices()[: int(np.prod(list(sizes.values())))]
    stage = planned(config, "pretrain", sharding.make_mesh(sizes, devices))
    mesh = stage.setting.mesh
    loss = lambda params, extra, part: stage.loss(params, {}, extra, part, rng)
    with jax.set_mesh(mesh):
      put = jax.device_put(params, sharding.shardings(params, mesh))
      batch = jax.device_put({"clip": clip}, sharding.batch_sharding(mesh))
      found = jax.jit(lambda params, batch: gradients(loss, params, {}, batch))(put, batch)
    return float(found.loss), jax.tree.map(np.asarray, found.grads)

  return on


def test_all_axes_together_leave_a_recipes_loss_and_gradients_as_they_are(gradient):
  compared(gradient({"fsdp": 2, "tensor": 2, "context": 2}), gradient({"data": 1}))


@pytest.fixture(scope="module")
def small():
  """The same of a small classifier, which compiles quickly: 24 tokens, width 16, two heads."""
  encoder = EncoderConfig(4, 16, (2, 8, 4), width=16, depth=2, heads=2, mlp=32)
  model = Classifier(encoder, {"verb": 6})
  patches = jax.random.normal(jax.random.key(0), (4, 16, encoder.layout.channels))
  tokens = jnp.broadcast_to(jnp.arange(16), (4, 16))
  params = jax.jit(model.init)(jax.random.key(1), patches, tokens)["params"]
  params["head_verb"]["kernel"] = jax.random.normal(jax.random.key(2), (16, 6))  # it starts near 0
  params = jax.tree.map(np.asarray, params)

  def on(sizes):
    devices = jax.devices()[: int(np.prod(list(sizes.values())))]
    mesh = sharding.make_mesh(sizes, devices)
    logits = lambda params, x: model.apply({"params": params}, x, tokens)["verb"]
    loss = lambda params, x: -jnp.sum(jax.nn.log_softmax(logits(params, x))[:, 0])
    with jax.set_mesh(mesh):
      put = jax.device_put(params, sharding.shardings(params, mesh))
      rows = jax.device_put(patches, sharding.batch_sharding(mesh))
      found = jax.jit(jax.value_and_grad(loss))(put, rows)
    return jax.tree.map(np.asarray, found)

  return on


@pytest.fixture(scope="module")
def alone(small):
  return small({"data": 1})


@pytest.mark.parametrize("sizes", [*ALONE, *PAIRS])
def test_no_axis_and_no_pair_of_axes_changes_loss_or_gradients(sizes, small, alone):
  compared(small(sizes), alone)
