"""vfe.load: what was trained, opened from its folder. Golden numbers are transformers'."""

import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.errors import UserError
from vfe.learn import exports
from vfe.models.tokenizer import Tokenizer, TokenizerConfig

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
THEIRS = GOLDEN / "videomae" / "theirs"
CASE = runpy.run_path(str(GOLDEN / "make_videomae.py"))
VIDEO = CASE["video"]()
TOKENIZER = TokenizerConfig(
  filters=4,
  multipliers=(1, 2),
  temporal_downsample=(True,),
  res_blocks=0,
  levels=(8, 5),
  window=8,
  scorer_channels=(4, 4),
)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
  """A workdir with finished stages."""
  workdir = tmp_path_factory.mktemp("run")
  exports.write(workdir / "finetune" / "export", *CASE["models"]()["classifier"])
  shapes = jax.eval_shape(Tokenizer(TOKENIZER).init, jax.random.key(0), jnp.zeros((1, 8, 8, 8, 3)))
  random = np.random.default_rng(0)
  draw = lambda leaf: random.normal(scale=0.3, size=leaf.shape).astype(np.float32)
  params = jax.tree.map(draw, shapes["params"])
  exports.write(
    workdir / "tokenizer" / "export", "tokenizer", dataclasses.asdict(TOKENIZER), params
  )
  exports.write(workdir / "targets" / "export", "targets", {}, {"contents": np.zeros(1, np.uint8)})
  return workdir


@pytest.fixture(scope="module")
def theirs():
  return vfe.load(THEIRS)


@pytest.fixture(scope="module")
def classifier(stages):
  return vfe.load(str(stages / "finetune"))


@pytest.fixture(scope="module")
def tokenizer(stages):
  return vfe.load(stages / "tokenizer")


def close(actual, golden):
  np.testing.assert_allclose(actual, golden, atol=1e-4, rtol=1e-4)


def test_a_hugging_face_folder_encodes_as_transformers_does(theirs):
  golden = np.load(GOLDEN / "videomae" / "theirs.npz")
  assert isinstance(theirs, vfe.Encoder) and (theirs.kind, theirs.classes) == ("mae", {})
  tokens = theirs.encode(VIDEO)
  assert tokens.shape == (2, theirs.config.layout.size, theirs.config.width)
  close(tokens, golden["everything"])
  close(theirs.encode(VIDEO, CASE["visible"]()), golden["encoded"])
  close(theirs.pooled(VIDEO), golden["everything"].mean(1))


def test_a_finished_classifier_gives_probabilities_of_named_classes(classifier):
  logits = np.load(GOLDEN / "videomae" / "ours.npz")["logits"]
  close(classifier.classify(VIDEO)["label"], np.asarray(jax.nn.softmax(logits)))
  assert classifier.classes == {"label": ("jump", "sit", "wave")}
  head = classifier.params["head_label"]
  close(classifier.pooled(VIDEO) @ head["kernel"] + head["bias"], logits)


def test_an_encoder_takes_clips_of_another_length(theirs):
  longer = theirs.resized(frames=8)
  tokens = longer.encode(np.concatenate([VIDEO, VIDEO], axis=1))
  assert tokens.shape == (2, 2 * theirs.config.layout.size, theirs.config.width)
  assert theirs.config.frames == 4
  with pytest.raises(UserError, match="frames=7 is not divisible"):
    theirs.resized(frames=7)


def test_a_tokenizer_encodes_decodes_and_reconstructs(tokenizer):
  video = np.random.default_rng(0).integers(0, 256, (2, 16, 8, 8, 3), np.uint8)
  assert isinstance(tokenizer, vfe.Tokenizer)
  tokens = tokenizer.encode(video)
  assert tokens.codes.shape == (2, 2 * 4 * 4 * 4, 2)
  drawn, mask = tokenizer.reconstruct(video, masked=False)
  np.testing.assert_array_equal(tokenizer.decode(tokens.codes, 8), drawn)
  assert mask.min() == 1
  _, mask = tokenizer.reconstruct(video)
  assert 0 < mask.mean() < 1
  with pytest.raises(UserError, match="no whole number of windows"):
    tokenizer.decode(tokens.codes, 12)


def test_what_cannot_be_loaded_is_named_with_the_remedy(stages, tmp_path):
  with pytest.raises(UserError, match="holds the stages finetune, targets, tokenizer; name one"):
    vfe.load(stages)
  with pytest.raises(UserError, match=r"holds a targets; vfe\.load opens encoder"):
    vfe.load(stages / "targets")
  with pytest.raises(UserError, match="no such folder"):
    vfe.load(tmp_path / "nothing")
  with pytest.raises(UserError, match=r"neither an export\.json"):
    vfe.load(tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "videomea"}')
  with pytest.raises(UserError, match="nearest: videomae"):
    vfe.load(tmp_path)


def test_a_video_of_another_kind_is_refused_with_what_is_taken(theirs, tokenizer):
  with pytest.raises(UserError, match=r"takes uint8\[B, 4, 16, 16, 3\].*resized"):
    theirs.encode(VIDEO[:, :2])
  with pytest.raises(UserError, match=r"the video is float32\[2, 4, 16, 16, 3\]"):
    theirs.encode(VIDEO.astype(np.float32))
  with pytest.raises(UserError, match=r"give uint8\[B, T, H, W, 3\]"):
    tokenizer.encode(VIDEO[0])
  with pytest.raises(UserError, match="holds a mae, which has no classes"):
    theirs.classify(VIDEO)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    vfe.lode  # noqa: B018
