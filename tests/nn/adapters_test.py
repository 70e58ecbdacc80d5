import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.learn.paths import named_leaves
from vfe.nn.blocks import Execution, make_stack

WIDTH, DEPTH = 16, 2
TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, WIDTH)), jnp.float32)


def stack(**changes):
  return make_stack(WIDTH, DEPTH, 2, 32, 1e-6, Execution(), **changes)


@pytest.mark.parametrize("changes, mark", [(dict(adapter=4), "adapter"), (dict(lora=3), "_lora")])
def test_what_is_added_begins_as_nothing(changes, mark):
  plain = jax.jit(stack().init)(jax.random.key(0))
  more = jax.jit(stack(**changes).init)(jax.random.key(1))
  merged = more | {name: more[name] | of for name, of in plain.items()}
  assert any(mark in name for name in named_leaves(merged))
  found = jax.jit(stack(**changes).apply)(merged, TOKENS)
  np.testing.assert_allclose(found, jax.jit(stack().apply)(plain, TOKENS), rtol=1e-6, atol=1e-6)


def test_parameters_are_as_many_as_the_formulas_say():
  count = lambda tree, mark: sum(
    leaf.size for name, leaf in named_leaves(tree).items() if mark in name
  )
  shapes = lambda **changes: jax.eval_shape(stack(**changes).init, jax.random.key(0))
  assert count(shapes(adapter=4), "adapter") == DEPTH * (2 * WIDTH * 4 + 4 + WIDTH)
  products = 4 * (WIDTH + WIDTH) + 2 * (WIDTH + 32)  # four of attention, two of the MLP
  assert count(shapes(lora=3), "_lora") == DEPTH * 3 * products
