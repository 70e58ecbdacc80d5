"""Narrations, captions and summaries say what happens, in known words."""

import dataclasses

import pytest

from vfe.data.tabletop.lexicon import words
from vfe.data.tabletop.story import labels, scenario
from vfe.data.tabletop.text import (
  FORMS,
  SCENE_SECONDS,
  caption,
  captions,
  narrations,
  objects,
  order,
  say,
  segments,
  summary,
)
from vfe.data.tabletop.world import FPS, NOUNS, RUNGS, VERBS, World

EGOCLIP = [
  *("video_uid", "video_dur", "narration_source", "narration_ind", "narration_time"),
  *("clip_start", "clip_end", "clip_text", "tag_verb", "tag_noun"),
]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_narration_has_egoclips_columns_and_says_its_event(rung):
  scene = scenario(World(rung=rung, frames=512), 3)
  rows = narrations(scene)
  assert len(rows) == len(scene.events)
  for row, event in zip(rows, scene.events, strict=True):
    assert list(row)[: len(EGOCLIP)] == EGOCLIP
    assert row["clip_text"].startswith("#C C ")
    assert (row["clip_start"], row["clip_end"]) == (event.start / FPS, event.stop / FPS)
    assert row["clip_start"] < row["narration_time"] < row["clip_end"] <= row["video_dur"]
    assert VERBS[row["tag_verb"][0]] == event.name
    assert scene.things[event.thing].name == NOUNS[row["tag_noun"][0]]
    assert len(row["tag_noun"]) == (2 if event.name == "swap" else 1)
    assert all(NOUNS[noun] in row["clip_text"] for noun in row["tag_noun"])
    assert FORMS[event.name].third.split()[0] in row["clip_text"].split()


def test_the_first_column_group_is_that_of_the_real_file(real_data):
  file = real_data / "annotations" / "egoclip_egomcq_format" / "egoclip_readme_row.tsv"
  assert file.read_text().splitlines()[0].split("\t") == EGOCLIP


def test_narrations_close_in_time_share_a_scene_and_videos_do_not():
  rows = [r for i in (0, 1) for r in narrations(scenario(World(frames=1024), i))]
  times = {}
  for row in rows:
    assert row["scene_id"].startswith(row["video_uid"])
    times.setdefault(row["scene_id"], []).append(row["narration_time"])
  assert len(times) > 8
  assert all(max(t) - min(t) < SCENE_SECONDS for t in times.values())


def test_verbs_are_told_apart_by_their_words():
  assert set(FORMS) == set(VERBS)
  for form in ("base", "third", "past"):
    assert len({getattr(forms, form) for forms in FORMS.values()}) == len(VERBS)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_summary_names_what_is_there_how_it_begins_and_how_it_ends(rung):
  for index in range(12):
    scene = scenario(World(rung=rung, frames=256), index)
    told = summary(scene)
    assert all(f"a {thing.name}" in told for thing in scene.things)
    first, last = narrations(scene)[0], narrations(scene)[-1]
    assert last["clip_text"].removeprefix("#C ") in told
    assert first["clip_text"].removeprefix("#C ") in caption(scene)


def test_the_summary_of_a_routine_tells_its_class():
  """First verb, number of rotations and last verb can be read from it, so the class can be."""
  said = {}
  for index in range(24):
    scene = scenario(World(), index)
    told = [word for word in words(summary(scene)) if word not in words(" ".join(NOUNS))]
    key = " ".join(told[told.index("first") :])
    assert said.setdefault(key, labels(scene)["routine"]) == labels(scene)["routine"]


@pytest.mark.parametrize("rung", RUNGS)
def test_captions_say_the_same_in_three_ways(rung):
  for index in range(12):
    scene = scenario(World(rung=rung, frames=256), index)
    present, past, someone = captions(scene)
    assert present == caption(scene) and len({present, past, someone}) == 3
    assert someone == present.replace("C ", "someone ", 1)
    assert past.startswith(f"C {say(scene.events[0], scene, 'past')}")
    assert {*words(present)} - {*words(past)} <= {*words(" ".join(f.third for f in FORMS.values()))}


@pytest.mark.parametrize("rung", RUNGS)
def test_objects_tells_what_is_there_and_nothing_of_what_happens(rung):
  for index in range(12):
    scene = scenario(World(rung=rung, frames=256), index)
    turned = dataclasses.replace(scene, things=scene.things[::-1], events=())
    told = objects(scene)
    assert told == objects(turned) and told.endswith(" on a table")
    assert all(f"a {thing.name}" in told for thing in scene.things)
    allowed = words(" ".join(thing.name for thing in scene.things))
    assert {*words(told)} <= {*allowed, "a", "and", ",", "on", "table"}


def test_one_two_and_three_objects():
  said = {}
  for index in range(40):
    scene = scenario(World(rung="appearance", objects=(1, 3)), index)
    said.setdefault(len(scene.things), objects(scene))
  counts = {number: (text.count("a "), text.count(",")) for number, text in said.items()}
  # "on a table" is one more
  assert counts == {1: (2, 0), 2: (3, 0), 3: (4, 1)} and " and " in said[2] and " and " in said[3]


def test_every_event_is_said_in_each_stretch_that_it_lasts_into():
  for index in range(6):
    scene = scenario(World(frames=128), index)
    parts = [part for part in segments(scene).split("Part ") if part]
    assert [part.split(": ")[0] for part in parts] == [str(n) for n in range(1, 9)]
    for number, part in enumerate(parts):
      frames = range(16 * number, 16 * number + 16)
      events = [e for e in scene.events if set(frames) & set(range(e.start, e.stop))]
      assert all(say(event, scene) in part for event in events)
      assert part.count("C ") == bool(events) and ("nothing happens" in part) != bool(events)


def test_order_tells_every_event_and_another_order_otherwise():
  for index in range(12):
    scene = scenario(World(frames=256), index)
    told = order(scene)
    parts = told.removeprefix("C ").split(", then ")
    assert parts == [say(event, scene) for event in scene.events] and len(parts) > 2
    turned = dataclasses.replace(scene, events=scene.events[::-1])
    assert sorted(words(order(turned))) == sorted(words(told)) and order(turned) != told
