"""Captions become ids; a vocabulary that will not do is told."""

import pickle

import numpy as np
import pytest

from vfe.data import text
from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.data.text import Text, Tokenizer, captions_of, cleaned, most_captions, train_vocabulary
from vfe.data.wordpiece import SPECIAL
from vfe.errors import UserError

WORDS = "the red ball is pushed to the left"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp("words") / "tokenizer.json"
  path.write_text(train_vocabulary([WORDS] * 2, 200))
  return str(path)


def record(name="a.mp4", **texts):
  return VideoRecord(name, path=name, text=texts)


def test_a_text_is_framed_cut_and_padded(vocabulary):
  ids, mask = Tokenizer(vocabulary, 6)(["The red", WORDS, ""])
  assert ids.dtype == np.int32 and ids.shape == mask.shape == (3, 6)
  cls, sep = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
  assert (ids[:, 0] == cls).all()
  assert mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6, [True] * 2 + [False] * 4]
  assert ids[0, 3] == ids[1, 5] == ids[2, 1] == sep
  np.testing.assert_array_equal(ids[0, 1:3], ids[1, 1:3])
  assert not ids[~mask].any()


def test_cleaned_texts_are_bare_words_in_lower_case():
  assert cleaned("#C C picks a bag of clothes from the floor") == (
    "c c picks a bag of clothes from the floor"
  )
  assert cleaned(" O'Neil's  T-shirt/vest: \"red\" (new)*;\n~5, ok?! ") == (
    "oneils t shirt vest red new 5 ok"
  )
  assert cleaned("Über <b> & [c] 50%_") == "über <b> & [c] 50%_"
  assert cleaned("?!") == ""


@pytest.mark.parametrize("training", [True, False])
def test_only_what_becomes_ids_is_cleaned(vocabulary, training):
  said = record(caption="#The RED-ball, (is) pushed!")
  row = lambda clean, it: Text(vocabulary, 16, clean=clean).row(
    it, np.random.default_rng(0) if training else None
  )
  plain = row(False, record(caption="the red ball is pushed"))
  for name, array in row(True, said).items():
    np.testing.assert_array_equal(array, plain[name])
  assert (row(False, said)["ids"] != plain["ids"]).any()
  assert captions_of(said, "caption") == ("#The RED-ball, (is) pushed!",)


def test_a_tokenizer_pickles_as_its_path(vocabulary):
  made = Tokenizer(vocabulary, 16)
  again = pickle.loads(pickle.dumps(made))
  assert len(pickle.dumps(made)) < 1000
  np.testing.assert_array_equal(made([WORDS])[0], again([WORDS])[0])
  assert made.size == again.size > made([WORDS])[0].max()


def test_a_folder_and_berts_list_serve_too(vocabulary, tmp_path):
  from tokenizers import Tokenizer as Library

  numbers = Library.from_file(vocabulary).get_vocab()
  entries = "\n".join(sorted(numbers, key=numbers.get)) + "\n"
  (tmp_path / "vocab.txt").write_text(entries)
  expected = Tokenizer(vocabulary, 12)([WORDS, "RED"])
  for path in (tmp_path, tmp_path / "vocab.txt"):
    got = Tokenizer(str(path), 12)([WORDS, "RED"])
    for one, other in zip(got, expected, strict=True):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
  ("entries", "settings", "lower"),
  [
    (["red", "Red"], None, False),
    (["red", "[unused1]"], None, True),
    (["red"], '{"do_lower_case": false}', False),
    (["red", "Red"], '{"do_lower_case": true}', True),
  ],
)
def test_upper_case_is_kept_where_the_list_knows_it(tmp_path, entries, settings, lower):
  (tmp_path / "vocab.txt").write_bytes("\r\n".join([*SPECIAL, *entries]).encode())
  if settings:
    (tmp_path / "tokenizer_config.json").write_text(settings)
  ids, _ = Tokenizer(str(tmp_path), 4)(["RED", "red"])
  assert (ids[0] == ids[1]).all() == lower


def test_padding_and_cutting_of_the_file_are_not_used(vocabulary, tmp_path):
  from tokenizers import Tokenizer as Library

  library = Library.from_file(vocabulary)
  library.enable_truncation(3)
  library.enable_padding(length=50)
  library.save(str(tmp_path / "tokenizer.json"))
  for one, other in zip(
    Tokenizer(str(tmp_path), 12)([WORDS]), Tokenizer(vocabulary, 12)([WORDS]), strict=True
  ):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
  ("files", "message"),
  [
    (None, r"does not exist; a vocabulary is a tokenizer\.json"),
    ({}, r"holds neither tokenizer\.json nor vocab\.txt"),
    ({"tokenizer.json": "{}"}, r"tokenizer\.json: is no tokenizer\.json of the tokenizers library"),
    ({"tokenizer.json": "words"}, r"is no tokenizer\.json"),
    ({"vocab.txt": "red\nblue\n"}, r"vocab\.txt: has no \[PAD\] and no \[UNK\] and no \[CLS\]"),
    ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\nred\n"}, r"has no \[SEP\]; use a vocabulary of BERT's"),
    ({"vocab.txt": "red\nred\n"}, r"'red' is there twice"),
  ],
)
def test_a_vocabulary_that_will_not_do(tmp_path, files, message):
  folder = tmp_path / "words"
  if files is not None:
    folder.mkdir()
    for name, content in files.items():
      (folder / name).write_text(content)
  with pytest.raises(UserError, match=message) as caught:
    Tokenizer(str(folder), 8)
  assert "\n" not in str(caught.value)


def test_any_vocabulary_becomes_a_tokenizer_json(vocabulary, tmp_path):
  (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "the", "Red", "ball"]))
  (tmp_path / "again.json").write_text(text.to_json(str(tmp_path / "vocab.txt")))
  ids = [Tokenizer(str(tmp_path / name), 8)([WORDS])[0] for name in ("vocab.txt", "again.json")]
  np.testing.assert_array_equal(*ids)


def test_the_digest_is_that_of_the_file(vocabulary, tmp_path):
  digest = text.vocabulary_digest(vocabulary)
  assert digest == text.vocabulary_digest(vocabulary.removesuffix("/tokenizer.json"))
  (tmp_path / "tokenizer.json").write_text(train_vocabulary([WORDS] * 2, 30))
  assert len(digest) == 16 and digest != text.vocabulary_digest(str(tmp_path))


def test_captions_are_a_text_or_a_list():
  assert captions_of(record(caption="one"), "caption") == ("one",)
  assert captions_of(record(captions=["one", " ", "two"]), "captions") == ("one", "two")
  assert captions_of(record(caption=""), "caption") == captions_of(record(), "caption") == ()
  for wrong in (3, [{"text": "one"}], {"a": "one"}):
    with pytest.raises(UserError, match=r"a\.mp4: its 'caption' is neither a text nor a list"):
      captions_of(record(caption=wrong), "caption")


def test_a_caption_is_drawn_from_all():
  three = record(captions=["one", "two", "three"])
  rng = np.random.default_rng(0)
  assert {text.caption_of(three, "captions", rng) for _ in range(40)} == {"one", "two", "three"}
  with pytest.raises(UserError, match=r"a\.mp4: no 'caption' to train on.*nearest: captions"):
    text.caption_of(three, "caption", rng)
  with pytest.raises(UserError, match=r"it has no texts"):
    text.caption_of(record(), "caption", rng)


def test_the_most_captions_of_a_source():
  records = [record(captions=["a"]), record(), record(captions=["a", "b", "c"])]
  assert most_captions(ListedSource("three", {}, records), "captions") == 3
  assert most_captions(ListedSource("none", {}, []), "captions") == 0


def test_a_spec_says_what_is_wrong_with_it():
  with pytest.raises(UserError, match=r"data\.text\.length=2 has no room"):
    Text("words", 2)
  with pytest.raises(UserError, match=r"data\.text\.captions=0 is below 1"):
    Text("words", 8, captions=0)
