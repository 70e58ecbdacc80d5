"""The world's settings, its ladder and its seeds."""

import dataclasses

import pytest

from vfe.data.tabletop import world
from vfe.data.tabletop.world import World
from vfe.errors import UserError


@pytest.mark.parametrize(
  ("wrong", "said"),
  [
    (dict(rung="dance"), "rung='dance'"),
    (dict(texture="wild"), "texture='wild'"),
    (dict(size=33), "size=33"),
    (dict(frames=15), "frames=15"),
    (dict(frames=63), "frames=63"),
    (dict(rung="order", frames=16), "frames=16"),
    (dict(frames=1025), "frames=1025"),
    (dict(objects=(1, 4)), "objects=(1, 4)"),
    (dict(objects=(4, 2)), "objects=(4, 2)"),
    (dict(objects=(2, 6)), "objects=(2, 6)"),
    (dict(seed=-1), "seed=-1"),
    (dict(motion=9.0), "motion=9.0"),
  ],
)
def test_settings_that_cannot_be_drawn_are_refused_in_one_line(wrong, said):
  with pytest.raises(UserError) as error:
    World(**wrong)
  assert said in str(error.value) and "\n" not in str(error.value)


def test_every_setting_changes_the_digest():
  other = dict(
    size=32, frames=64, rung="control", objects=(3, 4), texture="still", motion=0.5, seed=1
  )
  assert set(other) == {field.name for field in dataclasses.fields(World)}
  digests = {World(**{name: value}).digest() for name, value in other.items()}
  assert len(digests | {World().digest()}) == len(other) + 1


def test_the_generators_version_changes_the_digest(monkeypatch):
  before = World().digest()
  monkeypatch.setattr(world, "GENERATOR", world.GENERATOR + 1)
  assert World().digest() != before


def test_splits_and_indices_never_share_random_numbers():
  draws = {
    tuple(world.generator(World(seed=seed), split, index, use).integers(1 << 62, size=2))
    for seed in (0, 1)
    for split in world.SPLITS
    for index in range(20)
    for use in ("story", "camera")
  }
  assert len(draws) == 2 * 3 * 20 * 2


def test_an_unknown_split_and_an_unknown_rung_are_named():
  with pytest.raises(UserError, match="split='val'"):
    world.generator(World(), "val", 0, "story")
  with pytest.raises(UserError, match="rung='dance'"):
    world.heads("dance")


def test_each_block_of_videos_holds_every_class_once():
  dealt = [world.balanced(World(), "train", index, 12, "x") for index in range(36)]
  assert all(sorted(dealt[i : i + 12]) == list(range(12)) for i in (0, 12, 24))
  assert dealt[:12] != dealt[12:24]


def test_about_a_dozen_verbs_and_a_noun_for_each_colour_and_shape():
  assert len(world.VERBS) == 12
  assert len(set(world.NOUNS)) == len(world.COLOURS) * len(world.SHAPES)
  for classes in world.HEADS.values():
    assert all(len(set(names)) == len(names) for names in classes.values())
