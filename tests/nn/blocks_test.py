import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.nn.blocks import Execution, Segment, Stack, drop_path, make_stack
from vfe.nn.random import row_keys

WIDTH, DEPTH = 16, 5
TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((3, 7, WIDTH)), jnp.float32)
KEYS = row_keys(jax.random.key(1), "path", jnp.arange(3))


def stack(depth=DEPTH, **execution):
  return make_stack(WIDTH, depth, 2, 32, 1e-6, Execution(**execution))


@pytest.fixture(scope="module")
def params():
  return jax.jit(stack().init)(jax.random.key(0))


def apply(params, tokens, keys=None, **execution):
  return jax.jit(stack(**execution).apply)(params, tokens, keys)


@pytest.fixture(scope="module")
def plain(params):
  return gradients(params)


def gradients(params, **execution):
  run = stack(**execution)
  loss = lambda params: jnp.sum(jnp.square(run.apply(params, TOKENS)))
  return jax.jit(jax.value_and_grad(loss))(params)


def test_every_weight_is_one_leaf_with_the_layers_first(params):
  assert all(leaf.shape[0] == DEPTH for leaf in jax.tree.leaves(params))
  kernel = params["attention"]["query"]["kernel"]
  assert kernel.shape == (DEPTH, WIDTH, WIDTH) and kernel.dtype == jnp.float32
  assert not np.allclose(kernel[0], kernel[1])  # each layer is drawn from a key of its own


def test_layers_run_in_order(params):
  """The scan against the blocks one by one."""
  tokens, block = TOKENS, jax.jit(stack().block.apply)
  for i in range(DEPTH):
    layer = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], params)
    tokens = block({"params": layer}, tokens)
  np.testing.assert_allclose(apply(params, TOKENS), tokens, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_number(params, plain, remat):
  again = gradients(params, remat=remat)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_segments_are_cut_at_the_first_trained_layer():
  assert stack(remat="full").segments() == [Segment(0, DEPTH, "full", True)]
  assert stack(remat="full", first_trained=2).segments() == [
    Segment(0, 2, "none", False),
    Segment(2, DEPTH, "full", True),
  ]
  assert stack(first_trained=DEPTH).segments() == [Segment(0, DEPTH, "none", False)]


def test_freezing_changes_neither_the_output_nor_the_gradients_above(params, plain):
  (loss, all_trained), (frozen_loss, frozen) = plain, gradients(params, first_trained=3)
  np.testing.assert_allclose(loss, frozen_loss, rtol=1e-6)
  for a, b in zip(jax.tree.leaves(all_trained), jax.tree.leaves(frozen), strict=True):
    assert not np.any(b[:3])
    np.testing.assert_allclose(a[3:], b[3:], rtol=1e-4, atol=1e-4)


def compiled(depth, **execution):
  run = make_stack(64, depth, 2, 256, 1e-6, Execution(**execution))
  loss = lambda params, tokens: jnp.sum(run.apply(params, tokens))
  params = jax.eval_shape(run.init, jax.random.key(0))
  tokens = jax.ShapeDtypeStruct((4, 256, 64), jnp.float32)
  return jax.jit(jax.grad(loss)).lower(params, tokens)


def test_nothing_is_kept_of_frozen_layers():
  """8 of 12 frozen: the temporaries of the 4 trained layers and of one more."""
  bytes_of = lambda **execution: (
    compiled(12, **execution).compile().memory_analysis().temp_size_in_bytes
  )
  assert bytes_of(first_trained=8) < 5 / 12 * bytes_of()


def test_the_program_does_not_grow_with_depth():
  lines = [compiled(depth).as_text().count("\n") for depth in (3, 24)]
  assert lines[0] == lines[1]


def test_drop_path_needs_keys(params):
  still = apply(params, TOKENS)
  np.testing.assert_array_equal(apply(params, TOKENS, drop_path=0.5), still)
  np.testing.assert_array_equal(apply(params, TOKENS, KEYS, drop_path=0.0), still)
  assert not np.allclose(apply(params, TOKENS, KEYS, drop_path=0.5), still)


def test_drop_path_grows_from_0_at_the_first_layer():
  """At a last rate of 1, a stack of two is its first layer."""
  params = jax.jit(stack(2).init)(jax.random.key(0))
  first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], params)
  alone = jax.jit(stack().block.apply)({"params": first}, TOKENS)
  dropped = jax.jit(stack(2, drop_path=1.0).apply)(params, TOKENS, KEYS)
  np.testing.assert_allclose(dropped, alone, rtol=1e-5, atol=1e-5)


def test_what_a_row_drops_does_not_depend_on_its_batch(params):
  whole = apply(params, TOKENS, KEYS, drop_path=0.5)
  part = apply(params, TOKENS[1:], KEYS[1:], drop_path=0.5)
  np.testing.assert_allclose(whole[1:], part, rtol=1e-5, atol=1e-5)


def test_drop_path_keeps_the_mean():
  keys = row_keys(jax.random.key(0), "path", jnp.arange(4000))
  drop = jax.jit(drop_path, static_argnames="name")
  kept = drop(jnp.ones((4000, 1, 1)), jnp.float32(0.2), keys, "mlp")
  assert set(np.unique(kept)) == {0.0, 1.25}
  # 4000 draws of deviation 0.5: six standard errors.
  assert abs(float(kept.mean()) - 1) < 6 * 0.5 / np.sqrt(4000)


def test_bfloat16_computes_in_bfloat16_on_float32_parameters(params):
  drawn = jax.eval_shape(stack(dtype="bfloat16").init, jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
  found = apply(params, TOKENS.astype(jnp.bfloat16), dtype="bfloat16")
  assert found.dtype == jnp.bfloat16
  expected = apply(params, TOKENS)
  # Ten residual branches, each rounded to 2**-8 of values up to 8.
  np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=0, atol=10 * 8 * 2**-8)


def test_an_unknown_remat_is_named(params):
  with pytest.raises(UserError, match="remat='some' is unknown; use none, dots, full"):
    stack(remat="some").apply(params, TOKENS)


class Adding(nn.Module):
  """Adds what its layer is given, and leaves what it was given."""

  def __call__(self, tokens, drop, keys, where, layer):
    return tokens + layer, tokens


def test_each_layer_is_given_its_own_and_what_all_leave_comes_back():
  """Over the cut at the first trained layer, too."""
  adding = Stack(Adding(parent=None), WIDTH, DEPTH, Execution(first_trained=2))
  tokens, left = jax.jit(adding.apply_with)(jnp.arange(1.0, DEPTH + 1), {}, TOKENS)
  np.testing.assert_allclose(tokens, TOKENS + 15, atol=1e-5)
  np.testing.assert_allclose(left, [TOKENS + n for n in (0, 1, 3, 6, 10)], atol=1e-5)
