import jax
import jax.numpy as jnp
import numpy as np

from vfe.models.scorer import Scorer, distance


def test_grid_and_kernels_are_those_of_the_note():
  scorer = Scorer((2, 16, 16))
  video = jnp.zeros((2, 16, 64, 32, 3))
  out, params = jax.eval_shape(scorer.init_with_output, jax.random.key(0), video)
  assert out.shape == (2, 8, 4, 2)
  kernels = {
    name: layer["kernel"].shape for name, layer in params["params"].items() if "conv" in name
  }
  assert kernels == {"conv1": (4, 8, 8, 3, 64), "conv2": (3, 8, 8, 64, 128)}


def test_a_change_is_important_where_and_when_it_happens():
  video = np.zeros((1, 16, 64, 64, 3), np.float32) + 0.5
  video[:, 8:, 16:32, 32:48] = 1.0  # from frame 8 on: latent frame 4, row 1, column 2
  scorer = Scorer((2, 16, 16), (8, 8))
  score, _ = jax.jit(scorer.init_with_output)(jax.random.key(0), video)
  inside = score[0, 2:-1]  # zero padding in time makes the clip's ends differ
  assert jnp.unravel_index(jnp.argmax(inside), inside.shape)[0] + 2 in (3, 4)
  assert jnp.unravel_index(jnp.argmax(inside), inside.shape)[1:] == (1, 2)


def test_the_first_frame_copies_the_second():
  video = jax.random.uniform(jax.random.key(0), (1, 8, 16, 16, 3))
  score, _ = jax.jit(Scorer((2, 8, 8), (4, 4)).init_with_output)(jax.random.key(0), video)
  np.testing.assert_array_equal(score[:, 0], score[:, 1])
  assert score.min() >= 0


def test_distance_is_euclidean_with_gradient_zero_where_it_is_zero():
  a = jnp.array([[3.0, 4.0], [1.0, 1.0]])
  b = jnp.array([[0.0, 0.0], [1.0, 1.0]])
  assert distance(a, b).tolist() == [5, 0]
  gradient = jax.grad(lambda a: distance(a, b).sum())(a)
  np.testing.assert_allclose(gradient, [[0.6, 0.8], [0, 0]], rtol=1e-6)
