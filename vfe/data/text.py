"""Captions as rows of token ids: [CLS] words [SEP], as BERT has them.

A vocabulary is a tokenizer.json of the `tokenizers` library, BERT's vocab.txt, or a folder with
one of them, such as a Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from vfe.config import nearest
from vfe.data.record import Source, VideoRecord
from vfe.data.wordpiece import tokenizer, train_vocabulary
from vfe.errors import UserError

__all__ = [
  "Arrays", "Text", "Tokenizer", "caption_of", "captions_of", "cleaned", "most_captions", "to_json",
  "train_vocabulary", "vocabulary_digest",
]

_FILES = ("tokenizer.json", "vocab.txt")  # the first of them that a folder has
_NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_CLEAN = str.maketrans("-/", "  ", ",.'!?\"()*#:;~")

# The arrays of a row of text: their types and shapes by name.
Arrays = dict[str, tuple[type[np.generic], tuple[int, ...]]]


@dataclasses.dataclass(frozen=True)
class Text:
  """Which of a record's texts travel in a batch, and how: `config.data.text`.

  Attributes:
    vocabulary: a path as above.
    length: L, tokens of a text with [CLS] and [SEP]; longer ones are cut, shorter ones padded.
    key: of the record's text: a caption or a list of captions.
    captions: C of a row at evaluation; a record's further ones are left out.
    clean: ids are of the `cleaned` text; records, and what files and errors show, keep theirs.
  """

  vocabulary: str
  length: int
  key: str = "caption"
  captions: int = 1
  clean: bool = False

  def __post_init__(self):
    if self.length < 3:
      raise UserError(
        f"data.text.length={self.length} has no room for a word between [CLS] and [SEP]; use 3 or "
        f"more."
      )
    if self.captions < 1:
      raise UserError(f"data.text.captions={self.captions} is below 1; use 1 or more.")

  @property
  def tokenizer(self) -> "Tokenizer":
    """What makes ids of texts."""
    return Tokenizer(self.vocabulary, self.length, self.clean)

  def open(self) -> None:
    """Reads the vocabulary, so that a wrong one is told before anything else is done."""
    _ = self.tokenizer

  def arrays(self, training: bool) -> Arrays:
    """Of a row: its caption in training, C of them at evaluation."""
    shape = (self.length,) if training else (self.captions, self.length)
    return {"ids": (np.int32, shape), "mask": (np.bool_, shape)}

  def row(self, record: VideoRecord, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    """The arrays of a record: a caption by chance, or without a generator the first C.

    Raises:
      UserError: there is none to draw from.
    """
    training = rng is not None
    shapes = self.arrays(training)
    said = [caption_of(record, self.key, rng)] if training else captions_of(record, self.key)
    found = self.tokenizer(said[: self.captions])
    row = {name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}
    for name, words in zip(("ids", "mask"), found, strict=True):
      row[name].reshape(-1, self.length)[: len(words)] = words
    return row


def captions_of(record: VideoRecord, key: str) -> tuple[str, ...]:
  """The captions of a record, in order and without empty ones; none where it has none."""
  value = record.text.get(key) or ()
  captions = (value,) if isinstance(value, str) else value
  if not isinstance(captions, list | tuple) or not all(isinstance(text, str) for text in captions):
    raise UserError(
      f"{record.name}: its {key!r} is neither a text nor a list of texts; choose another key with "
      f"data.text.key."
    )
  return tuple(text for text in captions if text.strip())


def caption_of(record: VideoRecord, key: str, rng: np.random.Generator) -> str:
  """One caption of a record, by chance. Raises UserError where it has none."""
  captions = captions_of(record, key)
  if not captions:
    there = nearest(key, record.text) if record.text else "it has no texts"
    raise UserError(
      f"{record.name}: no {key!r} to train on, data.text.key={key} ({there}); every training "
      f"video needs one."
    )
  return captions[int(rng.integers(len(captions)))]


def cleaned(text: str) -> str:
  """Lower-case words without punctuation: "#C C picks up a T-shirt." is "c c picks up a t shirt".

  As SViTT cleans its texts (`pre_text` of Singularity): other signs stay.
  """
  return " ".join(text.lower().translate(_CLEAN).split())


def most_captions(source: Source, key: str) -> int:
  """The most captions that a record of the source has; 0 where none has any."""
  return max((len(captions_of(source[i], key)) for i in range(len(source))), default=0)


class Tokenizer:
  """Texts as ids of fixed length. Pickles as its path; the vocabulary is read once a process.

  Attributes:
    vocabulary, length, clean: as in `Text`.
  """

  def __init__(self, vocabulary: str, length: int, clean: bool = False):
    self.vocabulary, self.length, self.clean = vocabulary, length, clean
    _load(vocabulary)

  @property
  def size(self) -> int:
    """Ids are below it."""
    return _load(self.vocabulary).size

  def id(self, entry: str) -> int:
    """The number of an entry. Raises UserError where the vocabulary has none of that name."""
    number = _load(self.vocabulary).tokenizer.token_to_id(entry)
    if number is None:
      raise UserError(f"{_file(self.vocabulary)}: has no {entry}; use a vocabulary of BERT's kind.")
    return number

  def __call__(
    self, texts: Sequence[str]
  ) -> tuple[Int32[np.ndarray, "n L"], Bool[np.ndarray, "n L"]]:
    """Ids, 0 where the mask is False, and the mask: where there is a token."""
    loaded = _load(self.vocabulary)
    ids = np.zeros((len(texts), self.length), np.int32)
    mask = np.zeros((len(texts), self.length), bool)
    for row, text in enumerate(texts):
      text = cleaned(text) if self.clean else text
      words = loaded.tokenizer.encode(text, add_special_tokens=False).ids[: self.length - 2]
      framed = [loaded.cls, *words, loaded.sep]
      ids[row, : len(framed)], mask[row, : len(framed)] = framed, True
    return ids, mask


def to_json(vocabulary: str) -> str:
  """The vocabulary as the text of a tokenizer.json."""
  return _load(vocabulary).tokenizer.to_str(pretty=True)


def vocabulary_digest(vocabulary: str) -> str:
  """Of the vocabulary's file, 16 hexadecimal digits: what a trained text tower depends on."""
  return hashlib.sha256(_file(vocabulary).read_bytes()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Loaded:
  tokenizer: Any
  size: int
  cls: int
  sep: int


@functools.cache
def _load(vocabulary: str) -> _Loaded:
  file = _file(vocabulary)
  made = _from_words(file) if file.suffix == ".txt" else _from_json(file)
  missing = [name for name in _NEEDED if made.token_to_id(name) is None]
  if missing:
    raise UserError(
      f"{file}: has no {' and no '.join(missing)}; use a vocabulary of BERT's kind, which has "
      f"{', '.join(_NEEDED)}."
    )
  made.no_padding()
  made.no_truncation()
  size = 1 + max(made.get_vocab(with_added_tokens=True).values())
  return _Loaded(made, size, made.token_to_id("[CLS]"), made.token_to_id("[SEP]"))


def _file(vocabulary: str) -> pathlib.Path:
  path = pathlib.Path(vocabulary).expanduser()
  if path.is_file():
    return path
  if not path.is_dir():
    raise UserError(f"{path} does not exist; a vocabulary is a tokenizer.json, or a folder of one.")
  found = [path / name for name in _FILES if (path / name).is_file()]
  if not found:
    raise UserError(f"{path}: holds neither {' nor '.join(_FILES)}, so no vocabulary.")
  return found[0]


def _from_json(file: pathlib.Path) -> Any:
  from tokenizers import Tokenizer as Library

  try:
    return Library.from_str(file.read_text(encoding="utf-8"))
  except Exception as error:  # The library raises bare Exceptions.
    why = str(error).splitlines()[0]
    raise UserError(
      f"{file}: is no tokenizer.json of the tokenizers library, nor a vocab.txt ({why})."
    ) from error


def _from_words(file: pathlib.Path) -> Any:
  """BERT's vocab.txt: a line an entry. Lower case is said beside it, or seen in the entries."""
  try:
    entries = file.read_text(encoding="utf-8").split("\n")
  except UnicodeDecodeError as error:
    raise UserError(f"{file}: byte {error.start} is not UTF-8, so it is no vocab.txt.") from error
  entries = [entry.rstrip("\r") for entry in entries[: -1 if not entries[-1] else None]]
  if len(set(entries)) < len(entries):
    twice = next(entry for i, entry in enumerate(entries) if entry in entries[:i])
    raise UserError(f"{file}: {twice!r} is there twice, so it is no vocab.txt.")
  lower = not any(entry != entry.lower() for entry in entries if not entry.startswith("["))
  settings = file.with_name("tokenizer_config.json")
  if settings.is_file():
    lower = json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", lower)
  return tokenizer(entries, lower=bool(lower))
