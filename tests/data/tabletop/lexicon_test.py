"""The vocabulary is all that is said, and no more."""

import pytest

from vfe.data.tabletop.lexicon import corpus, vocabulary, words
from vfe.data.tabletop.world import RUNGS, World


@pytest.mark.parametrize("rung", RUNGS)
def test_the_vocabulary_holds_every_word_that_is_said(rung):
  known = set(vocabulary())
  for frames, split in ((1024, "train"), (128, "validation")):
    for sentence in corpus(World(rung=rung, frames=frames, objects=(2, 5)), split, 30):
      assert set(words(sentence)) <= known, sentence


def test_the_vocabulary_is_small_sorted_and_used():
  known = vocabulary()
  assert list(known) == sorted(set(known)) and len(known) < 150
  worlds = [World(rung="appearance", objects=(1, 4)), World(rung="verb"), World(frames=1024)]
  said = {word for w in worlds for text in corpus(w, "train", 40) for word in words(text)}
  assert sorted(set(known) - said) == []
