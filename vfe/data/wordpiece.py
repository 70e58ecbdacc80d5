"""Training a WordPiece vocabulary: the same bytes for the same texts, in any process.

The trainers of the `tokenizers` library number pieces by the order of a hash table, which differs
from run to run. Here pairs of neighbouring pieces are joined, the most frequent first, and of
equally frequent ones the first in the alphabet.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from vfe.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
_INNER = "##"  # before a piece that goes on with a word

Pair = tuple[str, str]


def train_vocabulary(texts: Iterable[str], size: int) -> str:
  """The text of a tokenizer.json: BERT's lower-casing WordPiece with at most `size` entries.

  SPECIAL come first, then the letters of the texts (the most frequent ones if there is no room for
  all), then joined pieces, each seen at least twice. Fewer entries than `size` where no more are.
  """
  if size <= len(SPECIAL):
    raise UserError(f"a vocabulary of {size} has no room for words; use hundreds at the least.")
  empty = tokenizer(dict.fromkeys(SPECIAL), lower=True)
  split = lambda text: empty.pre_tokenizer.pre_tokenize_str(empty.normalizer.normalize_str(text))
  words = collections.Counter(word for text in texts for word, _ in split(text))
  if not words:
    raise UserError("a vocabulary cannot be trained on no words; are the captions empty?")
  return tokenizer([*SPECIAL, *_pieces(words, size - len(SPECIAL))], lower=True).to_str(pretty=True)


def tokenizer(entries: Iterable[str], lower: bool) -> Any:
  """A `tokenizers.Tokenizer` that splits text as BERT does, `entries` in the order of their ids."""
  from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

  numbers = {entry: number for number, entry in enumerate(entries)}
  made = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
  made.normalizer = normalizers.BertNormalizer(lowercase=lower)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  made.decoder = decoders.WordPiece(prefix=_INNER)
  made.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL if name in numbers])
  return made


def _pieces(words: Mapping[str, int], room: int) -> list[str]:
  """Letters in order of the alphabet, then joined pieces in the order of their joining."""
  spelt = [(_letters(word), count) for word, count in words.items()]
  letters: collections.Counter[str] = collections.Counter()
  for pieces, count in spelt:
    for piece in pieces:
      letters[piece] += count
  kept = sorted(sorted(letters), key=lambda piece: -letters[piece])[:room]
  found = dict.fromkeys(sorted(kept))
  spelt = [(pieces, n) for pieces, n in spelt if found.keys() >= {*pieces}]
  pairs = _Pairs(spelt)
  while len(found) < room and (pair := pairs.most_frequent()):
    found[_joined(pair)] = None  # two pairs may make the same piece
    pairs.join(pair)
  return list(found)


def _letters(word: str) -> list[str]:
  return [word[0], *(_INNER + letter for letter in word[1:])]


def _joined(pair: Pair) -> str:
  return pair[0] + pair[1].removeprefix(_INNER)


class _Pairs:
  """Neighbouring pieces in the words, how often each pair is there, and where."""

  def __init__(self, words: list[tuple[list[str], int]]):
    self._words = words
    self._count: collections.Counter[Pair] = collections.Counter()
    self._where: dict[Pair, set[int]] = collections.defaultdict(set)
    for number in range(len(words)):
      self._add(number, 1)
    self._heap = [(-count, pair) for pair, count in self._count.items()]
    heapq.heapify(self._heap)

  def _add(self, number: int, sign: int) -> set[Pair]:
    """Counts the pairs of a word in (sign 1) or out (-1), and returns them."""
    pieces, count = self._words[number]
    pairs = list(itertools.pairwise(pieces))
    for pair in pairs:
      self._count[pair] += sign * count
      if sign > 0:
        self._where[pair].add(number)
    return set(pairs)

  def most_frequent(self) -> Pair | None:
    """None when no pair is there twice."""
    while self._heap:
      count, pair = self._heap[0]
      if -count == self._count[pair] > 1:
        return pair
      heapq.heappop(self._heap)  # it was counted anew since, and stands elsewhere too
    return None

  def join(self, pair: Pair) -> None:
    """Makes one piece of the pair in all words."""
    changed: set[Pair] = set()
    for number in self._where.pop(pair):
      changed |= self._add(number, -1)
      pieces, count = self._words[number]
      self._words[number] = _join(pieces, pair), count
      changed |= self._add(number, 1)
    for other in changed:
      heapq.heappush(self._heap, (-self._count[other], other))


def _join(pieces: list[str], pair: Pair) -> list[str]:
  joined, place = [], 0
  while place < len(pieces):
    there = tuple(pieces[place : place + 2]) == pair
    joined.append(_joined(pair) if there else pieces[place])
    place += 2 if there else 1
  return joined
