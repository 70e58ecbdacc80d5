"""Rows of EgoClip and questions of EgoMCQ as they are published."""

import json

import pytest

from vfe.data.ego4d import egoclip, source, tally

HEADER = [
  "video_uid", "video_dur", "narration_source", "narration_ind", "narration_time", "clip_start",
  "clip_end", "clip_text", "tag_verb", "tag_noun",
]  # fmt: skip


@pytest.fixture(autouse=True)
def anew():
  """Nothing is kept from another test, neither sources nor what has been said."""
  source._open.cache_clear()
  tally._say.cache_clear()


@pytest.fixture
def row():
  """row("uid", 1.0, 2.5, "#C C ...", "[3]", "[4, 5]", clip_text=...): a row by column."""

  def make(uid, start=1.0, end=2.0, words="#C C lifts a cup", verb="[3]", noun="[4]", **changes):
    values = dict(zip(HEADER, [
      uid, 2000.0, "narration_pass_1", 0, (float(start) + float(end)) / 2, start, end, words, verb,
      noun,
    ], strict=True))  # fmt: skip
    return {**values, **changes}

  return make


@pytest.fixture
def table():
  """The text of an egoclip.csv with these rows; what is text is a line as it is."""

  def write(*rows):
    lines = ["\t".join(HEADER)]
    lines += [row if isinstance(row, str) else "\t".join(map(str, row.values())) for row in rows]
    return "\n".join(lines) + "\n"

  return write


@pytest.fixture
def question(row):
  """question(2, "intra", [("uid", 1.0, 2.0), ...], "words"): in EgoMCQ's layout."""

  def make(answer, kind, clips, words="#C C lifts a cup", **changes):
    choices = {str(i): row(*clip) for i, clip in enumerate(clips)}
    query = {**choices.get(str(answer), row("x")), "clip_text": words}
    types = {"inter": 1, "intra": 2}.get(kind, kind)
    item = {"answer": answer, "types": types, "query": query, "choices": choices, **changes}
    return json.loads(json.dumps(item))

  return make


@pytest.fixture
def read():
  """The records of an EgoClip source."""
  return lambda source: [source[i] for i in range(len(source))]


assert set(egoclip.COLUMNS) <= set(HEADER)
