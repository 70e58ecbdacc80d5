import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models import fsq
from vfe.models.tokenizer import (
  Tokenizer,
  TokenizerConfig,
  from_uint8,
  keep_mask,
  reconstruct_clip,
  to_uint8,
  tokenize_clip,
)

SMALL = TokenizerConfig(  # residual blocks are compiled in magvit_test
  filters=4,
  multipliers=(1, 2),
  temporal_downsample=(True,),
  res_blocks=0,
  levels=(8, 5),
  window=8,
  scorer_channels=(4, 4),
)


@pytest.fixture(scope="module")
def params(random_params):
  return random_params(Tokenizer(SMALL), jnp.zeros((1, SMALL.window, 8, 8, 3)))


@pytest.fixture(scope="module")
def clip():
  return jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 16, 8, 8, 3), np.uint8))


def test_config_survives_json():
  assert TokenizerConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL
  assert hash(SMALL) == hash(dataclasses.replace(SMALL))


def test_default_grid_is_the_papers():
  config = TokenizerConfig()
  assert config.tubelet == (2, 16, 16)
  assert config.grid(16, 224, 224) == (8, 14, 14)
  assert np.prod(config.levels) == 2**18


@pytest.mark.parametrize(
  ("changed", "kept"),
  [
    ({}, 196 + 768),
    ({"first_frame_counted": True}, 768),
    ({"first_frame_kept": False}, 768),
    ({"keep": 1.0}, 1568),
  ],
)
def test_mask_keeps_exactly_what_the_paper_says(changed, kept):
  importance = jax.random.uniform(jax.random.key(0), (2, 8, 14, 14))
  config = dataclasses.replace(TokenizerConfig(), **changed)
  mask = np.asarray(jax.jit(lambda i: keep_mask(config, i))(importance))
  importance = np.asarray(importance)
  assert mask.sum(axis=(1, 2, 3)).tolist() == [kept, kept]
  assert config.first_frame_kept == bool((mask[:, 0] == 1).all())
  chosen = np.where(mask[:, 1:] > 0, importance[:, 1:], np.inf).min(axis=(1, 2, 3))
  dropped = np.where(mask[:, 1:] > 0, -np.inf, importance[:, 1:]).max(axis=(1, 2, 3))
  assert (chosen >= dropped).all()


def test_gradient_reaches_encoder_decoder_and_scorer(params, clip):
  model, video = Tokenizer(SMALL), from_uint8(clip[:, :8])
  loss = lambda p: jnp.square(model.apply({"params": p}, video).video - video).mean()
  gradient = jax.jit(jax.grad(loss))(params)
  for part in ("encoder", "decoder", "scorer"):
    leaves = jax.tree.leaves(gradient[part])
    assert all(jnp.isfinite(leaf).all() for leaf in leaves), part
    assert sum(jnp.abs(leaf).sum() for leaf in leaves) > 0, part


def test_dropped_tokens_do_not_reach_the_decoder_but_have_codes(params, clip):
  model, video = Tokenizer(SMALL), from_uint8(clip[:, :8])
  apply = lambda x, method=None: jax.jit(
    lambda x: model.apply({"params": params}, x, method=method)
  )(x)
  out = apply(video)
  latent = fsq.quantise(apply(video, "encode"), SMALL.levels)
  np.testing.assert_array_equal(
    out.codes, fsq.codes_of_latents(latent, SMALL.levels).reshape(2, -1, 2)
  )
  masked = jnp.where(out.mask[..., None] > 0, latent, 0.0)
  np.testing.assert_allclose(out.video, apply(masked, "decode"), atol=1e-5)


def test_a_long_clip_is_its_windows_one_after_another(params, clip):
  whole = jax.jit(lambda v: tokenize_clip(SMALL, params, v))(clip)
  per_window = 4 * 4 * 4
  assert whole.codes.shape == (2, 2 * per_window, 2) and whole.codes.dtype == jnp.uint8
  assert whole.importance.shape == (2, 2 * per_window)
  np.testing.assert_array_equal(whole.latent, fsq.latents_of_codes(whole.codes, SMALL.levels))
  alone_of = jax.jit(lambda v: tokenize_clip(SMALL, params, v))
  for i in range(2):
    alone = alone_of(clip[:, 8 * i : 8 * i + 8])
    there = slice(i * per_window, (i + 1) * per_window)
    np.testing.assert_array_equal(whole.codes[:, there], alone.codes)
    np.testing.assert_allclose(whole.importance[:, there], alone.importance, rtol=1e-5)
  first = whole.importance.reshape(2, 2, 4, 16)
  np.testing.assert_array_equal(first[:, :, 0], first[:, :, 1])


def test_reconstruction_of_a_clip_is_that_of_its_windows(params, clip):
  drawn, mask = jax.jit(lambda v: reconstruct_clip(SMALL, params, v))(clip)
  apply = jax.jit(lambda v: Tokenizer(SMALL).apply({"params": params}, v))
  window = apply(from_uint8(clip[:, 8:]))
  off = np.abs(np.asarray(drawn[:, 8:], int) - np.asarray(to_uint8(window.video), int))
  assert drawn.dtype == jnp.uint8 and off.max() <= 1  # a float32 difference may round the other way
  np.testing.assert_array_equal(mask[:, 4:], window.mask)
  masked = lambda clip: reconstruct_clip(SMALL, params, clip, masked=False)[1]
  assert jax.jit(masked)(clip).min() == 1


def test_memory_does_not_grow_with_the_clip(params):
  def temporary(function, frames):
    video = jax.ShapeDtypeStruct((1, frames, 32, 32, 3), jnp.uint8)
    compiled = jax.jit(lambda v: function(SMALL, params, v)).lower(video).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  for function in (tokenize_clip, reconstruct_clip):
    assert temporary(function, 64) <= 1.1 * temporary(function, 16)


@pytest.mark.parametrize(
  ("frames", "size", "message"),
  [
    (100, 224, "data.frames=100 .* use 96 or 112"),
    (9, 224, "data.frames=9 .* use 16"),
    (16, 100, "data.size=100 .* use 96 or 112"),
  ],
)
def test_a_clip_that_does_not_divide_is_a_user_error(frames, size, message):
  with pytest.raises(UserError, match=message):
    TokenizerConfig().grid(frames, size, size)


@pytest.mark.parametrize(
  "wrong",
  [
    {"temporal_downsample": (True,)},
    {"window": 5},
    {"window": 2},
    {"topk": "hard"},
    {"keep": 1.5},
    {"keep": 0.1, "first_frame_counted": True},
    {"levels": (1,)},
  ],
)
def test_a_config_that_cannot_be_is_a_user_error(wrong):
  with pytest.raises(UserError, match=f"tokenizer {next(iter(wrong))}="):
    dataclasses.replace(TokenizerConfig(), **wrong)
