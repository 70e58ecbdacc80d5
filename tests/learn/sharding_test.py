import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from vfe.errors import UserError
from vfe.learn import sharding
from vfe.learn.paths import named_leaves

SHAPES = {
  "blocks": {"mlp": {"kernel": (8, 4, 16), "bias": (8, 16)}, "norm": {"scale": (8, 5)}},
  "head": {"kernel": (16, 6), "bias": (6,)},
}


def shapes():
  is_shape = lambda x: isinstance(x, tuple)
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), SHAPES, is_leaf=is_shape)


def specs(sizes, rules=()):
  made = sharding.shardings(shapes(), sharding.make_mesh(sizes), rules)
  return {name: tuple(leaf.spec) for name, leaf in named_leaves(made).items()}


@pytest.mark.parametrize(
  ("sizes", "shape"),
  [
    (None, (8, 1, 1, 1)),
    ({"data": -1, "fsdp": 2}, (4, 2, 1, 1)),
    ({"fsdp": -1}, (1, 8, 1, 1)),
    ({"data": 2, "fsdp": 1, "tensor": 2, "context": 2}, (2, 1, 2, 2)),
  ],
)
def test_mesh_sizes(sizes, shape):
  mesh = sharding.make_mesh(sizes)
  assert tuple(mesh.shape.values()) == shape and mesh.axis_names == sharding.AXES
  assert set(mesh.axis_types) == {AxisType.Auto}


def test_mesh_on_some_devices():
  assert sharding.make_mesh({"data": -1}, jax.devices()[:3]).shape["data"] == 3


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"data": -1, "fsdp": 3}, "does not fit 8 devices; use sizes that divide it."),
    ({"data": 2, "fsdp": 2}, "does not fit 8 devices; use -1 for one of them."),
    ({"data": -1, "fsdp": -1}, "-1 for at most one axis."),
    ({"data": 0}, "sizes are positive"),
    ({"fdsp": 2}, "mesh.fdsp is not an axis of the mesh (nearest: fsdp)."),
  ],
)
def test_mesh_errors(sizes, message):
  with pytest.raises(UserError) as caught:
    sharding.make_mesh(sizes)
  assert message in str(caught.value)


def test_default_is_fsdp_on_the_largest_divisible_dimension_but_never_the_layers():
  assert specs({"fsdp": 8}) == {
    "blocks/mlp/kernel": (None, None, "fsdp"),
    "blocks/mlp/bias": (None, "fsdp"),
    "blocks/norm/scale": (None, None),  # 5 does not divide, the 8 layers are not split
    "head/kernel": ("fsdp", None),
    "head/bias": (None,),
  }
  assert set(specs({"data": -1})["head/kernel"]) == {None}


def test_rules_come_first_and_fsdp_takes_what_is_free():
  rules = [("mlp/kernel$", (None, "tensor")), ("^head/", "replicated")]
  made = specs({"data": 1, "fsdp": 4, "tensor": 2}, rules)
  assert made["blocks/mlp/kernel"] == (None, "fsdp", "tensor")
  assert made["blocks/mlp/bias"] == (None, "fsdp")
  assert made["head/kernel"] == ()


def test_rules_that_agree_do_not_collide():
  rules = [("mlp/kernel$", (None, "tensor")), ("blocks/mlp/k", [None, "tensor"])]
  assert specs({"tensor": 8}, rules)["blocks/mlp/kernel"] == (None, None, "tensor")


def test_an_axis_with_a_question_mark_is_used_where_it_divides():
  rules = [("bias$", ("tensor?",)), ("head/kernel", ("tensor?", None))]
  made = specs({"data": 1, "fsdp": 2, "tensor": 4}, rules)
  assert made["blocks/mlp/bias"] == (None, "tensor")
  assert made["head/bias"] == ("fsdp",)  # 6 over 4 devices
  assert made["head/kernel"] == ("tensor", "fsdp")
  alone = specs({"fsdp": 8}, rules)
  assert alone["head/kernel"] == ("fsdp", None) and alone["blocks/mlp/bias"] == (None, "fsdp")


def test_biases_of_relative_positions_lie_with_their_heads():
  table = {"vision": {"blocks": {"relative": jax.ShapeDtypeStruct((3, 20, 4), jnp.float32)}}}
  lies = lambda sizes: sharding.shardings(table, sharding.make_mesh(sizes))["vision"]["blocks"]
  assert lies({"fsdp": 4, "tensor": 2})["relative"].spec == PartitionSpec(None, "fsdp", "tensor")
  assert lies({"tensor": 8})["relative"].spec == PartitionSpec(None, None, None)


@pytest.mark.parametrize(
  ("rules", "message"),
  [
    (
      [("mlp/kernel", (None, "tensor")), ("blocks", "replicated")],
      "rules disagree on blocks/mlp/k",
    ),
    ([("head/kernel", (None, "tensor"))], "6 does not divide over tensor=4"),
    ([("head/bias", (None, "tensor"))], "is not 'replicated' nor, for each of its dimensions"),
    ([("head/kernel", ("tensro", None))], "is not 'replicated' nor"),
    ([("head/kernel", ("tensro?", None))], "is not 'replicated' nor"),
    ([("head/kernel", ("tensor?", "tensor"))], "is not 'replicated' nor"),
  ],
)
def test_rule_errors(rules, message):
  with pytest.raises(UserError) as caught:
    specs({"data": -1, "tensor": 4}, rules)
  assert message in str(caught.value)


def test_optimiser_state_and_average_lie_with_their_parameters():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 4})

  def make():
    params = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes())
    group = {"params": params, "opt_state": optax.adamw(1e-3).init(params)}
    return {"step": jnp.int32(0), "groups": {"model": group}, "ema": {"model": params}}

  abstract = jax.eval_shape(make)
  tree = sharding.shardings(abstract, mesh, [("mlp/bias", "replicated")])
  made = jax.jit(make, out_shardings=tree)()
  by_name = {name: leaf.sharding.spec for name, leaf in named_leaves(made).items()}
  for parameter in named_leaves(shapes()):
    lie = {tuple(spec) for name, spec in by_name.items() if name.endswith("/" + parameter)}
    assert len(lie) == 1, (parameter, lie)
  assert by_name["groups/model/opt_state/0/mu/blocks/mlp/kernel"] == PartitionSpec(
    None, None, "fsdp"
  )
  everything, one = sharding.describe(abstract, tree)
  assert everything == sum(leaf.nbytes for leaf in jax.tree.leaves(made))
  assert one == sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(made))


def test_rows_arrive_in_their_order():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
  rows = {"video": np.arange(8 * 3, dtype=np.uint8).reshape(8, 3), "valid": np.ones(8, bool)}
  batch = sharding.to_global(rows, sharding.batch_sharding(mesh))
  np.testing.assert_array_equal(batch["video"], rows["video"])
  assert {shard.data.shape for shard in batch["video"].addressable_shards} == {(2, 3)}


def test_a_batch_that_does_not_divide_is_refused():
  mesh = sharding.make_mesh({"data": 4, "fsdp": 2})
  sharding.check_batch(16, mesh, accumulate=2)
  with pytest.raises(UserError, match="batch=12 does not divide over 8 devices"):
    sharding.check_batch(12, mesh)
  with pytest.raises(UserError, match="in 2 accumulated parts; use a multiple of 16"):
    sharding.check_batch(8, mesh, accumulate=2)
