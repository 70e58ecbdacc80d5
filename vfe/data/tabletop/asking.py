"""What is asked about videos, in the layouts of the official files.

EgoMCQ: which of five clips is this narration of? Ego4D NLQ: when does the answer to this show?
EgoSchema: which of five statements is true of the whole video?
"""

import collections
import itertools

import numpy as np

from vfe.data.tabletop.story import Scenario, scenario
from vfe.data.tabletop.text import FORMS, narrations, routine_phrase, say, seconds
from vfe.data.tabletop.world import NOUNS, ORDERS, ROUTINES, VERBS, World, generator
from vfe.errors import UserError

CHOICES = 5
INTER_VIDEO, INTRA_VIDEO = 1, 2  # EgoMCQ's `types`

NLQ_WHEN = "When did I {}?"
NLQ_WHAT = "What did I {}?"
NLQ_AFTER = "What did I do after I {}?"
ASK_WHOLE = "Taking the whole video into account, what does C do?"
ASK_ENDS = "Which object does C act on first, and which one last?"
ASK_LARGE = "Which object is the large one?"
ENDS = "first {}, last {}"
TEMPLATES = (NLQ_WHEN, NLQ_WHAT, NLQ_AFTER, ASK_WHOLE, ASK_ENDS, ASK_LARGE, ENDS)


def queries(scene: Scenario) -> list[dict]:
  """Language queries about single events, with Ego4D NLQ's fields; windows lie in the video.

  Only what has one answer is asked: the event is the only one of its kind in the video.
  """
  verbs = collections.Counter(event.verb for event in scene.events)
  texts = collections.Counter(say(event, scene) for event in scene.events)
  rows = []
  for event, following in itertools.zip_longest(scene.events, scene.events[1:]):
    if texts[say(event, scene)] > 1:
      continue
    rows.append(_query(scene, event, event, NLQ_WHEN.format(say(event, scene, "base"))))
    if verbs[event.verb] == 1 and event.other < 0:
      asked = FORMS[event.name].base.replace(" {}", "")
      rows.append(_query(scene, event, event, NLQ_WHAT.format(asked)))
    if following is not None:
      asked = NLQ_AFTER.format(say(event, scene, "past"))
      rows.append(_query(scene, event, following, asked))
  return rows


def _query(scene, subject, shown, text: str) -> dict:
  """A row of `language_queries`: the text is about one event, the window is where `shown` is."""
  start, end = seconds(shown.start), seconds(shown.stop)
  template = "order" if subject is not shown else text.split()[0].lower()
  return {
    "clip_start_sec": start,
    "clip_end_sec": end,
    "video_start_sec": start,
    "video_end_sec": end,
    "video_start_frame": shown.start,
    "video_end_frame": shown.stop,
    "template": template,
    "query": text,
    "slot_x": scene.things[subject.thing].name,
    "verb_x": subject.name,
    "raw_tags": [template, text, scene.things[subject.thing].name, subject.name],
  }


def language_queries(world: World, split: str, count: int) -> dict:
  """The queries of `count` videos as an Ego4D NLQ file holds them; one clip is a whole video."""
  videos = []
  for index in range(count):
    scene = scenario(world, index, split)
    annotation = {"annotation_uid": f"{scene.uid}-nlq", "language_queries": queries(scene)}
    clip = {
      "clip_uid": scene.uid,
      "source_clip_uid": scene.uid,
      "video_start_sec": 0.0,
      "video_end_sec": seconds(scene.frames),
      "video_start_frame": 0,
      "video_end_frame": scene.frames,
      "annotations": [annotation],
    }
    videos.append({"video_uid": scene.uid, "split": split, "clips": [clip]})
  return {
    "version": "1",
    "date": "",
    "description": "vfe tabletop world, language queries",
    "manifest": f"tabletop-{world.digest()}",
    "videos": videos,
  }


def _choose(rng: np.random.Generator, right: str, wrong: list[str]) -> dict | None:
  """Five options with the right one at a random place; None when there are too few wrong ones."""
  wrong = sorted(set(wrong) - {right})
  if len(wrong) < CHOICES - 1:
    return None
  picked = [wrong[i] for i in rng.permutation(len(wrong))[: CHOICES - 1]]
  answer = int(rng.integers(CHOICES))
  picked.insert(answer, right)
  return {**{f"option {i}": text for i, text in enumerate(picked)}, "answer": answer}


def _whole(scene: Scenario) -> tuple[str, str, list[str]]:
  """The question about what the rung's label decides, its answer, and the other classes' answers.

  Classes are equally frequent and wrong options are drawn from all others alike, so the options
  alone do not give the answer away.
  """
  if scene.rung == "appearance":
    return ASK_LARGE, f"the {NOUNS[scene.task]}", [f"the {noun}" for noun in NOUNS]
  if scene.rung == "verb":
    options = [f"C {FORMS[verb].third.format(*['something'] * 2)}" for verb in VERBS]
  elif scene.rung == "order":
    phrase = lambda verb: FORMS[verb].third.format("something")
    options = [f"C {phrase(first)}, then {phrase(second)}" for first, second in ORDERS]
  else:
    options = [routine_phrase(task) for task in range(len(ROUTINES))]
  return ASK_WHOLE, options[scene.task], options


def _ends(scene: Scenario) -> tuple[str, str, list[str]] | None:
  """First and last object acted on, among all ordered pairs of the objects on the table.

  Asked only where they differ: then every pair is equally likely beforehand.
  """
  first, last = scene.events[0].thing, scene.events[-1].thing
  if first == last:
    return None
  phrase = lambda one, two: ENDS.format(f"the {one.name}", f"the {two.name}")
  options = [phrase(*pair) for pair in itertools.permutations(scene.things, 2)]
  return ASK_ENDS, phrase(scene.things[first], scene.things[last]), options


def questions(world: World, scene: Scenario) -> list[dict]:
  """5-way questions on the whole video, with EgoSchema's fields and `answer` (0..4, uniform).

  On the rungs order and routine no short window of the video answers them.
  """
  rng = generator(world, scene.split, scene.index, "questions")
  rows = []
  for asked in (_whole(scene), _ends(scene)):
    options = None if asked is None else _choose(rng, *asked[1:])
    if options is not None:
      uid = f"{scene.uid}-q{len(rows)}"
      rows.append({"q_uid": uid, "google_drive_id": "", "question": asked[0], **options})
  return rows


def choices(world: World, scene: Scenario) -> list[dict]:
  """`questions` as the texts of records, as `vfe.data.questions` has them: id, video, question,
  options, answer (a number from 0), answers, and type: "whole" or "ends"."""
  rows = []
  for asked in questions(world, scene):
    options = tuple(asked[f"option {i}"] for i in range(CHOICES))
    row = {
      "id": asked["q_uid"],
      "video": scene.uid,
      "question": asked["question"],
      "type": "ends" if asked["question"] == ASK_ENDS else "whole",
      "options": options,
      "answer": asked["answer"],
      "answers": (options[asked["answer"]],),
    }
    rows.append(row)
  return rows


def multiple_choice(world: World, split: str, count: int, kind: int) -> dict[str, dict]:
  """EgoMCQ's layout: {"0": {answer, types, query, choices: {"0".."4": row}}, ...}.

  kind INTER_VIDEO: each of the `count` videos gives a narration, the other four clips are of four
  other videos. INTRA_VIDEO: all five are of one video; a video with fewer than five different
  narrations gives none, so that few videos below about 256 frames give any.
  """
  if kind not in (INTER_VIDEO, INTRA_VIDEO):
    raise UserError(f"multiple choice of kind {kind}: use 1 (inter-video) or 2 (intra-video).")
  pool = [narrations(scenario(world, index, split)) for index in range(count)]
  items = {}
  for index, rows in enumerate(pool):
    rng = generator(world, split, index, f"multiple choice {kind}")
    rows = [rows[i] for i in rng.permutation(len(rows))]
    if kind == INTER_VIDEO:
      others = (pool[i] for i in rng.permutation(count).tolist() if i != index)
      rows = rows[:1] + [other[rng.integers(len(other))] for other in others]
    chosen = list({row["clip_text"]: row for row in reversed(rows)}.values())[::-1][:CHOICES]
    if len(chosen) < CHOICES:
      continue
    query = chosen.pop(0)
    answer = int(rng.integers(CHOICES))
    chosen.insert(answer, query)
    choices = {str(i): row for i, row in enumerate(chosen)}
    items[str(len(items))] = {"answer": answer, "types": kind, "query": query, "choices": choices}
  return items
