import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.tokens.tubelets import gather_tubelets
from vfe.tokens.tubes import Tube, TubeLayout, gather_tubes, random_of_tubes, tubevit

SMALL = TubeLayout.of_video(20, 30, (
  Tube((4, 3, 3), (2, 8, 8)),  # in time one begins before another ends
  Tube((16, 2, 4), (3, 6, 5), (1, 2, 3)),
  Tube((1, 6, 6), (8, 6, 6)),
))  # fmt: skip
VIDEO = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 30, 3), np.uint8)


def sliced(video, layout):
  """Every tube by NumPy, in a list a kernel."""
  found = []
  for tube in layout.tubes:
    grid, (kt, kh, kw) = tube.grid(layout.video), tube.kernel
    corners = np.indices(grid).reshape(3, -1).T * tube.stride + tube.offset
    found.append(np.stack(
      [video[:, t : t + kt, y : y + kh, x : x + kw].reshape(len(video), -1) for t, y, x in corners],
      axis=1,
    ))  # fmt: skip
  return found


def test_the_papers_kernels_make_539_tokens_of_its_clips():
  layout = TubeLayout.of_video(32, 224, tubevit(32))
  assert layout.sizes == (2 * 7 * 7, 3 * 7 * 7, 2 * 7 * 7, 14 * 14)
  assert layout.size == 539  # 559 in the paper's text, which its strides do not give
  kernels = [tube.kernel for tube in layout.tubes]
  assert kernels == [(8, 8, 8), (16, 4, 4), (4, 12, 12), (1, 16, 16)]


@pytest.mark.parametrize(
  "frames, size, side, sizes",
  [
    (16, 256, 16, (64, 64, 64, 256)),  # ours of 2.6
    (256, 256, 16, (1024, 40 * 64, 1024, 8 * 256)),
    (16, 32, 8, (4, 4, 4, 16)),
    (1, 224, 16, (196,)),
  ],
)
def test_they_fit_clips_of_other_lengths_and_sizes(frames, size, side, sizes):
  assert TubeLayout.of_video(frames, size, tubevit(frames, side)).sizes == sizes


def test_a_token_lies_at_its_tubes_centre():
  layout = TubeLayout.of_video(32, 224, tubevit(32))
  at = layout.coordinates()
  first, second, _, fourth = (at[start] for start in layout.starts)
  assert first.tolist() == [3.5, 3.5, 3.5]
  assert second.tolist() == [4 + 7.5, 8 + 1.5, 8 + 1.5]
  assert fourth.tolist() == [0, 7.5, 7.5]
  assert at[-1].tolist() == [0, 215.5, 215.5] and len(at) == layout.size


def test_all_tubes_are_the_videos_own_pixels():
  found = jax.jit(lambda video: gather_tubes(video, SMALL))(jnp.asarray(VIDEO))
  for patches, expected in zip(found, sliced(VIDEO, SMALL), strict=True):
    np.testing.assert_array_equal(patches, expected)


@given(st.integers(1, SMALL.size))
def test_every_kernel_has_its_share(keep):
  shares = SMALL.shares(keep)
  exact = np.array(SMALL.sizes) * keep / SMALL.size
  assert sum(shares) == keep and (np.abs(np.array(shares) - exact) < 1).all()
  assert SMALL.shares(SMALL.size) == SMALL.sizes


def test_random_tubes_are_of_each_kernel_alike_and_those_pixels():
  @jax.jit
  def draw(keys):
    chosen = random_of_tubes(keys, SMALL, 40)
    return chosen, gather_tubelets(jnp.asarray(VIDEO), SMALL, chosen)

  chosen, found = draw(jax.random.split(jax.random.key(0), 2))
  assert chosen.shape == (2, 40) and (np.diff(chosen, axis=1) > 0).all()
  assert chosen.max() < SMALL.size and not np.array_equal(*chosen)
  kernel = np.searchsorted(SMALL.starts, chosen, side="right") - 1
  shares = SMALL.shares(40)
  assert [np.bincount(row, minlength=3).tolist() for row in kernel] == [list(shares)] * 2
  first = 0
  for patches, whole, start, share in zip(
    found, sliced(VIDEO, SMALL), SMALL.starts, shares, strict=True
  ):
    own = np.asarray(chosen)[:, first : first + share] - start
    np.testing.assert_array_equal(patches, whole[np.arange(2)[:, None], own])
    first += share


def test_what_does_not_fit_is_said():
  with pytest.raises(UserError, match=r"tubes of \(16, 4, 4\) .* do not fit into 8 frames"):
    TubeLayout.of_video(8, 224, tubevit(8))
  with pytest.raises(UserError, match="overlap in space"):
    TubeLayout.of_video(8, 32, (Tube((1, 8, 8), (1, 4, 8)),))
  with pytest.raises(UserError, match="0 of"):
    random_of_tubes(jax.random.split(jax.random.key(0), 1), SMALL, 0)
