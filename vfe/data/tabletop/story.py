"""What happens in a video: which objects stand where, and which events come when."""

import dataclasses

import numpy as np

from vfe.data.tabletop.world import (
  COLOURS,
  FIRST_VERBS,
  LAST_VERBS,
  NOUNS,
  ORDER_VERBS,
  ORDERS,
  REPEATED_VERB,
  REPEATS,
  ROUTINES,
  SHAPES,
  VERBS,
  World,
  balanced,
  generator,
)

COLUMNS, ROWS = 3, 2
CELL_X = (0.2, 0.5, 0.8)  # widths of the picture, at the camera's rest
CELL_Y = (0.36, 0.7)
RADIUS = 0.125
PROMINENT_RADIUS, SMALL_RADIUS = 0.19, 0.085
LONGEST_EVENT = 64  # frames
SLOT = 28  # frames of an event in a long routine

# What a long routine is filled with: each unit leaves the table as free as it found it.
FILLERS = (
  ("tap",),
  ("shake",),
  ("swap",),
  ("lift", "put down"),
  ("tip over", "stand up"),
  ("cover", "uncover"),
)
GENTLE_VERBS = ("tap", "shake", "rotate")  # they leave every object in its place and in sight

# The state that an event leaves its object in, and the one it needs ("free" when not named).
LEAVES = {"lift": "held", "tip over": "lying", "cover": "covered"}
NEEDS = {"put down": "held", "stand up": "lying", "uncover": "covered"}


@dataclasses.dataclass(frozen=True)
class Thing:
  """An object as the video begins; state is free, held, lying or covered."""

  noun: int
  cell: int
  offset: tuple[float, float]
  radius: float
  state: str = "free"

  @property
  def name(self) -> str:
    return NOUNS[self.noun]

  @property
  def colour(self) -> int:
    return self.noun // len(SHAPES)

  @property
  def shape(self) -> int:
    return self.noun % len(SHAPES)

  def position(self) -> tuple[float, float]:
    """Centre on the table, x to the right and y towards the viewer."""
    row, column = divmod(self.cell, COLUMNS)
    return CELL_X[column] + self.offset[0], CELL_Y[row] + self.offset[1]


@dataclasses.dataclass(frozen=True)
class Event:
  """The hand does `verb` to a thing in the frames start <= t < stop.

  other: the second thing of a swap, else -1. side: -1 or 1, where a thing tips to.
  """

  verb: int
  thing: int
  start: int
  stop: int
  other: int = -1
  side: int = 1

  @property
  def name(self) -> str:
    return VERBS[self.verb]


@dataclasses.dataclass(frozen=True)
class Scenario:
  """One video's story. task is the class of the rung's leading head; prominent a thing or -1."""

  split: str
  index: int
  rung: str
  frames: int
  task: int
  things: tuple[Thing, ...]
  events: tuple[Event, ...]
  prominent: int = -1

  @property
  def uid(self) -> str:
    return f"tabletop-{self.split}-{self.index:06d}"


@dataclasses.dataclass
class _Table:
  """The table while a story is planned: where each thing is, in which state, seen first how."""

  cells: list[int]
  states: list[str]
  touched: list[bool]
  begins: list[str]

  def candidates(self, verb: str) -> list[int]:
    """The things to which the verb can be done now."""
    needed = NEEDS.get(verb, "free")
    ready = [i for i, state in enumerate(self.states) if state == needed]
    if not ready and verb in NEEDS and not any(self.touched):
      return list(range(len(self.cells)))  # the video begins with it in the hand, lying, covered
    if verb in ("push left", "push right"):
      return [i for i in ready if self._neighbour(i, verb) is not None]
    if verb == "swap" and len(ready) < 2:
      return []
    return ready

  def _neighbour(self, thing: int, verb: str) -> int | None:
    """The free cell beside a thing, where a push would take it."""
    row, column = divmod(self.cells[thing], COLUMNS)
    column += -1 if verb == "push left" else 1
    cell = row * COLUMNS + column
    return cell if 0 <= column < COLUMNS and cell not in self.cells else None

  def do(self, verb: str, thing: int, other: int) -> None:
    """Brings the table to where it is after the event."""
    if verb in NEEDS and self.states[thing] != NEEDS[verb]:
      self.begins[thing] = NEEDS[verb]
    if verb in ("push left", "push right"):
      self.cells[thing] = self._neighbour(thing, verb)
    elif verb == "swap":
      cells = self.cells
      cells[thing], cells[other] = cells[other], cells[thing]
    self.states[thing] = LEAVES.get(verb, "free")
    self.touched[thing] = True


def _choose_things(rng: np.random.Generator, verbs: list[str], count: int):
  """Places `count` things and finds a thing for each verb: (cells, begins, [(thing, other)]).

  Most layouts allow any story; one that does not is drawn again.
  """
  while True:
    cells = rng.permutation(COLUMNS * ROWS)[:count].tolist()
    table = _Table(list(cells), ["free"] * count, [False] * count, ["free"] * count)
    actors = []
    for verb in verbs:
      candidates = table.candidates(verb)
      if not candidates:
        break
      thing = int(rng.choice(candidates))
      other = -1
      if verb == "swap":
        other = int(rng.choice([i for i in candidates if i != thing]))
      table.do(verb, thing, other)
      actors.append((thing, other))
    else:
      return cells, table.begins, actors


def _events(rng, verbs, actors, windows) -> tuple[Event, ...]:
  events = []
  for verb, (thing, other), (start, stop) in zip(verbs, actors, windows, strict=True):
    side = 1 if rng.random() < 0.5 else -1
    if verb == "stand up":  # it stands up from the side to which it has fallen
      fallen = [e for e in events if e.thing == thing and e.name == "tip over"]
      side = fallen[-1].side if fallen else side
    events.append(Event(VERBS.index(verb), thing, start, stop, other, side))
  return tuple(events)


def _windows(rng, frames: int, occupied: list[bool]) -> list[tuple[int, int]]:
  """Cuts the video into slots of unequal length; an event takes most of its slot.

  Unequal, so that what happens at a given frame does not tell which event of the story it is.
  """
  edges = np.cumsum(rng.uniform(0.7, 1.3, len(occupied)))
  edges = np.concatenate([[0.0], edges * (frames / edges[-1])])
  windows = []
  for start, end, used in zip(edges[:-1], edges[1:], occupied, strict=True):
    room = end - start
    length = max(3, min(LONGEST_EVENT, int(room * (0.85 + 0.15 * rng.random()))))
    start = int(start + rng.random() * (room - length))
    if used:
      windows.append((start, start + length))
  return windows


def _routine_verbs(rng: np.random.Generator, frames: int, task: int) -> list[str]:
  """The verbs of a routine in slots, "" where the hand rests.

  The middle has three slots of rotations and rests, and in long videos fillers among them; so
  neither its length nor the number of fillers tells how many rotations there are.
  """
  first, repeats, last = ROUTINES[task]
  units = [(REPEATED_VERB,)] * repeats + [("",)] * (len(REPEATS) - repeats)
  room = max(0, frames // SLOT - 2 - len(REPEATS))
  while room:
    unit = FILLERS[rng.integers(len(FILLERS))]
    if len(unit) <= room:
      units.append(unit)
      room -= len(unit)
  middle = [verb for i in rng.permutation(len(units)) for verb in units[i]]
  return [first, *middle, last]


def _slots(world: World, rng: np.random.Generator, task: int) -> list[str]:
  """The verbs of the rung's story, in the slots of the video."""
  if world.rung == "appearance":
    return [GENTLE_VERBS[rng.integers(len(GENTLE_VERBS))]]
  if world.rung == "verb":
    return [VERBS[task]]
  if world.rung == "order":
    return list(ORDERS[task])
  return _routine_verbs(rng, world.frames, task)


CLASSES = {
  "appearance": len(NOUNS),
  "verb": len(VERBS),
  "order": len(ORDERS),
  "routine": len(ROUTINES),
  "control": len(ROUTINES),
}


def scenario(world: World, index: int, split: str = "train") -> Scenario:
  """The story of a video: a pure function of (world, split, index), whatever size and texture.

  The class of the rung's leading head is dealt in blocks, so that any run of videos is balanced;
  everything else is drawn independently of it.
  """
  use = "routine" if world.rung == "control" else world.rung
  task = balanced(world, split, index, CLASSES[world.rung], use)
  rng = generator(world, split, index, "story")
  slots = _slots(world, rng, task)
  verbs = [verb for verb in slots if verb]
  count = int(rng.integers(world.objects[0], world.objects[1] + 1))
  cells, begins, actors = _choose_things(rng, verbs, count)
  events = _events(rng, verbs, actors, _windows(rng, world.frames, [bool(v) for v in slots]))
  nouns = rng.permutation(len(NOUNS))[:count].tolist()
  radii = [RADIUS] * count
  prominent = -1
  if world.rung == "appearance":
    prominent = 0
    if task in nouns:
      nouns[nouns.index(task)] = nouns[0]
    nouns[0] = task
    radii = [PROMINENT_RADIUS] + [SMALL_RADIUS] * (count - 1)
  offsets = rng.uniform(-0.02, 0.02, (count, 2)).tolist()
  things = tuple(
    Thing(noun, cell, (offset[0], offset[1]), radius, state)
    for noun, cell, offset, radius, state in zip(nouns, cells, offsets, radii, begins, strict=True)
  )
  return Scenario(split, index, world.rung, world.frames, task, things, events, prominent)


def labels(scenario: Scenario) -> dict[str, int]:
  """Every label that the video has: those of its rung's heads, and what is on the table."""
  words = {COLOURS[thing.colour] for thing in scenario.things}
  words |= {SHAPES[thing.shape] for thing in scenario.things}
  present = {f"has_{word}": int(word in words) for word in COLOURS + SHAPES}
  return {**_task_labels(scenario), **present}


def _task_labels(scenario: Scenario) -> dict[str, int]:
  task = scenario.task
  if scenario.rung == "appearance":
    return {"noun": task, "colour": task // len(SHAPES), "shape": task % len(SHAPES)}
  if scenario.rung == "verb":
    return {"verb": task, "noun": scenario.things[scenario.events[0].thing].noun}
  if scenario.rung == "order":
    first, second = ORDERS[task]
    return {
      "order": task,
      "first": ORDER_VERBS.index(first),
      "second": ORDER_VERBS.index(second),
    }
  first, repeats, last = ROUTINES[task]
  return {
    "routine": task,
    "first": FIRST_VERBS.index(first),
    "repeats": REPEATS.index(repeats),
    "last": LAST_VERBS.index(last),
  }
