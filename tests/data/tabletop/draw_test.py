"""Pixels and masks: pure, the same however they are computed, and showing what happens."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vfe.data.tabletop import draw
from vfe.data.tabletop.draw import HAND, masks, render, token_share
from vfe.data.tabletop.motion import PUSH, RAISED, camera, motion
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import seconds
from vfe.data.tabletop.world import FEWEST_FRAMES, RUNGS, TEXTURES, VERBS, World

STILL = World(size=32, frames=32, rung="verb", texture="still")


def scene_of(verb, world=STILL, start=0):
  """The first video from `start` on whose action is the verb."""
  indices = range(start, start + 2 * len(VERBS))
  return next(s for s in (scenario(world, i) for i in indices) if s.events[0].name == verb)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
  seed=st.integers(0, 2**32),
  index=st.integers(0, 10**6),
  rung=st.sampled_from(RUNGS),
  frames=st.integers(0, 80),
  size=st.integers(8, 24),
  texture=st.sampled_from(sorted(TEXTURES)),
  split=st.sampled_from(["train", "validation", "test"]),
)
def test_any_video_is_drawn_purely_and_shows_its_hand(
  seed, index, rung, frames, size, texture, split
):
  frames += FEWEST_FRAMES[rung]
  world = World(2 * size, frames, rung, (2, 5), texture, 1.0, seed)
  scene = scenario(world, index, split)
  video = render(world, scene)
  assert video.shape == (frames, 2 * size, 2 * size, 3)
  np.testing.assert_array_equal(video, render(world, scenario(world, index, split)))
  mask = masks(world, scene)
  assert mask.shape == video.shape[:3]
  assert set(np.unique(mask)) <= {0, HAND, *range(1, len(scene.things) + 1)}
  for event in scene.events:
    assert (mask[event.start : event.stop] == HAND).any()
    assert 0 <= seconds(event.start) < seconds(event.stop) <= seconds(frames)


def test_splits_show_other_videos():
  world = World(size=32, frames=64)
  videos = [render(world, scenario(world, 0, split)) for split in ("train", "validation", "test")]
  assert len({video.tobytes() for video in videos}) == 3


def test_a_video_does_not_depend_on_how_many_frames_are_drawn_at_a_time(monkeypatch):
  world = World(size=32, frames=64, texture="strong")
  scene = scenario(world, 2)
  whole = render(world, scene)
  monkeypatch.setattr(draw, "CHUNK", 7 * 32 * 32)
  np.testing.assert_array_equal(render(world, scene), whole)


def test_asking_for_masks_does_not_change_the_pixels():
  scene = scenario(STILL, 1)
  np.testing.assert_array_equal(draw.draw(STILL, scene, masks=True)[0], render(STILL, scene))


def test_the_pixels_are_those_of_this_version_of_the_generator():
  """Raise GENERATOR when these change: caches of the old pixels must not be taken for new."""
  world = World(size=32, frames=64)
  frame = render(world, scenario(world, 0))[10]
  found = frame.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3, 4))
  np.testing.assert_allclose(found, GENERATOR_2, atol=1.0)


GENERATOR_2 = (
  (108.4, 111.0, 110.6, 104.2),
  (104.8, 103.7, 100.3, 109.1),
  (125.8, 119.3, 88.4, 106.2),
  (110.6, 100.2, 79.7, 95.8),
)


@pytest.mark.parametrize("verb", VERBS)
def test_the_mask_is_where_the_hand_is_drawn(verb, monkeypatch):
  """Against the same video without a hand: it differs in the mask and at its smooth edge only."""
  scene = scene_of(verb)
  with_hand, mask = draw.draw(STILL, scene, masks=True)
  monkeypatch.setattr(draw, "_draw_hand", lambda *args: None)
  differs = (render(STILL, scene) != with_hand).any(axis=-1)
  hand = mask == HAND
  assert hand.any()
  near = ndimage.binary_dilation(hand, np.ones((1, 3, 3)))
  assert not (differs & ~near)[:, :-1].any()  # below the last row a fingertip may begin
  assert (differs & hand).sum() > 0.99 * hand.sum()


@pytest.mark.parametrize("size", [32, 64])
def test_hand_and_objects_are_plain_to_see(size):
  """The hand takes at least 1.5 % of some frame; an uncovered object at least 1 %, before it."""
  for index in range(24):
    world = World(size=size, frames=16, rung="verb", objects=(2, 5), texture="strong")
    scene = scenario(world, index)
    mask = masks(world, scene)
    assert (mask == HAND).mean(axis=(1, 2)).max() > 0.015
    for number, thing in enumerate(scene.things, start=1):
      held = any(other.state == "held" for other in scene.things)
      if thing.state == "free" and not held:
        assert (mask[0] == number).mean() > 0.01, (index, thing)


@pytest.mark.parametrize("size", [32, 64])
def test_masks_carry_the_colour_of_their_object(size):
  """Exactly the noun's colour is the most frequent one in its mask; rim and band are the rest."""
  world = World(size=size, frames=16, rung="verb", texture="still")
  seen = set()
  for index in range(24):
    scene = scenario(world, index)
    if any(thing.state == "held" for thing in scene.things):
      continue  # the hand, or what it holds, may hide a part
    video, mask = draw.draw(world, scene, masks=True)
    for number, thing in enumerate(scene.things, start=1):
      if thing.state != "covered":
        colours, counts = np.unique(video[0][mask[0] == number], axis=0, return_counts=True)
        assert tuple(colours[counts.argmax()]) == draw.RGB[thing.name.split()[0]], (index, thing)
        seen.add(thing.noun)
  assert len(seen) > 20


def track_of(verb, start=0):
  scene = scene_of(verb, start=start)
  event = scene.events[0]
  return scene, event, motion(scene).things[event.thing]


def test_pushes_move_a_thing_by_a_column():
  for verb, sign in (("push left", -1), ("push right", 1)):
    _, _, track = track_of(verb)
    np.testing.assert_allclose(track.x[-1] - track.x[0], sign * PUSH, atol=1e-5)


def test_lift_ends_in_the_air_and_put_down_begins_there():
  _, _, lifted = track_of("lift")
  _, _, put = track_of("put down")
  for low, high in ((lifted.height[0], lifted.height[-1]), (put.height[-1], put.height[0])):
    np.testing.assert_allclose((low, high), (0, RAISED), atol=0.01 * RAISED)


def test_the_hand_stays_with_what_it_holds():
  for verb, frame in (("lift", -1), ("put down", 0)):
    scene, _, track = track_of(verb)
    hand = motion(scene)
    assert abs(hand.hand_x[frame] - track.x[frame]) < 0.1
    assert abs(hand.hand_y[frame] - track.y[frame] + track.height[frame]) < 0.2
    assert (masks(STILL, scene)[frame] == HAND).any()


def test_tipping_lays_a_thing_down_and_standing_up_undoes_it():
  for start in (0, 12, 24, 36):
    _, event, fallen = track_of("tip over", start)
    np.testing.assert_allclose((fallen.tip[0], fallen.tip[-1]), (0, event.side), atol=1e-5)
    _, event, stood = track_of("stand up", start)
    np.testing.assert_allclose((stood.tip[0], stood.tip[-1]), (event.side, 0), atol=1e-5)


def test_rotating_shaking_and_tapping_leave_a_thing_as_it_was():
  for verb in ("rotate", "shake", "tap"):
    scene, event, _ = track_of(verb)
    mask = masks(STILL, scene) == event.thing + 1
    assert (mask[event.stop - 1 :] == mask[0]).mean() > 0.99
    middle = mask[event.start : event.stop]
    assert not (middle == mask[0]).all()


def test_a_rotation_is_one_full_turn():
  _, _, track = track_of("rotate")
  np.testing.assert_allclose(track.spin[-1], 2 * np.pi, rtol=1e-5)


def test_a_cloth_hides_what_is_covered_until_it_is_taken_off():
  scene, event, _ = track_of("cover")
  mask = masks(STILL, scene)
  assert (mask[0] == event.thing + 1).sum() > 9 and not (mask[-1] == event.thing + 1).any()
  scene, event, _ = track_of("uncover")
  mask = masks(STILL, scene)
  assert not (mask[0] == event.thing + 1).any() and (mask[-1] == event.thing + 1).sum() > 9


def test_a_swap_exchanges_two_places():
  scene, event, one = track_of("swap")
  two = motion(scene).things[event.other]
  np.testing.assert_allclose((one.x[-1], one.y[-1]), (two.x[0], two.y[0]), atol=1e-5)
  np.testing.assert_allclose((two.x[-1], two.y[-1]), (one.x[0], one.y[0]), atol=1e-5)


def test_things_stay_on_the_table_through_a_long_video():
  for index in range(6):
    scene = scenario(World(frames=1024, objects=(2, 5)), index)
    for track in motion(scene).things:
      assert track.x.min() > 0 and track.x.max() < 1
      assert (track.y - track.height).min() > 0 and track.y.max() < 1


@pytest.mark.parametrize("texture", sorted(TEXTURES))
def test_the_background_moves_as_strongly_as_asked(texture):
  """Where neither hand nor thing ever is, a still world does not change; the others do."""
  world = dataclasses.replace(STILL, texture=texture)
  scene = scene_of("tap", world)
  video, mask = draw.draw(world, scene, masks=True)
  change = np.abs(np.diff(video.astype(int), axis=0)).mean(axis=(0, 3))
  corner = change[0, ~mask.any(axis=(0))[0]].mean()
  low, high = {"still": (0, 0.01), "weak": (0.3, 5), "strong": (5, 60)}[texture]
  assert low <= corner <= high


def test_motion_scales_the_head_and_nought_nails_it_down():
  scene = scenario(STILL, 0)
  strong = dataclasses.replace(STILL, texture="strong")
  view = camera(strong, scene)
  half = camera(dataclasses.replace(strong, motion=0.5), scene)
  nailed = camera(dataclasses.replace(strong, motion=0.0), scene)
  np.testing.assert_allclose(half.roll, view.roll / 2, rtol=1e-6)
  assert np.ptp(nailed.pan_x) == np.ptp(nailed.drift_y) == np.ptp(nailed.zoom) == 0


def test_token_share_counts_hand_pixels_in_grid_order():
  mask = np.zeros((4, 4, 8), np.uint8)
  mask[2:, :2, 4:] = HAND  # the second of two times, top right
  mask[2, 2, 0] = HAND
  share = token_share(mask, (2, 2, 4))
  np.testing.assert_allclose(share, [0, 0, 0, 0, 0, 1, 1 / 16, 0])
