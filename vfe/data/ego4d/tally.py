"""What is left out while Ego4D's lists are read: counted by its kind, the first of each named."""

from __future__ import annotations

import functools
import logging

from vfe.data.ego4d.footage import Absent
from vfe.errors import UserError

KINDS = ("malformed", "of videos that are not there", "of chunks that are not there")


class Tally:
  """Counts rows by kind. `rows` is what they are: "narrations"."""

  def __init__(self, rows: str):
    self._rows = rows
    self._counts = dict.fromkeys(KINDS, 0)
    self._first = dict.fromkeys(KINDS, "")

  def malformed(self, place: str, why: str) -> None:
    """A row that cannot be used, and where it is."""
    self._count(KINDS[0], f"{place}: {why}")

  def absent(self, place: str, error: Absent) -> None:
    """A row whose video, or a chunk of it, is not in the folder."""
    self._count(KINDS[1 + error.chunk], f"{place}: {error.what} is not there")

  def _count(self, kind: str, what: str) -> None:
    self._counts[kind] += 1
    self._first[kind] = self._first[kind] or what

  def tell(self, used: int) -> None:
    """Says in a line each what was left out. Raises UserError where nothing can be used."""
    lines = [
      f"{self._first[kind]}; left out: {count:,} {self._rows} {kind}, {used:,} are used."
      for kind, count in self._counts.items()
      if count
    ]
    if not used:
      raise UserError(" ".join(lines) or f"a list of {self._rows} is empty; download it again.")
    for line in lines:
      _say(line)


@functools.cache
def _say(line: str) -> None:
  logging.warning("%s", line)
