"""What a compiled program sends between devices, read from its text (HLO).

Counts are of a step: what is in a loop runs as often as the loop. XLA writes that number beside
most loops; else it is read from the loop's condition (a counter below a constant, which is how JAX
writes a scan). A loop that has neither counts once, and `Traffic.exact` is False.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|true_computation|false_computation)=%([\w.\-]+)"
  r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_CONDITION = re.compile(r"condition=%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Collective:
  """count: how often it runs in a step; bytes: of the arrays that one device sees whole, summed
  over those runs (the larger of what goes in and what comes out, before any ring's factor)."""

  kind: str
  count: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class Traffic:
  """The collectives of a program by kind; exact: every loop's length was found."""

  collectives: list[Collective]
  exact: bool


def traffic(text: str) -> Traffic:
  """The collectives of a compiled program's text (`compiled.as_text()`)."""
  return _Module(text).traffic()


@dataclasses.dataclass(frozen=True)
class _Instruction:
  shape: str
  opcode: str
  operands: tuple[str, ...]
  line: str


class _Module:
  def __init__(self, text: str):
    self.computations: dict[str, dict[str, _Instruction]] = {}
    self.lines: dict[str, list[str]] = {}
    self.entry = ""
    self.exact = True
    self._found: dict[str, dict[str, tuple[int, int]]] = {}
    self._parse(text)

  def _parse(self, text: str) -> None:
    current: str | None = None
    for line in text.splitlines():
      header = _HEADER.match(line)
      if header:
        current = header[2]
        self.computations[current], self.lines[current] = {}, []
        self.entry = current if header[1] else self.entry
      elif line == "}":  # kernels have attributes of several lines, which begin with one, too
        current = None
      elif current is not None:
        self.lines[current].append(line)
        found = _instruction(line)
        if found:
          self.computations[current][found[0]] = found[1]

  def traffic(self) -> Traffic:
    found = self._of(self.entry)
    collectives = [Collective(kind, *found[kind]) for kind in KINDS if kind in found]
    return Traffic(collectives, self.exact)

  def _of(self, name: str) -> dict[str, tuple[int, int]]:
    """{kind: (count, bytes)} of one run of a computation and of all that it calls."""
    if name not in self._found:
      self._found[name] = self._added(name)
    return self._found[name]

  def _added(self, name: str) -> dict[str, tuple[int, int]]:
    total: collections.Counter = collections.Counter()
    size: collections.Counter = collections.Counter()

    def add(found: dict[str, tuple[int, int]], times: int) -> None:
      for kind, (count, moved) in found.items():
        total[kind] += times * count
        size[kind] += times * moved

    for own, instruction in self.computations.get(name, {}).items():
      kind = instruction.opcode.removesuffix("-start")
      if kind in KINDS:
        # A fused scatter of an all-reduced sum is a reduce-scatter.
        kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind
        add({kind: (1, self._bytes(name, instruction))}, 1)
        continue
      if own.startswith("async-collective-done"):
        continue  # the start was counted
      called = [self._of(inner) for inner in _called(instruction.line) if not _passes(inner)]
      if instruction.opcode == "conditional":
        called = [max(called, key=lambda found: sum(moved for _, moved in found.values()))]
      times = self._trips(instruction.line) if instruction.opcode == "while" else 1
      for found in called:
        if found and times is None:
          self.exact = False
        add(found, times or 1)
    return {kind: (total[kind], size[kind]) for kind in total}

  def _bytes(self, computation: str, instruction: _Instruction) -> int:
    known = self.computations[computation]
    given = sum(_bytes(known[name].shape) for name in instruction.operands if name in known)
    made = _bytes(instruction.shape)
    if instruction.opcode.endswith("-start") and made > given:
      made -= given  # its result carries what went in, too
    return max(given, made)

  def _trips(self, line: str) -> int | None:
    written = _TRIPS.search(line)
    if written:
      return int(written[1])
    condition = _CONDITION.search(line)
    lines = self._with_called(condition[1]) if condition else []
    constants = [int(found[1]) for text in lines if (found := _CONSTANT.search(text))]
    below = any("direction=LT" in text for text in lines)
    return constants[0] if below and len(constants) == 1 else None

  def _with_called(self, name: str) -> list[str]:
    lines = self.lines.get(name, [])
    called = (inner for line in lines for inner in _called(line))
    return [*lines, *(line for inner in called for line in self.lines.get(inner, ()))]


def _passes(computation: str) -> bool:
  """Whether it computes while a collective that was started before it goes on, and names it."""
  return computation.startswith("async_collective_fusion")


def _instruction(line: str) -> tuple[str, _Instruction] | None:
  found = _INSTRUCTION.match(line)
  opcode = _OPCODE.search(" " + found[2]) if found else None
  if not opcode:
    return None
  rest = (" " + found[2])[opcode.end() :]
  operands = tuple(_NAME.findall(rest[: _closing(rest)]))
  return found[1], _Instruction((" " + found[2])[: opcode.start()], opcode[1], operands, line)


def _closing(text: str) -> int:
  """Where the parenthesis that is open at the start of the text closes."""
  depth = 1
  for i, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return i
  return len(text)


def _called(line: str) -> Iterator[str]:
  for one, several in _CALLED.findall(line):
    yield from _NAME.findall(several) if several else [one]


def _bytes(shape: str) -> int:
  return sum(_array_bytes(kind, sides) for kind, sides in _SHAPE.findall(shape))


def _array_bytes(kind: str, sides: str) -> int:
  digits = re.search(r"\d+", kind)  # f32, bf16, f8e4m3fn, s4; pred is a byte, a token nothing
  bits = int(digits[0]) if digits else 8 * (kind == "pred")
  return math.prod(int(side.strip("<=")) for side in sides.split(",") if side) * bits // 8
