"""A vocabulary is trained to the same bytes for the same texts, and fits them."""

import collections
import itertools
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from vfe.data import wordpiece
from vfe.data.wordpiece import SPECIAL, train_vocabulary
from vfe.errors import UserError

COLOURS, SHAPES = ("red", "blue", "green"), ("ball", "ring", "cup")
TEXTS = [f"C pushes the {a} {b} to the left." for a in COLOURS for b in SHAPES]


def load(vocabulary):
  from tokenizers import Tokenizer

  return Tokenizer.from_str(vocabulary)


def entries(vocabulary):
  numbers = load(vocabulary).get_vocab()
  assert sorted(numbers.values()) == list(range(len(numbers)))
  return sorted(numbers, key=numbers.get)


def test_special_entries_come_first_then_letters_then_pieces():
  found = entries(train_vocabulary(TEXTS, 200))
  assert tuple(found[:5]) == SPECIAL
  letters = [entry for entry in found[5:] if len(entry.removeprefix("##")) == 1]
  assert letters == sorted(letters) == found[5 : 5 + len(letters)]
  assert {"c", ".", "##t", "pushes", "the", "left"} <= {*found}


def test_text_is_lower_cased_without_accents_and_split_like_berts():
  tokenizer = load(train_vocabulary([*TEXTS, "cafe cafe"], 200))
  assert tokenizer.encode("The RED Café, left? \u732b").tokens == [
    "the", "red", "cafe", "[UNK]", "left", "[UNK]", "[UNK]"
  ]
  assert tokenizer.decode(tokenizer.encode("pushes the tush").ids) == "pushes the tush"


@pytest.mark.parametrize("size", [6, 20, 40, 50])
def test_the_size_is_a_limit(size):
  assert len(entries(train_vocabulary(TEXTS, size))) == size


def test_what_is_seen_once_is_not_joined():
  found = entries(train_vocabulary(["seldom often often"], 1000))
  assert "often" in found and not any(entry.startswith("se") for entry in found)


def test_another_process_writes_the_same(tmp_path):
  """The order of sets and hash tables differs there."""
  code = (
    "from vfe.data.wordpiece import train_vocabulary; import sys;"
    "sys.stdout.write(train_vocabulary(sys.argv[1:], 70))"
  )
  done = subprocess.run([sys.executable, "-c", code, *TEXTS], capture_output=True, check=True)
  assert done.stdout.decode() == train_vocabulary(TEXTS, 70) == train_vocabulary(TEXTS[::-1], 70)


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=12), st.integers(1, 40)
)
def test_the_most_frequent_pair_is_joined_at_every_step(texts, room):
  """Against counting anew each time."""
  words = collections.Counter(texts)
  letters = sorted({piece for word in words for piece in wordpiece._letters(word)})
  room += len(letters)
  spelt = {word: wordpiece._letters(word) for word in words}
  expected = dict.fromkeys(letters)
  while len(expected) < room:
    pairs = collections.Counter()
    for word, pieces in spelt.items():
      for pair in itertools.pairwise(pieces):
        pairs[pair] += words[word]
    count, pair = min(((-n, pair) for pair, n in pairs.items()), default=(0, None))
    if count > -2:
      break
    expected[wordpiece._joined(pair)] = None
    spelt = {word: wordpiece._join(pieces, pair) for word, pieces in spelt.items()}
  assert wordpiece._pieces(words, room) == list(expected)


def test_nothing_to_train_on_is_the_users():
  for texts, size, message in [(TEXTS, 5, "no room for words"), (["", " "], 100, "no words")]:
    with pytest.raises(UserError, match=message):
      train_vocabulary(texts, size)
