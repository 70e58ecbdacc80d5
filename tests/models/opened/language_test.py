import pathlib
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import vfe
from vfe.errors import UserError

LLAMA = pathlib.Path(__file__).resolve().parents[2] / "golden" / "language" / "llama"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """transformers' small Llama beside a tokenizer of a word a number, begun by <s>."""
  folder = tmp_path_factory.mktemp("llama") / "model"
  shutil.copytree(LLAMA, folder)
  names = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, 48))]
  made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
  made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(names[:3])
  made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
  made.save(str(folder / "tokenizer.json"))
  return vfe.load(folder)


def test_texts_are_framed_and_padded_on_the_left(model):
  ids, mask = model.tokens(["w7 w9", "w3"])
  assert ids.shape == (2, 16) and ids[0, -3:].tolist() == [1, 7, 9]
  assert ids[1, -2:].tolist() == [1, 3] and mask.sum(1).tolist() == [3, 2]


def test_a_text_goes_on_with_the_likeliest_words(model):
  texts = ["w7 w9", "w3 w4 w5 w6"]
  first = np.argmax(model.logits(*model.tokens(texts))[:, -1], axis=-1)
  found = model.generate(texts, words=2, eos=(int(first[0]),))
  assert found[0] == f"w{first[0]}"
  assert found[1].split()[0] == f"w{first[1]}" and len(found[1].split()) == 2


def test_texts_that_are_none(model):
  for texts in ("w7", []):
    with pytest.raises(UserError, match="give a list of at least one"):
      model.generate(texts)


def test_a_folder_without_a_tokenizer_gives_logits_only():
  model = vfe.load(LLAMA)
  with pytest.raises(UserError, match=r"llama holds no tokenizer.json"):
    model.tokens(["w7"])
