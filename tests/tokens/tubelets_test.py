import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.tokens.layout import Layout
from vfe.tokens.tubelets import gather_tubelets, tubelets, untubelets

LAYOUT = Layout.of_video(4, 12, (2, 4, 3))


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
  """A TPU lays tubelets out in another way; both ways run anywhere."""
  monkeypatch.setattr("vfe.tokens.tubelets.platform", lambda: request.param)
  return request.param


@pytest.fixture(scope="module")
def video():
  return np.random.default_rng(0).integers(0, 256, (2, 4, 12, 12, 3), np.uint8)


def test_a_tubelet_is_a_box_of_the_video_with_channels_last(video, platform):
  cut = tubelets(jnp.asarray(video), LAYOUT)
  for token, (t, y, x) in enumerate(LAYOUT.coordinates()):
    box = video[:, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 3 * x : 3 * x + 3]
    np.testing.assert_array_equal(cut[:, token], box.reshape(2, -1))


def test_untubelets_is_the_inverse(video):
  np.testing.assert_array_equal(untubelets(tubelets(jnp.asarray(video), LAYOUT), LAYOUT), video)


def test_gathered_tubelets_are_the_selected_ones(video, platform):
  selection = jnp.asarray([[0, 5, 23], [1, 2, 12]], jnp.int32)
  gathered = gather_tubelets(jnp.asarray(video), LAYOUT, selection)
  assert gathered.dtype == jnp.uint8
  expected = np.take_along_axis(
    np.asarray(tubelets(jnp.asarray(video), LAYOUT)), np.asarray(selection)[:, :, None], axis=1
  )
  np.testing.assert_array_equal(gathered, expected)


def test_gathering_a_tenth_needs_no_room_for_the_rest():
  """At 32 frames: temporaries below one copy of the uint8 video, so no float copy either."""
  layout = Layout.of_video(32, 112, (2, 16, 16))
  video = jax.ShapeDtypeStruct((1, 32, 112, 112, 3), jnp.uint8)
  selection = jax.ShapeDtypeStruct((1, layout.size // 10), jnp.int32)
  gather = jax.jit(lambda video, selection: gather_tubelets(video, layout, selection))
  memory = gather.lower(video, selection).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 32 * 112 * 112 * 3
