import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn.conv import IMPLEMENTATIONS, Conv3D, conv3d

# (video size, kernel, strides): odd sizes, kernels larger than the grid, even kernels, strides
CASES = [
  ((4, 6, 6), (3, 3, 3), (1, 1, 1)),
  ((5, 7, 6), (4, 8, 8), (2, 4, 4)),
  ((1, 3, 3), (3, 3, 3), (1, 1, 1)),
  ((4, 5, 5), (1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize(("size", "kernel", "strides"), CASES)
def test_every_implementation_gives_the_same_numbers_and_gradients(size, kernel, strides):
  video = jax.random.normal(jax.random.key(0), (2, *size, 3))
  weight = jax.random.normal(jax.random.key(1), (*kernel, 3, 4)) / np.sqrt(np.prod(kernel) * 3)

  def forward_and_back(implementation):
    run = lambda x, k: conv3d(x, k, strides, implementation)
    out, pull = jax.vjp(run, video, weight)
    return out, pull(jnp.sin(out))

  want = jax.jit(lambda: forward_and_back("native"))()
  assert want[0].shape[1:4] == tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
  for implementation in sorted(set(IMPLEMENTATIONS) - {"native"}):
    got = jax.jit(lambda name=implementation: forward_and_back(name))()
    # float32 sums of at most 768 products of variance 1/768, in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), got, want)


def test_parameters_and_numbers_are_those_of_flax_conv():
  video = jax.random.normal(jax.random.key(0), (2, 4, 5, 5, 3))
  ours, theirs = Conv3D(6), nn.Conv(6, (3, 3, 3), padding="SAME")
  params = theirs.init(jax.random.key(1), video)
  assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), video)) == jax.tree.map(
    jnp.shape, params
  )
  np.testing.assert_allclose(
    ours.apply(params, video), theirs.apply(params, video), rtol=1e-5, atol=1e-5
  )
