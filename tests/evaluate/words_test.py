import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfe.evaluate.words import words

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "captions.json"  # made by make_captions.py


@pytest.mark.parametrize(
  ("sentence", "official"), json.loads(GOLDEN.read_text(encoding="utf-8"))["words"].items()
)
def test_words_are_those_of_the_official_tokenizer(sentence, official):
  assert words(sentence) == official


@given(st.text())
def test_any_text_gives_words_with_single_blanks(sentence):
  found = words(sentence)
  assert found == " ".join(found.split())
  assert not {".", ",", "!", "?", ";", ":", "-"} & set(found.split())


@given(st.lists(st.sampled_from(["a", "dog", "t-shirt", "n't", "'s", "3.5", "-lrb-", "u.s."])))
def test_blanks_around_make_no_difference(tokens):
  assert words("  ".join(tokens)) == words(f" {' '.join(tokens)}\n")
