"""Every word that the world says or asks: what text tokenizers and embeddings are made from."""

import re
from collections.abc import Iterator

from vfe.data.segments import joined
from vfe.data.tabletop.asking import TEMPLATES, queries, questions
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import (
  FORMS,
  TIMES,
  captions,
  narrations,
  objects,
  order,
  segments,
  summary,
)
from vfe.data.tabletop.world import NOUNS, VERBS, World

# The words around verbs and nouns in narrations, captions and summaries.
FRAMES = (
  "#C C and in the end.",
  "There is a, and a on the table. There are",
  "First C something. In the middle C. In between C. then rotates something",
  "someone a table, then",
  joined([""]),
  *TIMES.values(),
)


def words(text: str) -> list[str]:
  """The words of a text, in lower case; punctuation marks and "#c" are words."""
  return re.findall(r"#?[a-z]+|[.,?]", text.lower())


def vocabulary() -> tuple[str, ...]:
  """Every word that any text of the world can hold, sorted. It does not depend on a World."""
  texts = [*FRAMES, *TEMPLATES, *NOUNS, *VERBS, "the"]
  for forms in FORMS.values():
    texts += [forms.base, forms.third, forms.past]
  return tuple(sorted({word for text in texts for word in words(text)}))


def corpus(world: World, split: str, count: int) -> Iterator[str]:
  """All texts of the first `count` videos: narrations, captions of each kind, queries, questions.

  What a tokenizer of words is trained on; take it from the training split.
  """
  for index in range(count):
    scene = scenario(world, index, split)
    yield from (row["clip_text"] for row in narrations(scene))
    yield from captions(scene)
    yield from (summary(scene), objects(scene), order(scene), segments(scene))
    yield from (query["query"] for query in queries(scene))
    for question in questions(world, scene):
      yield question["question"]
      yield from (question[f"option {i}"] for i in range(5))
