import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.nn.attention import attend
from vfe.nn.blocks import Execution, make_stack
from vfe.nn.factorised import FactorisedBlock, Places, attend_frames, attend_sites, fold, unfold

GRID = (4, 6)  # latent frames, sites
RNG = np.random.default_rng(0)
# The same number in each frame, at other sites.
DROPPED = np.stack(
  [np.concatenate([6 * t + np.sort(RNG.permutation(6)[:3]) for t in range(4)]) for _ in range(2)]
).astype(np.int32)
EVERYTHING = np.broadcast_to(np.arange(24, dtype=np.int32), (2, 24))


def qkv(selection):
  rng = np.random.default_rng(1)
  return [jnp.asarray(rng.standard_normal((*selection.shape, 2, 4)), jnp.float32) for _ in "qkv"]


@pytest.mark.parametrize("selection", [DROPPED, EVERYTHING], ids=["dropped", "all"])
@pytest.mark.parametrize(
  "meet, group",
  [(attend_frames, lambda at: at // 6), (attend_sites, lambda at: at % 6)],
  ids=["frames", "sites"],
)
def test_tokens_meet_those_of_their_frame_or_site_and_no_others(meet, group, selection):
  """Against attention over all tokens that is masked to segments."""
  places = Places(jnp.asarray(selection), 4, GRID)
  found = jax.jit(functools.partial(meet, places=places))(*qkv(selection))
  expected = attend(*qkv(selection), segments=jnp.asarray(group(selection)), implementation="xla")
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_fold_and_unfold_are_inverse():
  tokens = jnp.arange(2 * 12 * 3).reshape(2, 12, 3)
  folded = fold(tokens, 4)
  assert folded.shape == (8, 3, 3)
  np.testing.assert_array_equal(folded[1], tokens[0, 3:6])
  np.testing.assert_array_equal(unfold(folded, 4), tokens)


@pytest.fixture(scope="module")
def factorised():
  stack = make_stack(8, 2, 2, 16, 1e-6, Execution(), FactorisedBlock)
  return stack, jax.jit(stack.init)(jax.random.key(0))


def test_a_closed_gate_leaves_an_image_encoder(factorised):
  """At first each frame goes through the stack as if it were alone."""
  stack, params = factorised
  assert params["gate"].shape == (2,) and not np.any(params["gate"])
  tokens = jnp.asarray(np.random.default_rng(2).standard_normal((2, 12, 8)), jnp.float32)
  found = jax.jit(stack.apply)(params, tokens, None, Places(jnp.asarray(DROPPED), 4, GRID))
  spatial = {name: leaf for name, leaf in params.items() if "temporal" not in name}
  plain = make_stack(8, 2, 2, 16, 1e-6, Execution())
  spatial.pop("gate")
  alone = unfold(jax.jit(plain.apply)(spatial, fold(tokens, 4)), 4)
  np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


def test_an_open_gate_lets_sites_see_other_frames(factorised):
  stack, params = factorised
  places = Places(jnp.asarray(EVERYTHING), 4, GRID)
  tokens = jnp.asarray(np.random.default_rng(2).standard_normal((2, 24, 8)), jnp.float32)
  changed = tokens.at[:, 0, 0].add(1.0)  # the first frame, site 0
  run = jax.jit(stack.apply)
  seen = lambda gate: (
    run({**params, "gate": jnp.full(2, gate)}, changed, None, places)
    - run({**params, "gate": jnp.full(2, gate)}, tokens, None, places)
  )
  assert np.abs(seen(0.0)[:, 6:]).max() == 0  # no other frame hears of it
  assert np.abs(seen(1.0)[:, 6::6]).max() > 1e-4  # its own site does
