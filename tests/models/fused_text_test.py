"""BERT whose last layers see a video: transformers' numbers, padding, and which tokens go on."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.models.fused_text import FusedText
from vfe.models.text import TextConfig
from vfe.tokens.pruning import Pruning

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
MADE = runpy.run_path(str(GOLDEN / "make_fused_bert.py"))
CONFIG = TextConfig(
  MADE["WORDS"], MADE["WIDTH"], MADE["DEPTH"], MADE["HEADS"], MADE["MLP"], MADE["POSITIONS"]
)
PARAMS, (IDS, MASK, VIDEO) = jax.tree.map(jnp.asarray, (MADE["weights"](), MADE["inputs"]()))
CLOSE = dict(atol=1e-4, rtol=1e-4)


def network(pruning=None):
  return FusedText(CONFIG, MADE["FUSED"], MADE["VIDEO_WIDTH"], pruning)


def run(module, *inputs, method):
  return module.apply({"params": PARAMS}, *inputs, method=method)


@pytest.fixture(scope="module")
def golden():
  return np.load(GOLDEN / "fused_bert.npz")


@pytest.fixture(scope="module")
def read():
  """(ids, mask, video) -> words before and after the video, and the logits of the latter."""

  @jax.jit
  def read(ids, mask, video):
    words = run(network(), ids, mask, method="encode")
    fused = run(network(), words, mask, video, method="fuse")
    return words, fused, run(network(), fused, method="words")

  return read


def test_words_that_see_a_video_are_those_of_transformers(golden, read):
  for name, found in zip(("first", "last", "logits"), read(IDS, MASK, VIDEO), strict=True):
    np.testing.assert_allclose(found[MASK], golden[name][MASK], **CLOSE, err_msg=name)


def test_what_the_first_word_sees_most_goes_on_and_the_first_token_always(golden):
  pruning = Pruning((0,), MADE["KEPT"] / 12)
  words = jnp.asarray(golden["first"])
  fuse = jax.jit(lambda words: network(pruning).apply(
    {"params": PARAMS}, words, MASK, VIDEO, method="fuse", mutable=["intermediates"]
  ))  # fmt: skip
  fused, sown = fuse(words)
  of_first = golden["given"][:, 0, 1:]
  best = np.sort(np.argsort(-of_first, axis=1)[:, : MADE["KEPT"]], axis=1)
  np.testing.assert_array_equal(sown["intermediates"]["kept_of_video"][0], best)
  np.testing.assert_allclose(fused[MASK], golden["pruned"][MASK], **CLOSE)
  assert np.abs(golden["pruned"] - golden["last"])[MASK].max() > 0.1


def test_no_word_sees_padding_and_every_word_the_video(read):
  given, other = read(IDS, MASK, VIDEO), read(jnp.where(MASK, IDS, 9), MASK, VIDEO)
  for ours, theirs in zip(given, other, strict=True):
    np.testing.assert_array_equal(np.asarray(ours)[MASK], np.asarray(theirs)[MASK])
  words, fused, _ = read(IDS, MASK, VIDEO.at[:, -1].add(1.0))
  np.testing.assert_array_equal(words, given[0])
  assert (np.abs(fused - given[1]).max(-1)[MASK] > 1e-4).all()


def test_a_pair_is_read_as_if_it_were_alone(read):
  together = read(IDS, MASK, VIDEO)
  again = read(*(jnp.roll(of, 1, axis=0) for of in (IDS, MASK, VIDEO)))
  alone = read(IDS[1:2], MASK[1:2], VIDEO[1:2])
  for of, rolled, one in zip(together, again, alone, strict=True):
    np.testing.assert_allclose(jnp.roll(rolled, -1, axis=0)[MASK], of[MASK], atol=1e-5)
    np.testing.assert_allclose(one[0, :4], of[1, :4], atol=1e-4)


def test_random_ones_that_go_on_are_each_rows_own():
  """Without keys all rows' are the same."""
  module, rows = network(Pruning((0,), 0.5, "random")), 8
  many = lambda x: jnp.repeat(x[:1], rows, axis=0)
  words = jnp.zeros((rows, IDS.shape[1], MADE["WIDTH"]))

  def kept(keys):
    inputs = (words, many(MASK), many(VIDEO), keys)
    _, sown = module.apply({"params": PARAMS}, *inputs, method="fuse", mutable=["intermediates"])
    return {tuple(row) for row in sown["intermediates"]["kept_of_video"][0].tolist()}

  assert len(kept(None)) == 1
  assert len(kept(jax.random.split(jax.random.key(0), rows))) > rows // 2
