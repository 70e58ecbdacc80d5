"""Questions have one derivable answer, and nothing but the video gives it away."""

import collections
import json

import pytest

from vfe.data.tabletop.asking import (
  ASK_ENDS,
  INTER_VIDEO,
  INTRA_VIDEO,
  NLQ_AFTER,
  language_queries,
  multiple_choice,
  queries,
  questions,
)
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import narrations, routine_phrase, say
from vfe.data.tabletop.world import FPS, RUNGS, World
from vfe.errors import UserError

LONG = World(frames=512, objects=(3, 5))


def options(question):
  return [question[f"option {i}"] for i in range(5)]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_question_has_five_different_options_and_is_always_the_same(rung):
  world = World(rung=rung, objects=(3, 4))
  for index in range(10):
    scene = scenario(world, index)
    asked = questions(world, scene)
    assert asked and asked == questions(world, scene)
    for question in asked:
      assert len(set(options(question))) == 5 and 0 <= question["answer"] < 5


def test_answers_are_what_the_events_say():
  kinds = collections.Counter()
  for index in range(40):
    scene = scenario(LONG, index)
    for question in questions(LONG, scene):
      right = options(question)[question["answer"]]
      kinds[question["question"]] += 1
      if question["question"] == ASK_ENDS:
        first, last = (scene.things[scene.events[i].thing].name for i in (0, -1))
        assert right == f"first the {first}, last the {last}"
      else:
        assert right == routine_phrase(scene.task)
  assert len(kinds) == 2 and min(kinds.values()) > 15


def test_answers_are_uniform_over_the_options():
  """Chi-squared over five places, 4 degrees of freedom: above 18.5 once in a thousand."""
  world = World(frames=64, objects=(3, 4))
  places = collections.Counter()
  for index in range(400):
    places.update(q["answer"] for q in questions(world, scenario(world, index)))
  expected = sum(places.values()) / 5
  assert sum((places[i] - expected) ** 2 / expected for i in range(5)) < 18.5


def test_options_alone_do_not_give_the_answer():
  """The option most like the others would be right too often if wrong ones were made from it."""
  hits, asked = 0, 0
  for index in range(400):
    question = questions(World(frames=64), scenario(World(frames=64), index))[0]
    bags = [set(text.split()) for text in options(question)]
    alike = [sum(len(a & b) for b in bags) for a in bags]
    hits += alike.index(max(alike)) == question["answer"]
    asked += 1
  assert abs(hits / asked - 0.2) < 0.08  # four standard deviations of 400 guesses


def test_questions_have_the_official_fields(real_data):
  file = real_data / "annotations" / "egoschema" / "questions_first20.json"
  official = set(json.loads(file.read_text())[0])
  assert set(questions(LONG, scenario(LONG, 0))[0]) == official | {"answer"}


@pytest.mark.parametrize("kind", [INTER_VIDEO, INTRA_VIDEO])
def test_multiple_choice_holds_the_query_once_at_the_answer(kind):
  items = multiple_choice(LONG, "train", 40, kind)
  assert list(items) == [str(i) for i in range(40)]
  for item in items.values():
    assert item["types"] == kind and list(item["choices"]) == list("01234")
    rows = list(item["choices"].values())
    assert rows[item["answer"]] == item["query"]
    assert len({row["clip_text"] for row in rows}) == 5
  places = collections.Counter(item["answer"] for item in items.values())
  assert len(places) == 5


def test_intra_video_choices_are_of_one_video_and_inter_video_ones_of_five():
  of = lambda kind: [
    {row["video_uid"] for row in item["choices"].values()}
    for item in multiple_choice(LONG, "train", 20, kind).values()
  ]
  assert all(len(videos) == 1 for videos in of(INTRA_VIDEO))
  assert all(len(videos) == 5 for videos in of(INTER_VIDEO))


def test_videos_with_fewer_than_five_narrations_give_no_intra_video_item():
  world = World(rung="verb", frames=64)
  assert multiple_choice(world, "train", 12, INTRA_VIDEO) == {}
  assert multiple_choice(world, "train", 4, INTER_VIDEO) == {}
  with pytest.raises(UserError, match="kind 3"):
    multiple_choice(world, "train", 12, 3)


def test_multiple_choice_has_the_layout_of_the_official_file(real_data):
  file = real_data / "annotations" / "egoclip_egomcq_format" / "egomcq_SYNTHETIC.json"
  official = json.loads(file.read_text())["0"]
  ours = multiple_choice(LONG, "train", 5, INTRA_VIDEO)["0"]
  assert set(ours) == set(official) and set(ours["choices"]) == set(official["choices"])
  assert set(official["query"]) <= set(ours["query"])


@pytest.mark.parametrize(("rung", "frames"), [("verb", 16), ("order", 64), ("routine", 1024)])
def test_a_query_has_one_answer_and_its_window_is_an_event_in_the_video(rung, frames):
  for index in range(20):
    scene = scenario(World(rung=rung, frames=frames), index)
    windows = {(e.start, e.stop): e for e in scene.events}
    asked = queries(scene)
    assert len({row["query"] for row in asked}) == len(asked)
    for row in asked:
      event = windows[row["video_start_frame"], row["video_end_frame"]]
      assert 0 <= row["clip_start_sec"] < row["clip_end_sec"] <= scene.frames / FPS
      if row["template"] != "order":
        assert event.name == row["verb_x"]
        assert sum(say(e, scene) == say(event, scene) for e in scene.events) == 1


def test_what_comes_after_points_at_the_next_event():
  scene = scenario(LONG, 1)
  rows = {row["query"]: row for row in queries(scene)}
  found = 0
  for event, following in zip(scene.events, scene.events[1:], strict=False):
    row = rows.get(NLQ_AFTER.format(say(event, scene, "past")))
    if row:
      found += 1
      assert row["video_start_frame"] == following.start
  assert found


def test_language_queries_have_the_official_nesting():
  content = json.loads(json.dumps(language_queries(LONG, "validation", 3)))
  assert [video["split"] for video in content["videos"]] == ["validation"] * 3
  for index, video in enumerate(content["videos"]):
    (clip,) = video["clips"]
    (annotation,) = clip["annotations"]
    assert len(annotation["language_queries"]) >= len(
      {row["clip_text"] for row in narrations(scenario(LONG, index, "validation"))}
    ) // 2
    assert all(q["video_end_sec"] <= clip["video_end_sec"] for q in annotation["language_queries"])
