"""Encoders whose tokens meet by relative positions and patterns, and do not all go on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.edges import Edges
from vfe.tokens.pruning import Pruning
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

DENSE = EncoderConfig.of(
  "test", 4, 32, (1, 8, 8), positions="relative", layer_scale=0.1, cls=True, pixels="half"
)
SPARSE = dataclasses.replace(DENSE, edges=Edges(1, 3, 8), pruning=Pruning((0, 1), 0.7))
N = DENSE.layout.size


@pytest.fixture(scope="module")
def clips():
  video = jax.random.randint(jax.random.key(0), (2, 4, 32, 32, 3), 0, 256).astype(jnp.uint8)
  return gather_tubelets(video, DENSE.layout, everything(2, N))


@pytest.fixture(scope="module")
def params(clips):
  """Of any of these encoders: neither edges nor pruning has parameters."""
  made = Encoder(DENSE).init(jax.random.key(1), clips, everything(2, N))["params"]
  noise = jax.random.normal(jax.random.key(2), made["blocks"]["relative"].shape)
  return {**made, "blocks": {**made["blocks"], "relative": noise}}


def run(config, params, clips, keys=None, rng=None, execution=None):
  """(tokens, the survivors after each pruning layer)"""
  module = Encoder(config, execution or Execution())
  apply = lambda params, clips, keys, rng: module.apply(
    {"params": params}, clips, everything(len(clips), N), keys, None, rng, mutable=["intermediates"]
  )
  tokens, sown = jax.jit(apply)(params, clips, keys, rng)
  return tokens, sown.get("intermediates", {}).get("kept", ())


@pytest.fixture(scope="module")
def sparse(params, clips):
  return run(SPARSE, params, clips)


def test_tokens_are_those_of_the_counts(sparse):
  tokens, kept = sparse
  assert [rows.shape for rows in kept] == [(2, 45), (2, 32)] and tokens.shape == (2, 33, 32)
  assert set(np.asarray(kept[1][0])) < set(np.asarray(kept[0][0]))


def test_all_blocks_met_and_nobody_left_out_is_dense(params, clips):
  everybody = dataclasses.replace(DENSE, edges=Edges(1, 7, 8), pruning=Pruning((0,), 1.0))
  np.testing.assert_allclose(
    run(everybody, params, clips)[0], run(DENSE, params, clips)[0], atol=2e-5
  )


def test_a_row_does_not_depend_on_the_others(params, clips, sparse):
  alone = run(SPARSE, params, clips[1:])[0]
  np.testing.assert_allclose(alone[0], sparse[0][1], atol=1e-5)


def test_patterns_follow_the_key_and_are_the_same_without_one(params, clips, sparse):
  again = run(SPARSE, params, clips)[0]
  other = run(SPARSE, params, clips, rng=jax.random.key(5))[0]
  np.testing.assert_array_equal(again, sparse[0])
  assert np.abs(other[:, 0] - again[:, 0]).max() > 1e-6


def test_the_survivors_are_those_the_cls_sees_most(params, clips):
  """By the first layer's own product of queries and keys, written down here."""
  tokens = clips.astype(jnp.float32) / 255 * 2 - 1
  tokens = tokens @ params["embed"]["kernel"] + params["embed"]["bias"]
  cls = jnp.broadcast_to(params["cls"], (2, 1, 32))
  x = jnp.concatenate([cls, tokens], 1)
  layer = jax.tree.map(lambda leaf: leaf[0], params["blocks"])
  x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
  q = (x[:, :1] @ layer["attention"]["query"]["kernel"]).reshape(2, 1, 2, 16)
  k = (x @ layer["attention"]["key"]["kernel"]).reshape(2, 1 + N, 2, 16)
  logits = jnp.einsum("bfhd,bnhd->bhn", q, k) / 4
  logits = logits + layer["relative"][jnp.array([-1] + [-3] * N)].T
  share = jax.nn.softmax(logits, -1).mean(1)[:, 1:]
  best = jnp.sort(jax.lax.top_k(share, 45)[1], 1)
  kept = run(dataclasses.replace(DENSE, pruning=Pruning((0,), 0.7)), params, clips)[1]
  np.testing.assert_array_equal(kept[0], best)


def test_edges_of_an_encoder_with_other_positions_and_no_class_token(clips):
  plain = EncoderConfig.of("test", 4, 32, (1, 8, 8))
  made = Encoder(plain).init(jax.random.key(1), clips, everything(2, N))["params"]
  whole = run(plain, made, clips)[0]
  same = run(dataclasses.replace(plain, edges=Edges(1, 7, 8)), made, clips)[0]
  fewer = run(dataclasses.replace(plain, edges=Edges(1, 1, 8)), made, clips)[0]
  np.testing.assert_allclose(same, whole, atol=2e-5)
  assert np.abs(fewer - whole).max() > 1e-4


def test_bfloat16_comes_out_as_it(params, clips):
  apply = lambda params: run(SPARSE, params, clips, execution=Execution("bfloat16"))[0]
  assert jax.eval_shape(apply, params).dtype == jnp.bfloat16


def test_a_config_survives_json():
  fields = json.loads(json.dumps(dataclasses.asdict(SPARSE)))
  assert EncoderConfig.from_dict(fields) == SPARSE


@pytest.mark.parametrize(
  "changes, said",
  [
    (dict(mixing="factorised", cls=False), "positions='relative'"),
    (dict(cls=False, pruning=Pruning((1,), 0.5)), "without a class token"),
    (dict(pruning=Pruning((3,), 0.5)), "there are 3 layers"),
  ],
)
def test_what_does_not_go_together_is_said(changes, said):
  with pytest.raises(UserError) as error:
    dataclasses.replace(DENSE, **changes)
  assert said in str(error.value)
