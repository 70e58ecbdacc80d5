"""vfe.load of SViTT: search by words, and videos and texts that are read together."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.data.text import Tokenizer
from vfe.errors import UserError
from vfe.models import svitt
from vfe.models.inflate import relative_tables
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

VIDEO = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
TEXTS = ["a red cube falls", "a blue ball rolls", "the cup"]


@pytest.fixture(scope="module")
def opened(svitt_export, tmp_path_factory):
  folder = tmp_path_factory.mktemp("svitt")
  svitt_export(folder, pool="mean")
  return vfe.load(folder)


@pytest.fixture(scope="module")
def by_hand(opened):
  """What the module makes of every pair at once, a row each: (vectors of videos, of texts, the
  tokens that were kept, logits of whether they match)."""
  ids, mask = (
    jnp.asarray(of) for of in Tokenizer(f"{opened.path}/tokenizer.json", opened.length)(TEXTS)
  )
  layout = opened.config.vision.layout
  patches = gather_tubelets(jnp.asarray(VIDEO), layout, everything(2, layout.size))

  @jax.jit
  def run(params):
    call = functools.partial(svitt.Svitt(opened.config).apply, {"params": params})
    video, sown = call(
      patches, everything(2, layout.size), method="tokens_of_video", mutable=["intermediates"]
    )
    words = call(ids, mask, method="tokens_of_text")
    of_video, of_text = jnp.repeat(jnp.arange(2), 3), jnp.tile(jnp.arange(3), 2)
    fused = call(words[of_text], mask[of_text], video[of_video], method="fuse")
    vectors = call(video, method="embed_video"), call(words, method="embed_text")
    return *vectors, sown["intermediates"]["vision"]["kept"], call(fused, method="match")

  return run(opened.params)


def test_videos_and_texts_meet_as_in_the_module(opened, by_hand):
  assert isinstance(opened, vfe.Svitt)
  video, text = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in by_hand[:2])
  np.testing.assert_allclose(opened.embed_video(VIDEO), video, atol=1e-5)
  np.testing.assert_allclose(opened.embed_text(TEXTS), text, atol=1e-5)
  np.testing.assert_allclose(opened.similarity(VIDEO, TEXTS), video @ text.T, atol=1e-5)
  projection = opened.params["vision_projection"]
  projected = opened.pooled(VIDEO) @ projection["kernel"] + projection["bias"]
  np.testing.assert_allclose(projected, by_hand[0], atol=1e-4)


def test_each_video_is_read_with_each_text(opened, by_hand):
  found, logits = opened.match(VIDEO, TEXTS), by_hand[3]
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, (logits[:, 1] - logits[:, 0]).reshape(2, 3), atol=1e-4)
  assert np.ptp(found, axis=0).min() > 0.01 and np.ptp(found, axis=1).min() > 0.01


def test_tokens_are_those_that_are_left(opened, by_hand):
  kept = opened.kept(VIDEO)
  assert [rows.shape for rows in kept] == [(2, 20)] and len(by_hand[2]) == 1
  np.testing.assert_array_equal(kept[0], by_hand[2][0])
  tokens = opened.encode(VIDEO)
  assert tokens.shape == (2, 1 + 20, opened.config.vision.width)


def test_texts_are_cleaned_as_in_training(opened):
  same = opened.embed_text(["A Red-cube, falls!", "(a) BLUE ball/rolls.", "#the cup"])
  np.testing.assert_array_equal(same, opened.embed_text(TEXTS))
  with pytest.raises(UserError, match="give a list"):
    opened.match(VIDEO, TEXTS[0])


def test_tables_of_relative_positions_go_with_the_clip(opened):
  longer = opened.resized(frames=6)
  have, want = opened.config.vision.layout.grid, longer.config.vision.layout.grid
  expected = relative_tables(opened.params["vision"]["blocks"]["relative"], have, want)
  np.testing.assert_array_equal(longer.params["vision"]["blocks"]["relative"], expected)
  with pytest.raises(UserError, match=r"takes uint8\[B, 6, 32, 32, 3\]"):
    longer.match(VIDEO, TEXTS)
