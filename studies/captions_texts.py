"""What is said and asked of the clips of the captions study, as words and as rows of their ids.

The world's own texts, in which every object is "something": the contrastive study's encoders were
trained on texts of events that do not say to which objects.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from vfe.data.segments import NOTHING, joined
from vfe.data.tabletop import lexicon, text
from vfe.data.tabletop.asking import ASK_WHOLE, choices
from vfe.data.tabletop.story import Scenario, scenario
from vfe.data.tabletop.world import World, generator

# What stands before each kind of text. {told} are the texts of a video's segments.
PROMPTS = {
  "caption": "Caption.",
  "part": "Part.",
  "summary": "Summary.",
  "answer": f"Question. {ASK_WHOLE} Answer.",
  "told summary": "{told} Summary.",
  "told answer": f"{{told}} Question. {ASK_WHOLE} Answer.",
}
BEGIN, END = 1, 2  # 0 is padding
_OWN = {word for prompt in PROMPTS.values() for word in lexicon.words(prompt)} - {"told"}
VOCABULARY = tuple(sorted(_OWN | set(lexicon.vocabulary())))
WORDS = len(VOCABULARY) + END + 1  # of the language model
_NUMBER = {word: number for number, word in enumerate(VOCABULARY, END + 1)}


@dataclasses.dataclass(frozen=True)
class Question:
  """A question with its options, of which `answer` is the number of the right one."""

  options: tuple[str, ...]
  answer: int


@dataclasses.dataclass(frozen=True)
class Stories:
  """What is said and asked of the first clips of a split; segments are of so many drawn frames."""

  said: Sequence[Mapping[str, Sequence[str]]]
  asked: Sequence[Mapping[str, Question]]

  @classmethod
  def of(cls, world: World, split: str, count: int, frames: int) -> "Stories":
    """Of `count` videos of a world."""
    scenes = [scenario(world, index, split) for index in range(count)]
    return cls([said(of, frames) for of in scenes], [questions(world, of) for of in scenes])

  def prompts(self, kind: str) -> list[str]:
    """Before the texts of a kind; of those that are told, with the true texts of the segments."""
    return [PROMPTS[kind].format(told=joined(of["part"])) for of in self.said]

  def true(self, kind: str) -> list[str]:
    """The texts of a kind, of each video the first."""
    return [of[kind.removeprefix("told ")][0] for of in self.said]

  def parts(self) -> list[str]:
    """The texts of all segments, video after video."""
    return [part for of in self.said for part in of["part"]]

  def forms(self, *kinds: str) -> dict[str, np.ndarray]:
    """{ids, answer} [n, F, L]: all texts of these kinds behind their prompts."""
    own = lambda kind, of: of[kind.removeprefix("told ")]
    prompt = {kind: self.prompts(kind) for kind in kinds}
    found = rows(
      (prompt[kind][number], said)
      for number, of in enumerate(self.said)
      for kind in kinds
      for said in own(kind, of)
    )
    return {name: x.reshape(len(self.said), -1, x.shape[-1]) for name, x in found.items()}

  def of_parts(self) -> dict[str, np.ndarray]:
    """{ids, answer} [n segments, 1, L]."""
    found = rows((PROMPTS["part"], part) for part in self.parts())
    return {name: x[:, None] for name, x in found.items()}


def said(scene: Scenario, frames: int) -> dict[str, list[str]]:
  """{kind: texts} of a story: its caption, summary, answer and what each stretch of `frames` shows.

  frames are of those that are drawn.
  """
  return {
    "caption": [_nameless(text.caption(scene), scene)],
    "summary": [_nameless(text.summary(scene), scene).split(". ", 1)[1]],  # without the objects
    "answer": [_nameless(text.order(scene), scene)],
    "part": parts(scene, frames),
  }


def parts(scene: Scenario, frames: int) -> list[str]:
  """What is done in each stretch of so many frames, said of every stretch that an event lasts into.

  As `vfe.data.tabletop.text.segments`, where a stretch has 16 of the frames that are drawn.
  """
  found = []
  for start in range(0, scene.frames, frames):
    events = [e for e in scene.events if e.start < start + frames and start < e.stop]
    done = " and ".join(_nameless(text.say(event, scene), scene) for event in events)
    found.append(f"C {done}" if done else NOTHING)
  return found


def questions(world: World, scene: Scenario) -> dict[str, Question]:
  """{kind: question} on a whole story.

  whole: the world's own, which of five orders of two events it is. order: which of its two events
  came first, by two options, the story's order and the other one.
  """
  (row,) = choices(world, scene)
  swapped = dataclasses.replace(scene, events=scene.events[::-1])
  options = [_nameless(text.order(of), of) for of in (scene, swapped)]
  answer = int(generator(world, scene.split, scene.index, "order question").integers(2))
  return {
    "whole": Question(row["options"], row["answer"]),
    "order": Question(tuple(options[:: 1 if answer == 0 else -1]), answer),
  }


def row(prompt: str, answer: str | None) -> tuple[list[int], list[bool]]:
  """The ids of a prompt and its answer, and which are the answer's; None, there is none yet.

  Raises:
    KeyError: a word that is not in the vocabulary.
  """
  before = [BEGIN, *(_NUMBER[word] for word in lexicon.words(prompt))]
  if answer is None:
    return before, [False] * len(before)
  after = [*(_NUMBER[word] for word in lexicon.words(answer)), END]
  return before + after, [False] * len(before) + [True] * len(after)


def rows(
  pairs: Iterable[tuple[str, str | None]],
) -> dict[str, Int[np.ndarray, "n L"] | Bool[np.ndarray, "n L"]]:
  """{ids, answer} of prompts and their answers. L is that of the longest, in eights, so that what
  differs little is one program."""
  found = [row(*pair) for pair in pairs]
  length = -(-max(len(ids) for ids, _ in found) // 8) * 8
  ids, is_answer = np.zeros((len(found), length), np.int32), np.zeros((len(found), length), bool)
  for number, (own, of_answer) in enumerate(found):
    ids[number, : len(own)], is_answer[number, : len(own)] = own, of_answer
  return {"ids": ids, "answer": is_answer}


def spoken(ids: Iterable[int]) -> str:
  """The words of ids, without those that frame them."""
  return " ".join(VOCABULARY[i - END - 1] for i in ids if i > END)


def plain(sentence: str) -> str:
  """A text as `spoken` would say it: so two that have the same words are equal."""
  return " ".join(lexicon.words(sentence))


def _nameless(sentence: str, scene: Scenario) -> str:
  for thing in scene.things:
    sentence = sentence.replace(f"the {thing.name}", "something")
  return sentence
