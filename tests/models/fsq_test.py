import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models import fsq

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "fsq.npz")


@pytest.mark.parametrize("case", [0, 1, 2])
def test_bit_exact_to_the_published_algorithm(case):
  levels, soft, latent, index = (
    GOLDEN[f"{case}/{name}"] for name in ("levels", "soft", "latent", "index")
  )
  levels = tuple(levels.tolist())

  @jax.jit
  def run(soft):
    ours = fsq.quantise(soft, levels)
    codes = fsq.codes_of_latents(ours, levels)
    return ours, fsq.indices_of_codes(codes, levels), fsq.bound(soft, levels)

  ours, indices, bound = run(soft)
  np.testing.assert_array_equal(ours, latent)
  np.testing.assert_array_equal(indices, index)
  np.testing.assert_allclose(
    bound, GOLDEN[f"{case}/bound"], atol=1e-6
  )  # jit may fuse multiply-adds


@pytest.mark.parametrize("levels", [(8,) * 6, (5, 4, 3), (2, 256)])
def test_codes_latents_and_indices_go_both_ways_over_the_whole_codebook(levels):
  size = int(np.prod(levels))
  index = jnp.arange(0, size, max(1, size // 4096), dtype=jnp.int32)

  @jax.jit
  def run(index):
    codes = fsq.codes_of_indices(index, levels)
    latent = fsq.latents_of_codes(codes, levels)
    again = fsq.codes_of_latents(latent, levels)
    return codes, latent, again, fsq.indices_of_codes(again, levels)

  codes, latent, again, indices = run(index)
  assert codes.dtype == jnp.uint8 and (codes < np.asarray(levels)).all()
  assert latent.min() >= -1 and latent.max() <= 1
  np.testing.assert_array_equal(again, codes)
  np.testing.assert_array_equal(indices, index)


def test_every_level_is_reached_and_a_zeroed_token_is_the_middle_one():
  levels = (8, 5)
  soft = jnp.stack([jnp.linspace(-6, 6, 2001)] * 2, axis=-1)
  codes = jax.jit(lambda s: fsq.codes_of_latents(fsq.quantise(s, levels), levels))(soft)
  assert [len(np.unique(column)) for column in codes.T] == [8, 5]
  np.testing.assert_array_equal(fsq.quantise(jnp.zeros((1, 2)), levels), jnp.zeros((1, 2)))


def test_gradient_is_that_of_the_bound():
  levels = (8, 5, 4)
  soft = jax.random.normal(jax.random.key(0), (7, 3))
  half = np.asarray(levels) // 2
  np.testing.assert_allclose(
    jax.grad(lambda s: fsq.quantise(s, levels).sum())(soft),
    jax.grad(lambda s: (fsq.bound(s, levels) / half).sum())(soft),
    rtol=1e-6,
  )


def test_bfloat16_is_quantised_in_float32():
  soft = jax.random.normal(jax.random.key(0), (50, 2)).astype(jnp.bfloat16)
  latent = fsq.quantise(soft, (8, 8))
  assert latent.dtype == jnp.float32
  np.testing.assert_array_equal(latent, fsq.quantise(soft.astype(jnp.float32), (8, 8)))


@pytest.mark.parametrize("levels", [(), (1, 8), (8, 257), (256,) * 4])
def test_levels_that_do_not_fit_are_a_user_error(levels):
  with pytest.raises(UserError, match="levels="):
    fsq.check_levels(levels)
