"""Crops: their boxes, their distribution, their pixels."""

import numpy as np
import pytest
from PIL import Image

from vfe.data import augment
from vfe.data.augment import Crop


def ramp(height, width):
  """A picture whose red is x and whose green is y."""
  y, x = np.mgrid[:height, :width]
  return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(120, 160), (160, 120), (97, 31), (8, 8)])
def test_random_boxes_lie_inside_with_area_and_ratio_in_range(height, width):
  rng = np.random.default_rng(0)
  for _ in range(200):
    box = augment.resized_crop(rng, height, width, 16, scale=(0.2, 0.9), ratio=(0.5, 2.0)).box
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    slack = (w + 1) * (h + 1) - w * h  # sides are rounded to whole pixels
    assert 0.2 * height * width - slack <= w * h <= 0.9 * height * width + slack
    assert (w - 1) / (h + 1) <= 2.0 and (w + 1) / (h - 1) >= 0.5


def test_area_is_uniform_and_ratio_is_uniform_in_its_logarithm():
  rng = np.random.default_rng(0)
  boxes = np.array(
    [
      augment.resized_crop(rng, 4000, 4000, 16, scale=(0.1, 0.5), ratio=(0.5, 2.0)).box
      for _ in range(2000)
    ]
  )
  w, h = (boxes[:, 2:] - boxes[:, :2]).T
  for share in ((w * h / 16e6 - 0.1) / 0.4, np.log2(w / h) / 2 + 0.5):
    quantiles = np.quantile(share, [0.1, 0.25, 0.5, 0.75, 0.9])
    # Standard error of a quantile of 2000 uniform draws: at most 0.011; four of them.
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.045)


def test_corners_reach_the_edges_and_half_the_crops_are_mirrored():
  rng = np.random.default_rng(1)
  crops = [augment.resized_crop(rng, 12, 12, 4, scale=(0.5, 0.6)) for _ in range(800)]
  assert min(c.box[0] for c in crops) == 0 and max(c.box[3] for c in crops) == 12
  assert 330 < sum(c.flip for c in crops) < 470  # 400, five standard errors of 14


def test_a_picture_of_impossible_shape_gives_its_largest_centred_box():
  crop = augment.resized_crop(np.random.default_rng(0), 10, 1000, 8, scale=(0.9, 1.0), flip=False)
  assert crop.box == (493, 0, 506, 10)  # width / height at most 4 / 3


def test_the_centre_is_short_side_to_size_then_cut():
  picture = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
  ours = augment.center(60, 100, 30)(picture)
  resized = Image.fromarray(picture).resize((50, 30), Image.Resampling.BILINEAR)
  theirs = np.asarray(resized)[:, 10:40]
  assert np.abs(ours.astype(int) - theirs).max() <= 1  # rounding of the filter's weights


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60)])
def test_three_crops_are_both_ends_and_the_centre(height, width):
  boxes = [crop.box for crop in augment.spatial_crops(height, width, 30, 3)]
  along = [box[0] if width > height else box[1] for box in boxes]
  assert along == [0, 20, 40]
  assert boxes[1] == augment.center(height, width, 30).box
  assert all(box[2] - box[0] == box[3] - box[1] == 60 for box in boxes)


def test_a_flip_mirrors_left_to_right():
  picture = ramp(16, 16)
  box = (0, 0, 16, 16)
  np.testing.assert_array_equal(Crop(box, 16, flip=True)(picture), picture[:, ::-1])
  np.testing.assert_array_equal(Crop(box, 16)(picture), picture)


def test_a_picture_that_knows_how_cuts_itself():
  class Knows:
    def cut(self, box, size, flip):
      return np.full((size, size, 3), sum(box) + flip, np.uint8)

  assert (Crop((1, 2, 3, 4), 8, flip=True)(Knows()) == 11).all()


def test_shrinking_does_not_alias():
  stripes = np.zeros((64, 64, 3), np.uint8)
  stripes[:, ::2] = 255
  assert np.ptp(augment.center(64, 64, 16)(stripes)[:, 1:-1]) <= 2  # grey, not stripes
