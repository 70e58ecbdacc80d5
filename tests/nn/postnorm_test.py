import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn.blocks import Execution, Stack, norm
from vfe.nn.postnorm import PostNormBlock

BLOCK = PostNormBlock(heads=2, mlp=12, parent=None)
TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 8)), jnp.float32)
KEYS = jax.random.split(jax.random.key(1), 3)


@pytest.fixture(scope="module")
def params():
  return jax.jit(BLOCK.init)(jax.random.key(0), TOKENS)


def test_a_row_whose_branches_are_dropped_is_only_normed(params):
  surely = jnp.float32(1 - 1e-6)
  found = jax.jit(BLOCK.apply)(params, TOKENS, surely, KEYS)
  normed = norm(BLOCK.norm_eps, "float32", "norm").apply({"params": {
    "scale": jnp.ones(8), "bias": jnp.zeros(8)}}, TOKENS)  # fmt: skip
  np.testing.assert_allclose(found, normed, atol=1e-5)
  assert not np.allclose(jax.jit(BLOCK.apply)(params, TOKENS), normed, atol=1e-2)


def test_tokens_of_two_segments_are_two_sequences(params):
  where = jnp.asarray([[1, 1, 1, 0, 0]] * 3)
  run = jax.jit(BLOCK.apply)
  both = run(params, TOKENS, None, None, where)
  np.testing.assert_allclose(both[:, :3], run(params, TOKENS[:, :3]), atol=1e-5)
  np.testing.assert_allclose(both[:, 3:], run(params, TOKENS[:, 3:]), atol=1e-5)


def test_a_stack_runs_it_in_bfloat16():
  block = PostNormBlock(heads=2, mlp=12, dtype="bfloat16", parent=None)
  stack = Stack(block, 8, 2, Execution(dtype="bfloat16", drop_path=0.2))
  params = jax.jit(stack.init)(jax.random.key(0))
  where = jnp.ones((3, 5), jnp.int32)
  found = jax.jit(stack.apply)(params, TOKENS.astype(jnp.bfloat16), KEYS, where)
  assert found.dtype == jnp.bfloat16 and bool(jnp.isfinite(found).all())
