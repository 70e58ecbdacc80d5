"""Prompts and their answers as rows of word ids, for a decoder that writes the answers.

A tokenizer is a tokenizer.json of the `tokenizers` library, or a folder with one.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vfe.config import choose, nearest
from vfe.data.record import Source, VideoRecord
from vfe.data.text import Arrays, caption_of, captions_of
from vfe.errors import UserError
from vfe.interop.language_model import TOKENIZER, open_tokenizer

LENGTH = "data.text.length"


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What a decoder reads of a record, and what it is to write: an answer after a prompt.

  Attributes:
    tokenizer: a path as above.
    length: L, words of a row; shorter ones are padded behind.
    template: the prompt, with fields of the record's text in braces, such as
      "Question: {question} Answer:"; "" for none. The answer follows after a space.
    key: of the record's text: the answer, or a list of such.
    end: the word that ends an answer.
    form: which rows: "answer", one answer after the prompt, in training by chance and at evaluation
      the first, cut at L; "prompt", the prompt alone; "options", each of the record's options as
      the answer.
    options: O, rows of a record of form "options"; those beyond the record's own are empty.
    begin: the word before a text, where the tokenizer itself puts none there.
  """

  tokenizer: str
  length: int
  template: str
  key: str
  end: int
  form: str = "answer"
  options: int = 0
  begin: int | None = None

  def __post_init__(self):
    choose(FORMS, self.form, "form of a prompt")
    if self.length < 2:
      raise UserError(f"{LENGTH}={self.length} has no room for a prompt and a word; use 2 or more.")
    if self.template != self.template.rstrip():
      raise UserError(
        f"template {self.template!r} ends in a space; leave it out, the answer brings its own."
      )
    if (self.form == "options") != (self.options > 0):
      raise ValueError(f"form {self.form!r} of {self.options} options")
    _fields(self.template)

  def open(self) -> None:
    """Reads the tokenizer, so that a wrong one is told before anything else is done."""
    _load(self.tokenizer)

  def arrays(self, training: bool) -> Arrays:
    """Of a row: ids, 0 where the mask is False, and which words are the answer's."""
    del training
    shape = (self.options, self.length) if self.form == "options" else (self.length,)
    return {"ids": (np.int32, shape), "mask": (np.bool_, shape), "answer": (np.bool_, shape)}

  def row(self, record: VideoRecord, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    """The arrays of a record; empty at evaluation (without a generator) if it has no answer.

    Raises:
      UserError: the record lacks a field of the template, an answer to train on or options, or its
        words do not go into L.
    """
    shapes = self.arrays(training=rng is not None)
    row = {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}
    rows = {name: array.reshape(-1, self.length) for name, array in row.items()}
    for number, answer in enumerate(FORMS[self.form](self, record, rng)):
      ids, is_answer = self._words(record, answer)
      there = slice(len(ids))
      rows["ids"][number, there], rows["mask"][number, there] = ids, True
      rows["answer"][number, there] = is_answer
    return row

  def said(self, record: VideoRecord) -> str:
    """The prompt of a record, in words.

    Raises:
      UserError: the record lacks a field of the template.
    """
    return filled(self.template, record.text, record.name)

  def _words(self, record: VideoRecord, answer: str | None) -> tuple[list[int], list[bool]]:
    """At most L words, and which are the answer's; None where there is only a prompt."""
    said = self.said(record)
    ids, is_answer = framed(self.tokenizer, said, answer, self.end, self.begin)
    self._check(record, ids, is_answer)
    return ids[: self.length], is_answer[: self.length]

  def _check(self, record: VideoRecord, ids: list[int], is_answer: list[bool]) -> None:
    if not ids:
      raise UserError(
        f"{record.name}: its prompt has no words, template {self.template!r}; give it some."
      )
    # An option that is cut would be scored as another; an answer that is cut is still one to learn.
    needed = len(ids) if self.form != "answer" else is_answer.count(False) + 1
    if needed > self.length:
      what = {"answer": "prompt and a word of an answer", "prompt": "prompt"}
      raise UserError(
        f"{record.name}: its {what.get(self.form, 'prompt and an option')} are {needed} words, "
        f"{LENGTH}={self.length}; use {needed} or more."
      )


def filled(template: str, texts: Mapping[str, Any], name: str) -> str:
  """A template with the texts that it names in braces; `name` is whose they are, for errors.

  Raises:
    UserError: one is not there.
  """
  texts = {name: text for name, text in texts.items() if isinstance(text, str)}
  for field in _fields(template):
    if field not in texts:
      there = nearest(field, texts) if texts else "it has no texts"
      raise UserError(f"{name}: no text {field!r} for the template {template!r} ({there}).")
  return template.format(**texts).rstrip()


def framed(
  tokenizer: str, prompt: str, answer: str | None, end: int, begin: int | None = None
) -> tuple[list[int], list[bool]]:
  """The words of a prompt and its answer, and which are the answer's; None, there is none yet."""
  loaded = _load(tokenizer)
  encoding = loaded.tokenizer.encode(" ".join(filter(None, (prompt, answer))))
  words = slice(loaded.before, len(encoding.ids) - loaded.behind)
  first = [begin] if begin is not None and not loaded.before else []
  ids = first + encoding.ids[: words.stop]
  is_answer = [False] * (len(first) + loaded.before)
  is_answer += [
    answer is not None and (not prompt or stop > len(prompt))
    for _, stop in encoding.offsets[words]
  ]
  return (ids, is_answer) if answer is None else ([*ids, end], [*is_answer, True])


def laid(
  tokenizer: str,
  prompts: Sequence[str],
  answers: Sequence[Sequence[str | None]],
  end: int,
  multiple: int,
) -> dict[str, np.ndarray]:
  """Each prompt with each of its own answers: ids int32, mask and answer bool, [R, O, L] each.

  O is the most answers that a prompt has, L the most words, rounded up to a `multiple`.

  Raises:
    UserError: a prompt has no words.
  """
  words = {
    (row, option): framed(tokenizer, prompt, answer and answer.strip(), end)
    for row, prompt in enumerate(prompts)
    for option, answer in enumerate(answers[row])
  }
  for (row, _), (ids, _) in words.items():
    if not ids:
      raise UserError(f"prompt {prompts[row]!r} has no words; give it some.")
  longest = max(len(ids) for ids, _ in words.values())
  shape = (len(prompts), max(map(len, answers)), -(-longest // multiple) * multiple)
  text = {name: np.zeros(shape, bool) for name in ("mask", "answer")}
  text["ids"] = np.zeros(shape, np.int32)
  for place, (ids, is_answer) in words.items():
    there = (*place, slice(len(ids)))
    text["ids"][there], text["mask"][there], text["answer"][there] = ids, True, is_answer
  return text


def decoder(tokenizer: str) -> Callable[[Any], str]:
  """From ids to a text, without what frames it."""
  words = _load(tokenizer).tokenizer
  return lambda ids: words.decode(list(ids), skip_special_tokens=True).strip()


def options_of(record: VideoRecord) -> tuple[str, ...]:
  """The options of a multiple-choice question. Raises UserError where there are none."""
  options = record.text.get("options")
  good = isinstance(options, list | tuple) and len(options) > 1
  if not good or not all(isinstance(option, str) and option.strip() for option in options):
    raise UserError(
      f"{record.name}: a question without options; choose data of multiple choice, or another "
      "data.variant."
    )
  return tuple(option.strip() for option in options)


def most_options(source: Source) -> int:
  """The most options that a question of the source has; 0 of no questions.

  Raises:
    UserError: a record has none.
  """
  return max((len(options_of(source[i])) for i in range(len(source))), default=0)


def _answer(prompt: Prompt, record: VideoRecord, rng: np.random.Generator | None) -> Sequence[str]:
  if rng is not None:
    return [caption_of(record, prompt.key, rng).strip()]
  return [answer.strip() for answer in captions_of(record, prompt.key)[:1]]


def _options(prompt: Prompt, record: VideoRecord, rng: np.random.Generator | None) -> Sequence[str]:
  del rng
  options = options_of(record)
  if len(options) > prompt.options:
    raise UserError(f"{record.name}: {len(options)} options, where {prompt.options} were the most.")
  return options


# form -> (prompt, record, generator) -> what follows after the prompt in each row; None, nothing.
FORMS = {"answer": _answer, "prompt": lambda prompt, record, rng: [None], "options": _options}


@functools.cache
def _fields(template: str) -> tuple[str, ...]:
  """The names in braces."""
  try:
    parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
  except ValueError as error:
    raise UserError(f"template {template!r}: {error}; write a brace itself twice.") from None
  for name, form, conversion in parts:
    if not name.isidentifier() or form or conversion:
      raise UserError(
        f"template {template!r}: in braces stands the name of a text, such as {{question}}; write "
        "a brace itself twice."
      )
  return tuple(name for name, *_ in parts)


@dataclasses.dataclass(frozen=True)
class _Loaded:
  """A tokenizer, and how many words it puts before and behind a text."""

  tokenizer: Any
  before: int
  behind: int


@functools.cache
def _load(path: str) -> _Loaded:
  file = pathlib.Path(path).expanduser()
  tokenizer = open_tokenizer(file / TOKENIZER if file.is_dir() else file)
  tokenizer.no_padding()
  tokenizer.no_truncation()
  framing = tokenizer.encode("a").special_tokens_mask
  before = framing.index(0) if 0 in framing else len(framing)
  return _Loaded(tokenizer, before, sum(framing[before:]))
