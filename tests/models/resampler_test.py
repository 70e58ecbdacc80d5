import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.models import resampler
from vfe.models.resampler import Resampler, ResamplerConfig

CONFIG = ResamplerConfig(inputs=6, width=8, queries=3, depth=2, heads=2, head_dim=5, mlp=16)
RNG = np.random.default_rng(0)
VISUAL = jnp.asarray(RNG.standard_normal((2, 7, 6)), jnp.float32)
THERE = jnp.arange(7) < jnp.array([[7], [4]])


@pytest.fixture(scope="module")
def params():
  shapes = jax.eval_shape(lambda rng: resampler.init(CONFIG, rng), jax.random.key(0))
  draw = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def run(params):
  return jax.jit(lambda *of: Resampler(CONFIG).apply({"params": params}, *of))


def test_by_the_formula(params, run):
  """Flamingo's pseudo-code in float64: latents ask [visual, latents], then squared ReLU."""
  tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  for row in range(2):
    visual = np.asarray(VISUAL, np.float64)[row][np.asarray(THERE)[row]] @ tree["project"]["kernel"]
    latents = tree["latents"]
    for i in range(CONFIG.depth):
      layer = jax.tree.map(lambda leaf, i=i: leaf[i], tree["blocks"])
      latents = _layer(layer, latents, visual)
    wanted = _norm(tree["norm"], latents)
    np.testing.assert_allclose(run(VISUAL, THERE)[row], wanted, rtol=2e-4, atol=2e-4)


def _layer(layer, latents, visual):
  own, other = _norm(layer["latent_norm"], latents), _norm(layer["visual_norm"], visual)
  context = np.concatenate([other, own])
  split = lambda x: x.reshape(len(x), 2, 5)
  q = split(own @ layer["query"]["kernel"])
  k, v = (split(context @ layer[name]["kernel"]) for name in ("key", "value"))
  logits = np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(5)
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  shares /= shares.sum(-1, keepdims=True)
  mixed = np.einsum("hnm,mhd->nhd", shares, v).reshape(len(latents), -1)
  latents = latents + mixed @ layer["out"]["kernel"]
  hidden = _norm(layer["mlp_norm"], latents) @ layer["up"]["kernel"]
  return latents + np.maximum(hidden, 0) ** 2 @ layer["down"]["kernel"]


def _norm(norm, x):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * norm["scale"] + norm["bias"]


def test_as_many_come_out_however_many_go_in(params):
  for count in (1, 30):
    visual, there = jnp.ones((2, count, 6)), jnp.ones((2, count), bool)
    found = Resampler(CONFIG).apply({"params": params}, visual, there)
    assert found.shape == (2, 3, 8)


def test_equal_widths_need_no_projection():
  same = ResamplerConfig(inputs=8, width=8, queries=3, depth=1, heads=2, head_dim=4, mlp=16)
  assert "project" not in jax.eval_shape(lambda rng: resampler.init(same, rng), jax.random.key(0))


def test_flamingos_shapes_have_its_parameters():
  """About 194 M (appendix, table 4: 1536 wide, six layers of 16 heads of 96, 64 latents)."""
  flamingo = ResamplerConfig(inputs=1536, width=1536)
  shapes = jax.eval_shape(lambda rng: resampler.init(flamingo, rng), jax.random.key(0))
  count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert count == pytest.approx(194e6, rel=0.15)


def test_nothing_of_a_thing_is_refused():
  with pytest.raises(UserError, match="resampler queries=0"):
    ResamplerConfig(inputs=8, width=8, queries=0)
