import dataclasses
import json
import pathlib
import runpy
import shutil

import jax
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.interop import language_model as hugging_face
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.nn.rotary import Rope

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
FOLDERS = GOLDEN / "language"
IDS, MASK = runpy.run_path(str(GOLDEN / "make_language.py"))["texts"]()


def logits(params, config):
  return np.asarray(jax.jit(LanguageModel(config).apply)({"params": params}, IDS, MASK))[MASK]


def read(folder):
  kind, model, params = hugging_face.read_export(folder)
  assert kind == "language"
  language = json.loads(json.dumps(model["language"]))
  return model, params["language"], LanguageConfig.from_dict(language)


@pytest.mark.parametrize("name", ["gemma", "llama", "smollm", "qwen"])
def test_logits_are_those_of_transformers(name):
  """llama: from several files, its head apart."""
  _, params, config = read(FOLDERS / name)
  expected = np.load(FOLDERS / f"{name}.npz")["logits"][MASK]
  np.testing.assert_allclose(logits(params, config), expected, atol=1e-4)
  shapes = jax.eval_shape(LanguageModel(config).init, jax.random.key(0), IDS, MASK)["params"]
  shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)
  assert shape(params) == shape(shapes)


def test_the_golden_texts_tell_windows_and_ropes_apart():
  _, params, config = read(FOLDERS / "gemma")
  assert config.windows == (5, 5, 0) and config.rope == Rope(500.0, "linear", 2.0)
  expected = np.load(FOLDERS / "gemma.npz")["logits"][MASK]
  for wrong in ({"windows": (5, 5, 5)}, {"rope_local": None}):
    assert np.abs(logits(params, dataclasses.replace(config, **wrong)) - expected).max() > 0.1


def words(size, added=()):
  """A tokenizer.json of a word a number."""
  from tokenizers import Tokenizer, models, pre_tokenizers

  made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  made.add_special_tokens(list(added))
  return made.to_str()


@pytest.fixture
def folder(tmp_path):
  """A copy of llama's."""
  shutil.copytree(FOLDERS / "llama", tmp_path / "model")
  return tmp_path / "model"


def test_the_tokenizer_and_the_ends_are_the_folders(folder):
  assert read(folder)[0]["tokenizer"] is None
  (folder / "tokenizer.json").write_text(words(48, ["<picture>"]))
  (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
  model = read(folder)[0]
  assert (model["tokenizer"], model["eos"]) == (str(folder / "tokenizer.json"), [2, 5])
  (folder / "generation_config.json").unlink()
  assert read(folder)[0]["eos"] == [2]


def test_a_tokenizer_of_another_vocabulary(folder):
  (folder / "tokenizer.json").write_text(words(49))
  with pytest.raises(UserError, match=r"tokenizer.json: 49 words, but the model .* has 48; take"):
    read(folder)
  (folder / "tokenizer.json").write_text(words(40))
  read(folder)
  with pytest.raises(UserError, match="40 words, but the model beside it has 1000"):
    hugging_face.check_vocabulary(folder / "tokenizer.json", 1000)


def test_a_tokenizer_that_is_none(folder):
  (folder / "tokenizer.json").write_text("{}")
  with pytest.raises(UserError, match=r"tokenizer.json: no file of the tokenizers library"):
    read(folder)


def test_a_missing_shard(folder):
  (folder / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors: missing, but .*index"):
    read(folder)


def test_another_family(folder):
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
  with pytest.raises(UserError, match="model_type is 'gpt2'; give the folder of a 'gemma3_text'"):
    read(folder)


def test_weights_of_another_size(folder):
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
  with pytest.raises(UserError, match=r"embed_tokens.weight has shape \[48, 24\]"):
    read(folder)
