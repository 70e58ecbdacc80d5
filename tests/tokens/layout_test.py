import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.tokens.layout import Layout


@pytest.mark.parametrize("frames, tokens", [(16, 1568), (32, 3136), (64, 6272), (128, 12544)])
def test_token_counts_of_the_paper(frames, tokens):
  layout = Layout.of_video(frames, 224, (2, 16, 16))
  assert layout.size == tokens
  assert layout.grid == (frames // 2, 14, 14)
  assert layout.video == (frames, 224, 224)
  assert layout.channels == 1536


def test_columns_run_first_then_rows_then_frames():
  coordinates = Layout((2, 3, 4), (1, 1, 1)).coordinates()
  assert coordinates[:5].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 1, 0]]
  assert coordinates[12].tolist() == [1, 0, 0]


def test_places_are_the_rows_of_coordinates():
  layout = Layout((3, 2, 5), (2, 8, 8))
  selection = jnp.asarray([[0, 7, 29], [4, 5, 11]])
  places = np.stack(layout.places(selection), axis=-1)
  np.testing.assert_array_equal(places, layout.coordinates()[np.asarray(selection)])


@pytest.mark.parametrize(
  "frames, size, message",
  [
    (127, 224, "frames=127 is not divisible by the tubelet's 2; use 126 or 128."),
    (16, 100, "size=100 is not divisible by the tubelet's 16; use 96 or 112."),
    (16, 8, "size=8 is not divisible by the tubelet's 16; use 16."),
  ],
)
def test_a_video_that_the_tubelet_does_not_divide(frames, size, message):
  with pytest.raises(UserError) as error:
    Layout.of_video(frames, size, (2, 16, 16))
  assert str(error.value) == message
