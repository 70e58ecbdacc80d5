"""vfe.load of contrastive training, and of text models: search by words."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.errors import UserError
from vfe.models import dual_encoder
from vfe.models.inflate import positions
from vfe.nn.blocks import Execution
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets
from vfe.tokens.tubes import Tube

BERT = pathlib.Path(__file__).resolve().parents[2] / "golden" / "hf_towers" / "bert"
TEXTS = ["a red cube falls", "a blue ball rolls", "the cup"]
VIDEO = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
XLA = Execution(attention="xla")


@pytest.fixture(scope="module")
def opened(contrast_export, tmp_path_factory):
  folder = tmp_path_factory.mktemp("long")
  contrast_export(folder, images=True, cls=True)
  return vfe.load(folder)


def test_videos_and_texts_meet_as_in_the_stage(opened):
  assert isinstance(opened, vfe.DualEncoder)
  model = dual_encoder.DualEncoder(opened.config, XLA, XLA)
  layout = opened.config.vision.layout
  chosen = everything(2, layout.size)
  patches = gather_tubelets(jnp.asarray(VIDEO), layout, chosen)
  embed = jax.jit(functools.partial(model.apply, method="embed_video"))
  expected = embed({"params": opened.params}, patches, chosen)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  found = opened.embed_video(VIDEO)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  texts = opened.embed_text(TEXTS)
  np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
  assert not np.allclose(texts[0], texts[1], atol=1e-2)
  np.testing.assert_allclose(opened.similarity(VIDEO, TEXTS), found @ texts.T, atol=1e-5)


def test_of_a_tower_with_a_class_token_the_mean_is_of_the_others(opened):
  tokens = opened.encode(VIDEO)
  assert tokens.shape == (2, 1 + opened.config.vision.layout.size, opened.config.vision.width)
  np.testing.assert_allclose(opened.pooled(VIDEO), tokens[:, 1:].mean(1), atol=1e-5)
  np.testing.assert_allclose(opened.vision.pooled(VIDEO), tokens[:, 1:].mean(1), atol=1e-5)


def test_learned_positions_go_with_the_clip(opened):
  longer = opened.resized(frames=8, size=32)
  assert longer.embed_video(np.zeros((1, 8, 32, 32, 3), np.uint8)).shape == (1, 16)
  expected = positions(opened.params["vision"]["position"], (4, 4, 4))
  np.testing.assert_array_equal(longer.params["vision"]["position"], expected)
  assert opened.params["vision"]["position"].shape == (2, 4, 32)
  with pytest.raises(UserError, match="size=20 is not divisible"):
    opened.resized(size=20)


def test_an_image_goes_by_its_own_embedding_or_as_a_still_clip(opened, contrast_export, tmp_path):
  image = VIDEO[:, 0]
  found = opened.embed_image(image)
  assert found.shape == (2, 16)
  assert not np.allclose(found, opened.embed_video(np.repeat(VIDEO[:, :1], 4, 1)), atol=1e-2)
  contrast_export(tmp_path)
  without = vfe.load(tmp_path)
  still = without.embed_video(np.repeat(VIDEO[:, :1], 4, 1))
  np.testing.assert_allclose(without.embed_image(image), still, atol=1e-6)
  with pytest.raises(UserError, match=r"takes uint8\[B, 16, 16, 3\]"):
    opened.embed_image(VIDEO)


def test_an_encoder_of_tubes_is_opened_too(contrast_export, tmp_path):
  tubes = (Tube((4, 4, 4), (4, 8, 8)), Tube((1, 8, 8), (2, 8, 8)))
  contrast_export(tmp_path, tubes=tubes, positions="sincos3d", images=True)
  opened = vfe.load(tmp_path)
  assert opened.config.vision.tubes == tubes
  assert opened.encode(VIDEO).shape == (2, 4 + 8, 32)
  assert opened.embed_image(VIDEO[:, 0]).shape == (2, 16)
  assert opened.resized(frames=8).config.vision.layout.size == 8 + 16
  with pytest.raises(UserError, match="do not fit into 2 frames"):
    opened.resized(frames=2)


def test_what_is_no_list_of_texts_or_has_no_vocabulary_is_said(opened, contrast_export, tmp_path):
  with pytest.raises(UserError, match="give a list"):
    opened.embed_text("a red cube falls")
  export = contrast_export(tmp_path)
  (pathlib.Path(export.path) / "tokenizer.json").unlink()
  with pytest.raises(UserError, match=r"tokenizer\.json does not exist"):
    vfe.load(tmp_path).embed_text(TEXTS)


def test_a_text_model_gives_tokens_and_their_mean(tmp_path):
  words = vfe.load(BERT)
  assert isinstance(words, vfe.TextEncoder)
  if words.vocabulary is None:
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
      words.pooled(TEXTS)
  entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "cube"]
  (tmp_path / "vocab.txt").write_text("\n".join(entries))
  words = type(words)(words.config, words.params, str(tmp_path), words.path, length=8)
  tokens, mask = words.encode(["a red cube", "a"])
  assert tokens.shape == (2, 8, words.config.width) and mask.sum(1).tolist() == [5, 3]
  pooled = words.pooled(["a red cube", "a"])
  np.testing.assert_allclose(pooled[1], tokens[1, :3].mean(0), atol=1e-5)
