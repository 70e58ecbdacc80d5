"""Narrations in a batch: tags as multi-hot rows beside the words."""

import dataclasses

import numpy as np
import pytest

from vfe.data.narration import Narration
from vfe.data.record import VideoRecord
from vfe.data.text import Text, train_vocabulary
from vfe.errors import UserError


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp("words") / "tokenizer.json"
  path.write_text(train_vocabulary(["c lifts a cup", "c drops a cup"], 60))
  return str(path)


def record(**text):
  return VideoRecord("clip", path="x", text={"caption": "c lifts a cup", **text})


@pytest.mark.parametrize("training", [True, False])
def test_a_row_has_the_words_and_the_tags(vocabulary, training):
  spec = Narration(vocabulary, length=8, captions=2, nouns=5, verbs=3)
  rng = np.random.default_rng(0) if training else None
  row = spec.row(record(nouns=(4, 1), verbs=[2]), rng)
  assert row["nouns"].tolist() == [False, True, False, False, True]
  assert row["verbs"].tolist() == [False, False, True]
  words = Text(vocabulary, length=8, captions=2).row(record(), np.random.default_rng(0) if training
                                                     else None)  # fmt: skip
  for name, array in words.items():
    np.testing.assert_array_equal(row[name], array)
  assert row["clip"] == spec.row(record(), rng)["clip"] > 0
  assert row["clip"] != spec.row(dataclasses.replace(record(), name="other"), rng)["clip"]
  arrays = spec.arrays(training)
  assert {name: (array.dtype.type, array.shape) for name, array in row.items()} == arrays


def test_a_record_without_tags_has_none(vocabulary):
  row = Narration(vocabulary, length=8).row(record(), None)
  assert row["nouns"].shape == (582,) and row["verbs"].shape == (118,)
  assert not row["nouns"].any() and not row["verbs"].any()


@pytest.mark.parametrize("tags", [{"nouns": (582,)}, {"verbs": (0, -1)}])
def test_a_tag_that_is_no_class_is_told(vocabulary, tags):
  with pytest.raises(UserError, match=r"clip: (nouns|verbs) \[.*\] are not all below \d+, the cla"):
    Narration(vocabulary, length=8).row(record(**tags), None)
