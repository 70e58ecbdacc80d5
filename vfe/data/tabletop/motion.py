"""Where everything is in every frame: a scenario's events turned into tracks.

Positions are in widths of the picture with the camera at rest: x to the right, y towards the
viewer (down in the picture), height up from the table.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vfe.data.tabletop.story import Event, Scenario
from vfe.data.tabletop.world import TEXTURES, World, generator

HOME = (0.62, 1.5)  # where the hand rests, out of sight
RAISED = 0.2  # height of a thing that is held
PUSH = 0.3  # from one column to the next
GRASP = (0.03, 0.13)  # the hand, seen from the middle of the thing that it holds from below
APPROACH, RETREAT = 0.25, 0.75  # shares of an event: the hand comes, acts, goes


@dataclasses.dataclass
class ThingTrack:
  """One thing, float32[T] each: x, y, height, spin (radians), tip (-1..1), squash (share).

  cloth_x, cloth_y: the cloth over it, NaN where there is none in the picture.
  """

  x: np.ndarray
  y: np.ndarray
  height: np.ndarray
  spin: np.ndarray
  tip: np.ndarray
  squash: np.ndarray
  cloth_x: np.ndarray
  cloth_y: np.ndarray


@dataclasses.dataclass
class Motion:
  """Tracks of all things, and of the hand (x, y as seen, its height taken off y), float32[T]."""

  things: list[ThingTrack]
  hand_x: np.ndarray
  hand_y: np.ndarray


@dataclasses.dataclass
class Camera:
  """float32[T] each: where the head looks, how it is turned and how near, how the table slides."""

  pan_x: np.ndarray
  pan_y: np.ndarray
  roll: np.ndarray
  zoom: np.ndarray
  drift_x: np.ndarray
  drift_y: np.ndarray


@dataclasses.dataclass
class _Act:
  """What an event does while the hand is at the thing: offsets from the event's beginning, and
  the hand as seen from the thing. Each is an array over the event's frames or a constant."""

  x: np.ndarray | float = 0.0
  y: np.ndarray | float = 0.0
  height: np.ndarray | float = 0.0
  spin: np.ndarray | float = 0.0
  tip: np.ndarray | float = 0.0
  squash: np.ndarray | float = 0.0
  hand: tuple[np.ndarray | float, np.ndarray | float] = GRASP


def _ease(u: np.ndarray) -> np.ndarray:
  return u * u * (3 - 2 * u)


def _push(direction: int) -> Callable:
  hand = (-direction * 0.17, 0.04)  # behind the thing
  return lambda u, event, frames: _Act(x=direction * PUSH * _ease(u), hand=hand)


def _rotate(u, event, frames):
  swing = 0.9 * np.sin(2 * np.pi * u)
  return _Act(
    spin=2 * np.pi * _ease(u), hand=(GRASP[0] + 0.13 * np.sin(swing), 0.13 * np.cos(swing))
  )


def _tip_over(u, event, frames):
  push = _ease(np.clip(1.5 * u, 0, 1))
  return _Act(tip=event.side * push, hand=(event.side * (-0.17 + 0.16 * push), -0.06 + 0.06 * push))


def _stand_up(u, event, frames):
  pull = _ease(u)
  return _Act(tip=-event.side * pull, hand=(event.side * (0.2 - 0.1 * pull), 0.08 - 0.02 * pull))


def _shake(u, event, frames):
  cycles = np.clip(frames // 9, 2, 4)  # no faster than the frames can show
  hold = np.clip(np.minimum(u, 1 - u) * 8, 0, 1)
  return _Act(x=0.09 * hold * np.sin(2 * np.pi * cycles * u), height=0.06 * hold)


def _tap(u, event, frames):
  away = np.abs(np.cos(2 * np.pi * u))  # the hand touches at a quarter and at three quarters
  return _Act(squash=0.3 * np.clip(1 - 2.5 * away, 0, 1), hand=(0.06, 0.1 + 0.14 * away))


ACTS: dict[str, Callable] = {
  "push left": _push(-1),
  "push right": _push(1),
  "lift": lambda u, event, frames: _Act(height=RAISED * _ease(u)),
  "put down": lambda u, event, frames: _Act(height=-RAISED * _ease(u)),
  "rotate": _rotate,
  "tip over": _tip_over,
  "stand up": _stand_up,
  "shake": _shake,
  "cover": lambda u, event, frames: _Act(hand=(0.03, 0.1)),
  "uncover": lambda u, event, frames: _Act(hand=(0.03, 0.1)),
  "tap": _tap,
}

# Events that end, or begin, with the thing or the cloth in the hand have no retreat, or approach.
STAYS, BEGINS_HOLDING = ("lift",), ("put down",)


def _phases(event: Event) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """float32[n] in 0..1 over the event's frames: how much has the hand come, acted, gone."""
  length = event.stop - event.start
  share = (np.arange(1, length + 1) / length).astype(np.float32)  # the last frame is the end
  begin = 0.0 if event.name in BEGINS_HOLDING else APPROACH
  end = 1.0 if event.name in STAYS else RETREAT
  come = np.clip(share / begin, 0, 1) if begin else np.ones_like(share)
  gone = np.clip((share - end) / (1 - end), 0, 1) if end < 1 else np.zeros_like(share)
  return come, np.clip((share - begin) / (end - begin), 0, 1), gone


def _begin(thing, frames: int, side: int) -> ThingTrack:
  """A thing that nobody touches, in the state in which the video begins."""
  x, y = thing.position()
  still = lambda value: np.full(frames, value, np.float32)
  covered = thing.state == "covered"
  return ThingTrack(
    x=still(x),
    y=still(y),
    height=still(RAISED if thing.state == "held" else 0),
    spin=still(0),
    tip=still(side if thing.state == "lying" else 0),
    squash=still(0),
    cloth_x=still(x if covered else np.nan),
    cloth_y=still(y if covered else np.nan),
  )


def _change(track: np.ndarray, event: Event, change) -> None:
  """Adds a change to a track: during the event as it goes, from then on as it ended."""
  change = np.broadcast_to(np.asarray(change, np.float32), event.stop - event.start)
  track[event.start : event.stop] += change
  track[event.stop :] += change[-1]


def _swap(motion: Motion, event: Event) -> _Act:
  """Both things go half a circle about their middle, where the hand is."""
  one, two = motion.things[event.thing], motion.things[event.other]
  now = event.start
  middle = np.array([one.x[now] + two.x[now], one.y[now] + two.y[now]]) / 2
  reach = np.array([one.x[now], one.y[now]]) - middle
  across = np.array([-reach[1], reach[0]]) * min(1.0, 0.17 / np.hypot(*reach))
  _, acted, _ = _phases(event)
  angle = np.pi * _ease(acted)
  offset = (np.cos(angle) - 1)[:, None] * reach + np.sin(angle)[:, None] * across
  for track, sign in ((one, 1), (two, -1)):
    _change(track.x, event, sign * offset[:, 0])
    _change(track.y, event, sign * offset[:, 1])
  window = slice(event.start, event.stop)
  return _Act(hand=(middle[0] - one.x[window] + GRASP[0], middle[1] - one.y[window] + 0.05))


def _move_things(motion: Motion, event: Event) -> _Act:
  """Writes the event into the thing's track; what it returns says where the hand is."""
  if event.name == "swap":
    return _swap(motion, event)
  length = event.stop - event.start
  _, acted, _ = _phases(event)
  act = ACTS[event.name](acted, event, length)
  track = motion.things[event.thing]
  for name in ("x", "y", "height", "spin", "tip", "squash"):
    _change(getattr(track, name), event, getattr(act, name))
  return act


def _move_hand(motion: Motion, event: Event, act: _Act) -> None:
  """The hand comes from its home to the thing, rides with it, and goes home."""
  come, _, gone = _phases(event)
  window = slice(event.start, event.stop)
  track = motion.things[event.thing]
  x = track.x[window] + act.hand[0]
  y = track.y[window] - track.height[window] + act.hand[1]
  there = _ease(come) * (1 - _ease(gone))
  motion.hand_x[window] = HOME[0] + (x - HOME[0]) * there
  motion.hand_y[window] = HOME[1] + (y - HOME[1]) * there


def _move_cloth(motion: Motion, event: Event) -> None:
  """A cloth comes in the hand and stays on the thing, or goes with the hand."""
  track = motion.things[event.thing]
  length = event.stop - event.start
  _, acted, _ = _phases(event)
  carried = acted < 0.5 if event.name == "cover" else acted > 0.5
  for cloth, place, hand, grip in (
    (track.cloth_x, track.x, motion.hand_x, 0.03),
    (track.cloth_y, track.y, motion.hand_y, 0.1),
  ):
    window = slice(event.start, event.stop)
    at_rest = place[event.start] if event.name == "cover" else cloth[event.start]
    cloth[window] = np.where(carried, hand[window] - grip, np.full(length, at_rest))
    cloth[event.stop :] = at_rest if event.name == "cover" else np.nan


def _hold(motion: Motion, event: Event, frames: int) -> None:
  """The hand stays with a thing that is held before it is put down, or after it is lifted."""
  window = slice(event.stop, frames) if event.name == "lift" else slice(0, event.start)
  track = motion.things[event.thing]
  waiting = np.flatnonzero(track.height[window] > RAISED - 1e-3) + window.start
  motion.hand_x[waiting] = track.x[waiting] + GRASP[0]
  motion.hand_y[waiting] = track.y[waiting] - track.height[waiting] + GRASP[1]


def motion(scenario: Scenario) -> Motion:
  """The tracks of a scenario. A held thing is alone in being acted on until it is put down."""
  frames = scenario.frames
  fallen = {event.thing: event.side for event in reversed(scenario.events)}
  result = Motion(
    things=[_begin(t, frames, fallen.get(i, 1)) for i, t in enumerate(scenario.things)],
    hand_x=np.full(frames, HOME[0], np.float32),
    hand_y=np.full(frames, HOME[1], np.float32),
  )
  for event in scenario.events:
    act = _move_things(result, event)
    _move_hand(result, event, act)
    if event.name in ("cover", "uncover"):
      _move_cloth(result, event)
  for event in scenario.events:
    if event.name in ("lift", "put down"):
      _hold(result, event, frames)
  return result


def _sway(rng: np.random.Generator, frames: int) -> np.ndarray:
  """float32[T], mostly within -1..1: slow turns and quick little ones of a head."""
  time = np.arange(frames)
  periods = rng.uniform((24, 60, 140), (45, 110, 260))
  waves = np.sin(2 * np.pi * (time[:, None] / periods + rng.random(3)))
  return (waves @ (0.2, 0.4, 0.5)).astype(np.float32)


def camera(world: World, scenario: Scenario) -> Camera:
  """The head's motion and the table's drift; their strength goes with the texture."""
  rng = generator(world, scenario.split, scenario.index, "camera")
  texture = TEXTURES[world.texture]
  pan_x, pan_y, roll, zoom = (_sway(rng, scenario.frames) * world.motion for _ in range(4))
  heading = 2 * np.pi * rng.random()
  start = rng.random(2)
  slid = texture.drift * world.motion * np.arange(scenario.frames)
  return Camera(
    pan_x=texture.pan * pan_x,
    pan_y=texture.pan * pan_y,
    roll=texture.roll * roll,
    zoom=1 + texture.zoom * zoom,
    drift_x=(start[0] + np.cos(heading) * slid).astype(np.float32),
    drift_y=(start[1] + np.sin(heading) * slid).astype(np.float32),
  )
