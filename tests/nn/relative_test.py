import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline

from vfe.errors import UserError
from vfe.nn import relative
from vfe.tokens.layout import Layout

# BEiT's relative_position_index of a window of 2 x 3, rows 1.. and columns 1.. (transformers 5.23,
# BeitRelativePositionBias.generate_relative_position_index((2, 3))); its table has 3 * 5 + 3 rows.
BEIT = np.array([
  [7, 6, 5, 2, 1, 0],
  [8, 7, 6, 3, 2, 1],
  [9, 8, 7, 4, 3, 2],
  [12, 11, 10, 7, 6, 5],
  [13, 12, 11, 8, 7, 6],
  [14, 13, 12, 9, 8, 7],
])  # fmt: skip
BEIT_CLS = (15, 16, 17)  # of it to a token, of a token to it, of it to itself


def index(grid, chosen=None):
  """The entries of all pairs of tokens of a grid, or of those of a selection."""
  layout = Layout(grid, (1, 1, 1))
  chosen = np.arange(layout.size) if chosen is None else chosen
  codes = relative.codes(layout.places(jnp.asarray(chosen)), grid)
  return np.asarray(relative.between(codes[:, None], codes[None, :], relative.entries(grid)))


def table(grid, heads=2):
  shape = (relative.entries(grid), heads)
  return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def test_a_picture_has_beits_entries():
  np.testing.assert_array_equal(index((1, 2, 3)), BEIT)
  places = np.arange(relative.entries((1, 2, 3)))
  which = (relative.FROM_CLS, relative.TO_CLS, relative.WITHIN_CLS)
  assert tuple(places[list(which)]) == BEIT_CLS


def test_the_papers_table_has_5106_entries():
  assert relative.entries((1, 14, 14)) == 732 and relative.entries((4, 14, 14)) == 5106


def test_pairs_share_an_entry_exactly_where_they_share_an_offset():
  grid = (3, 2, 3)
  at = Layout(grid, (1, 1, 1)).coordinates()
  t, y, x = (at[:, None] - at[None, :] + np.array(grid) - 1).transpose(2, 0, 1)
  np.testing.assert_array_equal(index(grid), (t * 3 + y) * 5 + x)
  assert set(index(grid).ravel()) == set(range(relative.entries(grid) - 3))


def test_dropped_tokens_leave_the_others_entries():
  chosen = np.array([1, 4, 5, 11, 16])
  np.testing.assert_array_equal(index((3, 2, 3), chosen), index((3, 2, 3))[np.ix_(chosen, chosen)])


def test_an_inflated_table_is_blind_to_time():
  picture = np.asarray(table((1, 2, 3)))
  found = np.asarray(relative.inflated(jnp.asarray(picture), 3))
  assert found.shape == (relative.entries((3, 2, 3)), 2)
  np.testing.assert_array_equal(found[index((3, 2, 3))], np.tile(picture[BEIT], (3, 3, 1)))
  np.testing.assert_array_equal(found[-3:], picture[-3:])


def by_time(found):
  """[2t-1, sites, H] of a table of 2 x 3 tokens a frame."""
  return np.asarray(found)[:-3].reshape(-1, 15, 2)


def test_a_longer_clip_takes_the_nearest_offsets():
  """4 to 8 frames: -7 .. 7 are 7 / 15 of it, rounded."""
  short = table((4, 2, 3))
  found = relative.resized(short, 4, 8)
  nearest = np.round(np.arange(-7, 8) * 7 / 15).astype(int)
  assert nearest.tolist() == [-3, -3, -2, -2, -1, -1, 0, 0, 0, 1, 1, 2, 2, 3, 3]
  np.testing.assert_array_equal(by_time(found), by_time(short)[nearest + 3])
  np.testing.assert_array_equal(found[-3:], short[-3:])


@pytest.mark.parametrize(("have", "want"), [(4, 8), (8, 4)])
def test_past_and_future_stay_mirror_images(have, want):
  short = table((have, 2, 3))
  found = by_time(relative.resized(short, have, want))
  turned = jnp.concatenate([by_time(short)[::-1].reshape(-1, 2), short[-3:]])
  np.testing.assert_array_equal(found[::-1], by_time(relative.resized(turned, have, want)))


def test_the_same_length_and_a_picture_change_nothing():
  short = table((4, 2, 3))
  np.testing.assert_array_equal(relative.resized(short, 4, 4), short)
  picture = table((1, 2, 3))
  np.testing.assert_array_equal(relative.resized(picture, 1, 5), relative.inflated(picture, 5))


def of_picture(found, side):
  """[2t-1, 2h-1, 2w-1, H] of a table of square pictures."""
  return np.asarray(found)[:-3].reshape(-1, 2 * side - 1, 2 * side - 1, 2)


def test_from_224_to_384_pixels_offsets_lie_where_beits_code_lays_them():
  """q is 1.090307 there (microsoft/unilm, beit/run_class_finetuning.py), and so is the spline, the
  interpolating one of FITPACK."""
  small = table((1, 14, 14))
  places = [sum(1.0903078805**i for i in range(k)) for k in range(14)]
  places = [-place for place in places[:0:-1]] + places
  found = of_picture(relative.rescaled(small, (1, 14, 14), (24, 24)), 24)
  for head in range(2):
    values = of_picture(small, 14)[0, :, :, head].astype(float)
    spline = RectBivariateSpline(places, places, values)
    expected = spline(np.arange(-23, 24), np.arange(-23, 24))
    np.testing.assert_allclose(found[0, :, :, head], expected, atol=1e-5)


def test_a_larger_picture_leaves_neighbours_and_time_alone():
  """And the farthest offset is the farthest one."""
  small = table((2, 4, 4))
  found = of_picture(relative.rescaled(small, (2, 4, 4), (6, 6)), 6)
  assert len(found) == 3
  near = of_picture(small, 4)
  np.testing.assert_allclose(found[:, 4:7, 4:7], near[:, 2:5, 2:5], atol=1e-6)
  np.testing.assert_allclose(found[:, ::10, ::10], near[:, ::6, ::6], atol=1e-6)
  np.testing.assert_array_equal(relative.rescaled(small, (2, 4, 4), (6, 6))[-3:], small[-3:])


def test_far_beyond_the_picture_there_is_no_other_value():
  found = of_picture(relative.rescaled(table((1, 2, 2)), (1, 2, 2), (5, 5)), 5)
  near = of_picture(table((1, 2, 2)), 2)
  at, was = ([0, 0, 8], [0, 8, 4]), ([0, 0, 2], [0, 2, 1])
  np.testing.assert_allclose(found[0][at], near[0][was], atol=1e-6)
  one = relative.rescaled(table((1, 1, 1)), (1, 1, 1), (3, 3))
  np.testing.assert_array_equal(one[:-3], np.tile(table((1, 1, 1))[:1], (25, 1)))


def test_a_smaller_picture_has_the_near_offsets():
  """Of 6 x 6 tokens, offsets up to 3 lie at 1, 2.01, 3.0301."""
  large = of_picture(table((1, 6, 6)), 6)[0]
  found = of_picture(relative.rescaled(table((1, 6, 6)), (1, 6, 6), (4, 4)), 4)[0]
  np.testing.assert_allclose(found[2:5, 2:5], large[4:7, 4:7], atol=0.05)
  np.testing.assert_allclose(found, large[2:9, 2:9], atol=0.2)


def test_the_same_picture_changes_nothing():
  same = relative.rescaled(table((2, 3, 4)), (2, 3, 4), (3, 4))
  np.testing.assert_array_equal(same, table((2, 3, 4)))


def test_a_table_of_another_length_is_refused():
  with pytest.raises(UserError, match="a table of 108 relative positions is not one of 5 latent"):
    relative.resized(table((4, 2, 3)), 5, 8)
