"""Captions of segments become one text."""

from vfe.data.segments import joined


def test_parts_are_numbered_and_silence_is_said():
  text = joined(["A ball falls. ", "", "C laughs"])
  assert text == "Part 1: A ball falls. Part 2: nothing happens. Part 3: C laughs."
  assert joined([]) == ""
