"""Baselines against values that can be worked out by hand."""

import numpy as np
import pytest

from vfe.data.tabletop import baselines
from vfe.data.tabletop.workers import arrays
from vfe.data.tabletop.world import VERBS, World


def test_chance_says_the_most_frequent_class_of_training():
  assert baselines.chance(np.array([2, 2, 1]), np.array([2, 0, 1, 2])) == 0.5


def test_difference_tokens_see_where_and_when_something_changes():
  video = np.zeros((1, 4, 4, 4, 3), np.uint8)
  video[0, 3, :2, 2:] = 200  # appears in the last frame, top right
  tokens = baselines.difference_tokens(video, (2, 2, 2))
  assert tokens.shape == (1, 8)
  np.testing.assert_allclose(tokens[0], [0, 0, 0, 0, 0, np.log1p(100), 0, 0], rtol=1e-6)


def test_standardised_pixels_have_mean_0_and_deviation_1_in_each_colour():
  video = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), dtype=np.uint8)
  pixels = baselines.standardised_pixels(video, video)
  np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2, 3)), 0, atol=1e-5)
  np.testing.assert_allclose(pixels.std(axis=(0, 1, 2, 3)), 1, atol=1e-5)


def test_losses_of_predicting_the_mean_and_the_still_scene():
  train = np.array([[[0.0], [2.0]], [[2.0], [4.0]]])  # its mean is 2
  test = np.array([[[1.0], [3.0]], [[5.0], [5.0]]])
  assert baselines.dataset_mean_loss(train, test) == (1 + 1 + 9 + 9) / 4
  assert baselines.static_scene_loss(test) == (1 + 1 + 0 + 0) / 4


def test_a_still_world_is_nearer_to_its_static_scene_than_to_the_mean_of_all():
  video, _ = arrays(World(size=32, frames=16, rung="verb", texture="still"), "train", 24)
  pixels = baselines.standardised_pixels(video, video)
  static = baselines.static_scene_loss(pixels[16:])
  assert 0 < static < 0.5 * baselines.dataset_mean_loss(pixels[:16], pixels[16:])


def test_the_network_learns_what_a_line_cannot_part():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(800, 4)).astype(np.float32)
  y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int32)
  assert baselines.mlp_accuracy((x[:600], y[:600]), (x[600:], y[600:])) > 0.9


def test_the_networks_gradients_are_those_of_its_loss():
  """Central differences in float64; the error of their cube term is far below the tolerance."""
  rng = np.random.default_rng(1)
  params = [rng.normal(size=shape) for shape in ((3, 5), (5,), (5, 4), (4,))]
  x, y = rng.normal(size=(7, 3)), rng.integers(4, size=7)

  def loss():
    logits = baselines._logits(params, x)[1]
    logits = logits - logits.max(axis=1, keepdims=True)
    return -np.mean(logits[np.arange(7), y] - np.log(np.exp(logits).sum(axis=1)))

  for param, gradient in zip(params, baselines._gradients(params, x, y), strict=True):
    place = tuple(0 for _ in param.shape)
    param[place] += 1e-5
    above = loss()
    param[place] -= 2e-5
    below = loss()
    param[place] += 1e-5
    np.testing.assert_allclose((above - below) / 2e-5, gradient[place], atol=1e-7)


@pytest.mark.slow
def test_the_verb_can_be_told_from_frame_differences():
  world = World(size=32, frames=32, rung="verb", texture="weak")
  video, values = arrays(world, "train", 1200)
  test, test_values = arrays(world, "validation", 240)
  features = [baselines.difference_tokens(v, (4, 4, 4)) for v in (video, test)]
  accuracy = baselines.mlp_accuracy(
    (features[0], values["verb"]), (features[1], test_values["verb"])
  )
  assert accuracy > 3 / len(VERBS)
