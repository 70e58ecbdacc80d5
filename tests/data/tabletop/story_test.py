"""What happens in a video: labels, their balance, and that events can follow one another."""

import collections
import itertools

import numpy as np
import pytest

from vfe.data.tabletop.story import COLUMNS, FILLERS, LEAVES, NEEDS, labels, scenario
from vfe.data.tabletop.world import (
  COLOURS,
  HEADS,
  NOUNS,
  RUNGS,
  SHAPES,
  SPLITS,
  World,
  heads,
)


def stories(rung, count, **settings):
  world = World(rung=rung, **settings)
  return [scenario(world, index) for index in range(count)]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_story_is_a_function_of_seed_split_and_index(rung):
  world = World(rung=rung)
  assert scenario(world, 5) == scenario(world, 5)
  told = {
    (scenario(World(rung=rung, seed=seed), index, split).things)
    for seed, index, split in itertools.product((0, 1), range(4), SPLITS)
  }
  assert len(told) == 24


def test_a_story_does_not_depend_on_how_it_is_drawn():
  small = World(size=32, texture="strong", motion=0.0)
  assert scenario(World(), 3) == scenario(small, 3)


@pytest.mark.parametrize("rung", RUNGS)
def test_labels_answer_every_head_within_its_classes(rung):
  for scene in stories(rung, 30):
    values = labels(scene)
    for head, names in heads(rung).items():
      assert 0 <= values[head] < len(names)


@pytest.mark.parametrize("rung", ["appearance", "verb", "order", "routine"])
def test_the_leading_head_is_balanced_exactly(rung):
  head, names = next(iter(HEADS[rung].items()))
  counts = collections.Counter(labels(s)[head] for s in stories(rung, 4 * len(names)))
  assert set(counts.values()) == {4} and len(counts) == len(names)


def test_knowing_one_or_two_factors_leaves_the_others_of_a_routine_open():
  rows = [labels(scene) for scene in stories("routine", 120)]
  factors = ("first", "repeats", "last")
  for known in [*itertools.combinations(factors, 1), *itertools.combinations(factors, 2)]:
    classes = collections.defaultdict(collections.Counter)
    for row in rows:
      classes[tuple(row[name] for name in known)][row["routine"]] += 1
    left = 12 / np.prod([len(HEADS["routine"][name]) for name in known])
    for counts in classes.values():
      assert len(counts) == left and len(set(counts.values())) == 1


@pytest.mark.parametrize("frames", [64, 128, 256, 1024])
def test_a_routine_is_its_first_event_its_rotations_and_its_last_event(frames):
  for scene in stories("routine", 24, frames=frames):
    values = labels(scene)
    verbs = [event.name for event in scene.events]
    assert verbs[0] == HEADS["routine"]["first"][values["first"]]
    assert verbs.count("rotate") == int(HEADS["routine"]["repeats"][values["repeats"]])
    assert verbs[-1] == HEADS["routine"]["last"][values["last"]]


def test_in_a_long_routine_other_events_do_not_tell_the_number_of_rotations():
  """The fillers take as many slots however many rotations there are among them."""
  longer = {a for a, *b in FILLERS if b}
  slots = lambda names: sum(n not in {b for _, *bs in FILLERS for b in bs} for n in names)
  by_count = collections.defaultdict(set)
  for scene in stories("routine", 48, frames=512):
    middle = [e.name for e in scene.events[1:-1] if e.name != "rotate"]
    taken = slots(middle) + sum(name in longer for name in middle)
    by_count[labels(scene)["repeats"]].add(taken)
  assert len(by_count) == 3
  assert len({frozenset(taken) for taken in by_count.values()}) == 1


def test_order_has_two_different_verbs_and_both_orders():
  seen = set()
  for scene in stories("order", 24):
    first, second = scene.events
    values = labels(scene)
    assert first.name == HEADS["order"]["first"][values["first"]]
    assert second.name == HEADS["order"]["second"][values["second"]]
    assert HEADS["order"]["order"][values["order"]] == f"{first.name} then {second.name}"
    seen.add((first.name, second.name))
  assert seen == {(b, a) for a, b in seen} and len(seen) == 12


@pytest.mark.parametrize("rung", RUNGS)
def test_events_follow_one_another_and_lie_in_the_video(rung):
  for scene in stories(rung, 40):
    times = [time for event in scene.events for time in (event.start, event.stop)]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= scene.frames
    assert all(event.stop - event.start >= 3 for event in scene.events)


@pytest.mark.parametrize(("rung", "frames"), [("verb", 16), ("order", 32), ("routine", 1024)])
def test_every_event_is_possible_when_it_comes(rung, frames):
  """Things are acted on in the state that the verb needs; no two things share a place."""
  for scene in stories(rung, 36, frames=frames, objects=(2, 5)):
    cells = [thing.cell for thing in scene.things]
    states = [thing.state for thing in scene.things]
    for event in scene.events:
      assert states[event.thing] == NEEDS.get(event.name, "free")
      if event.name.startswith("push"):
        row = cells[event.thing] // COLUMNS
        cells[event.thing] += -1 if event.name == "push left" else 1
        assert cells[event.thing] // COLUMNS == row
      if event.name == "swap":
        assert states[event.other] == "free" and event.other != event.thing
        one, two = cells[event.thing], cells[event.other]
        cells[event.thing], cells[event.other] = two, one
      assert len(set(cells)) == len(cells)
      states[event.thing] = LEAVES.get(event.name, "free")


def test_objects_are_different_as_many_as_asked_and_of_every_noun():
  scenes = stories("verb", 300, objects=(2, 5))
  counts = collections.Counter(len(scene.things) for scene in scenes)
  assert set(counts) == {2, 3, 4, 5} and min(counts.values()) > 45
  for scene in scenes:
    assert len({thing.noun for thing in scene.things}) == len(scene.things)
  nouns = {thing.noun for scene in scenes for thing in scene.things}
  assert len(nouns) == len(NOUNS)


def test_appearance_asks_for_the_one_large_object():
  for scene in stories("appearance", 30, objects=(1, 4)):
    large = max(scene.things, key=lambda thing: thing.radius)
    assert scene.things[scene.prominent] is large
    assert all(t.radius < large.radius / 2 for t in scene.things if t is not large)
    values = labels(scene)
    assert NOUNS[values["noun"]] == large.name
    assert f"{COLOURS[values['colour']]} {SHAPES[values['shape']]}" == large.name


def test_the_control_has_the_routines_videos_and_asks_what_is_on_the_table():
  for asked, told in zip(stories("control", 12), stories("routine", 12), strict=True):
    assert (asked.things, asked.events) == (told.things, told.events)
    words = {word for thing in asked.things for word in thing.name.split()}
    values = labels(asked)
    for head in heads("control"):
      assert values[head] == (head.removeprefix("has_") in words)
