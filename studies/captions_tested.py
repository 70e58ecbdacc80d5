"""What the captions study measures on test clips."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from studies import captions_texts as texts
from studies.captions_eyes import Eyes, by_parts
from studies.captions_sizes import Size
from vfe.data.segments import joined
from vfe.evaluate.captions import caption_scores
from vfe.evaluate.multiple_choice import correct
from vfe.models.generation import Choice
from vfe.models.video_language import VideoLanguage
from vfe.nn.blocks import Execution

SAMPLES = 4  # texts of each kind that a row keeps
SCORES = ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR", "official")
Seen = dict[str, np.ndarray]  # seen, there, of clips


class Test:
  """A seed's test clips, and what is written and answered of them with some parameters.

  Everything is had twice, "right" and "wrong": as it is, and with the clip before it in the place
  of each.
  """

  def __init__(self, size: Size, seed: int, params: Any, eyes: Eyes | None = None):
    """eyes: of the condition; none, and there is only the language model."""
    self.short, self.long = (
      size.stories(kind, seed, "test", size.world.tests) for kind in ("short", "long")
    )
    self._size, self._eyes, self._params = size, eyes, params
    run = Execution(dtype=size.world.dtype)
    self._alone = VideoLanguage(size.model("short"), run, run)

  def of_video(self) -> dict[str, Any]:
    """Captions of short clips; summaries of long videos, and answers."""
    seen = self._eyes.long("test")
    summary = self._texts("summary", self.long, seen)
    answered = twice(lambda at: self.answer(self.long.prompts("answer"), at(seen)))
    return {"written": self.of_clips() | {"summary": summary}, "answered": answered}

  def of_segments(self) -> dict[str, Any]:
    """The same, the long videos' by the language model alone from captions of their segments."""
    seen = self._eyes.long("test")
    said = self.write([texts.PROMPTS["part"]] * len(seen["seen"]), seen)
    part = {"right": measured(said, self.long.parts())}
    found = self.told(np.reshape(said, (len(self.long.said), -1)))
    return found | {"written": self.of_clips() | {"part": part} | found["written"]}

  def of_clips(self) -> dict[str, Any]:
    """Captions of short clips."""
    return {"caption": self._texts("caption", self.short, self._eyes.short("test"))}

  def told(self, parts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Summaries and answers of the language model, which reads the texts of the segments."""
    read = np.array([joined(list(of)) for of in parts])
    filled = lambda kind, at: [texts.PROMPTS[kind].format(told=of) for of in at(read)]
    said = lambda at: self.write(filled("told summary", at), None)
    summary = twice(lambda at: measured(said(at), self.long.true("summary")))
    answered = twice(lambda at: self.answer(filled("told answer", at), None))
    return {"written": {"summary": summary}, "answered": answered}

  def blind(self) -> dict[str, Any]:
    """Of the language model alone."""
    written = {}
    for kind, stories in (("caption", self.short), ("summary", self.long)):
      said = self.write(stories.prompts(kind), None)
      written[kind] = {"right": measured(said, stories.true(kind))}
    answered = {"right": self.answer(self.long.prompts("answer"), None)}
    return {"written": written, "answered": answered}

  def truth(self) -> dict[str, Any]:
    """Of one who says the truth of what it is shown."""
    each = (("caption", self.short.true("caption")), ("summary", self.long.true("summary")))
    said = lambda true, at: at(np.array(true)).tolist()
    both = lambda true: twice(lambda at: measured(said(true, at), true))
    return {"written": {kind: both(true) for kind, true in each}}

  def write(self, prompts: Sequence[str], seen: Seen | None) -> list[str]:
    """The texts that are likeliest word by word."""
    rows = {"ids": texts.rows((prompt, None) for prompt in prompts)["ids"]}
    write = functools.partial(_written, words=self._size.words)
    found = self._by_parts(write, rows, seen)
    return [texts.spoken(ids) for ids in found.tolist()]

  def answer(self, prompts: Sequence[str], seen: Seen | None) -> dict[str, dict[str, int]]:
    """{kind: {n, options, hits}} of the questions on long videos, each after its prompt."""
    found = {}
    for kind in self.long.asked[0]:
      asked = [of[kind] for of in self.long.asked]
      pairs = [(p, o) for p, q in zip(prompts, asked, strict=True) for o in q.options]
      rows = {name: x.reshape(len(asked), -1, x.shape[-1]) for name, x in texts.rows(pairs).items()}
      score = self._by_parts(_scores, rows, seen)
      hits = correct(score, np.array([question.answer for question in asked]))
      found[kind] = {"n": len(asked), "options": score.shape[1], "hits": int(hits.sum())}
    return found

  def _texts(self, kind: str, stories: texts.Stories, seen: Seen) -> dict[str, Any]:
    said = lambda at: self.write(stories.prompts(kind), at(seen))
    return twice(lambda at: measured(said(at), stories.true(kind)))

  def _by_parts(self, function: Callable, rows: Any, seen: Seen | None) -> np.ndarray:
    """Of the language model alone where there is nothing seen."""
    model = self._alone if seen is None else self._eyes.model
    params = {"language": self._params["language"]} if seen is None else self._params
    run = lambda of: function(model, params, of)
    return by_parts(run, rows | (seen or {}), self._size.part)


def _looking(model: VideoLanguage, params: Any, rows: dict[str, Array]) -> Any:
  return model.looking(params, rows["seen"], rows["there"]) if "seen" in rows else None


@functools.partial(jax.jit, static_argnames=("model", "words"))
def _written(
  model: VideoLanguage, params: Any, rows: dict[str, Array], words: int
) -> Int[Array, "R words"]:
  ids, choice = rows["ids"], Choice(words, (texts.END,))
  return model.generate(params, ids, ids > 0, _looking(model, params, rows), choice).ids


@functools.partial(jax.jit, static_argnames="model")
def _scores(model: VideoLanguage, params: Any, rows: dict[str, Array]) -> Float[Array, "R O"]:
  text = {"ids": rows["ids"], "mask": rows["ids"] > 0, "answer": rows["answer"]}
  return model.option_scores(params, text, _looking(model, params, rows))


def twice(measure: Callable) -> dict[str, Any]:
  """measure(at), where at(rows) is the rows themselves, or of each the one before it."""
  other = lambda rows: jax.tree.map(lambda x: np.roll(x, 1, axis=0), rows)
  return {"right": measure(lambda rows: rows), "wrong": measure(other)}


def measured(said: Sequence[str], true: Sequence[str]) -> dict[str, Any]:
  """Scores of texts, `exact` the share that is right word by word, and the first few with their
  references."""
  names = [str(i) for i in range(len(true))]
  references = {name: [sentence] for name, sentence in zip(names, true, strict=True)}
  scores = caption_scores(references, dict(zip(names, said, strict=True)))
  plain = [(texts.plain(one), texts.plain(other)) for one, other in zip(said, true, strict=True)]
  exact = float(np.mean([one == other for one, other in plain]))
  rounded = {name: round(scores[name], 5) for name in SCORES if name in scores}
  return rounded | {"exact": round(exact, 5), "samples": plain[:SAMPLES]}
