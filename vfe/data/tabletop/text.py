"""What is said about a video: narrations, captions, a summary.

C is the person whose hand it is, as in Ego4D's narrations.
"""

import dataclasses

from vfe.data.segments import FRAMES as SEGMENT
from vfe.data.segments import joined
from vfe.data.tabletop.story import Event, Scenario
from vfe.data.tabletop.world import FPS, REPEATED_VERB, ROUTINES

SCENE_SECONDS = 8.0  # narrations within one such stretch of a video share a scene


@dataclasses.dataclass(frozen=True)
class Forms:
  """A verb's forms, {} standing for its object (and a second {} for a swap's other one)."""

  base: str
  third: str
  past: str


FORMS = {
  "push left": Forms("push {} to the left", "pushes {} to the left", "pushed {} to the left"),
  "push right": Forms("push {} to the right", "pushes {} to the right", "pushed {} to the right"),
  "lift": Forms("lift {}", "lifts {}", "lifted {}"),
  "put down": Forms("put down {}", "puts down {}", "put down {}"),
  "rotate": Forms("rotate {}", "rotates {}", "rotated {}"),
  "tip over": Forms("tip over {}", "tips over {}", "tipped over {}"),
  "stand up": Forms("stand up {}", "stands up {}", "stood up {}"),
  "shake": Forms("shake {}", "shakes {}", "shook {}"),
  "cover": Forms("cover {}", "covers {}", "covered {}"),
  "uncover": Forms("uncover {}", "uncovers {}", "uncovered {}"),
  "swap": Forms("swap {} with {}", "swaps {} with {}", "swapped {} with {}"),
  "tap": Forms("tap {}", "taps {}", "tapped {}"),
}
TIMES = {1: "once", 2: "twice", 3: "three times"}


def names(event: Event, scene: Scenario) -> tuple[str, ...]:
  """The objects of an event, each with its article; two for a swap."""
  things = (event.thing,) if event.other < 0 else (event.thing, event.other)
  return tuple(f"the {scene.things[i].name}" for i in things)


def say(event: Event, scene: Scenario, form: str = "third") -> str:
  """What the hand does in an event, such as "pushes the red ball to the left"."""
  return getattr(FORMS[event.name], form).format(*names(event, scene))


def noun_ids(event: Event, scene: Scenario) -> list[int]:
  """The classes (in NOUNS) of the objects of an event."""
  things = (event.thing,) if event.other < 0 else (event.thing, event.other)
  return [scene.things[i].noun for i in things]


def seconds(frame: int) -> float:
  """When a frame begins, as the video file tells it."""
  return round(frame / FPS, 4)


def narrations(scene: Scenario) -> list[dict]:
  """One row an event, with EgoClip's columns and `scene_id`; tags are classes in VERBS and NOUNS.

  A clip is exactly the event: from when the hand sets out until it is gone.
  """
  rows = []
  for number, event in enumerate(scene.events):
    middle = (event.start + event.stop) / 2 / FPS
    row = {
      "video_uid": scene.uid,
      "video_dur": seconds(scene.frames),
      "narration_source": "narration_pass_1",
      "narration_ind": number,
      "narration_time": round(middle, 4),
      "clip_start": seconds(event.start),
      "clip_end": seconds(event.stop),
      "clip_text": f"#C C {say(event, scene)}",
      "tag_verb": [event.verb],
      "tag_noun": noun_ids(event, scene),
      "scene_id": f"{scene.uid}_{int(middle // SCENE_SECONDS)}",
    }
    rows.append(row)
  return rows


def _series(parts: list[str]) -> str:
  return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def caption(scene: Scenario, form: str = "third", who: str = "C") -> str:
  """One short sentence: the action, or the first and the last of them."""
  first, last = scene.events[0], scene.events[-1]
  text = f"{who} {say(first, scene, form)}"
  return text if first is last else f"{text} and in the end {say(last, scene, form)}"


def captions(scene: Scenario) -> list[str]:
  """The caption in three ways: as it is, in the past tense, and of someone."""
  return [caption(scene), caption(scene, "past"), caption(scene, who="someone")]


def objects(scene: Scenario) -> str:
  """What is on the table, in the order of the alphabet; nothing of what happens."""
  return f"{_series([f'a {name}' for name in sorted(t.name for t in scene.things)])} on a table"


def order(scene: Scenario) -> str:
  """Everything that happens, in its order; another order of the same events is another text."""
  return f"C {', then '.join(say(event, scene) for event in scene.events)}"


def segments(scene: Scenario) -> str:
  """What is done in each stretch of 16 frames, said of every stretch that an event lasts into."""
  said = []
  for start in range(0, scene.frames, SEGMENT):
    events = [e for e in scene.events if e.start < start + SEGMENT and start < e.stop]
    said.append(f"C {_series([say(event, scene) for event in events])}" if events else "")
  return joined(said)


def texts(scene: Scenario) -> dict[str, str | list[str]]:
  """All captions of a video by `data.text.key`."""
  return {
    "caption": caption(scene),
    "captions": captions(scene),
    "summary": summary(scene),
    "objects": objects(scene),
    "order": order(scene),
    "segments": segments(scene),
  }


def summary(scene: Scenario) -> str:
  """The whole video: what is on the table, how it begins, what happens how often, how it ends."""
  things = _series([f"a {thing.name}" for thing in scene.things])
  verb = "is" if len(scene.things) == 1 else "are"
  parts = [f"There {verb} {things} on the table."]
  first, *rest = scene.events
  if not rest:
    return " ".join([*parts, f"C {say(first, scene)}."])
  parts.append(f"First C {say(first, scene)}.")
  repeats = sum(event.name == REPEATED_VERB for event in rest[:-1])
  others = list(dict.fromkeys(say(e, scene) for e in rest[:-1] if e.name != REPEATED_VERB))
  if repeats:
    parts.append(f"In the middle C rotates something {TIMES[repeats]}.")
  if others:
    parts.append(f"In between C {_series(others)}.")
  parts.append(f"In the end C {say(rest[-1], scene)}.")
  return " ".join(parts)


def routine_phrase(task: int) -> str:
  """A routine in words, without its objects."""
  first, repeats, last = ROUTINES[task]
  begin = FORMS[first].third.format("something")
  end = FORMS[last].third.format("something")
  return f"C {begin}, then rotates something {TIMES[repeats]}, and in the end {end}"
