"""Parameters for tests, drawn by NumPy: compiling a network's own initialisation is slow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_params():
  """(module, *inputs) -> params: kernels of variance 1 / fan-in, scales one, biases small."""

  def draw(module, *inputs):
    random = np.random.default_rng(0)

    def leaf(path, shape):
      if path[-1].key == "scale":
        return jnp.ones(shape.shape)
      spread = 0.1 if len(shape.shape) == 1 else np.prod(shape.shape[:-1]) ** -0.5
      return jnp.asarray(random.normal(scale=spread, size=shape.shape), jnp.float32)

    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree_util.tree_map_with_path(leaf, shapes)

  return draw
