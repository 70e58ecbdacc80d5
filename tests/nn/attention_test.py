import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.learn.sharding import make_mesh
from vfe.nn import attention
from vfe.nn.attention import attend


def inputs(n=70, m=50, dtype=np.float32, batch=2, heads=3):
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.standard_normal((batch, k, heads, 8)), dtype) for k in (n, m, m))


def ids(n=70, m=50, batch=2):
  """Segments of unequal sizes in no order; every query's segment has a key."""
  rng = np.random.default_rng(1)
  keys = np.stack([rng.permutation(np.arange(m) % 3) for _ in range(batch)])
  return jnp.asarray(rng.integers(0, 3, (batch, n))), jnp.asarray(keys)


def reference(q, k, v, segments=None, key_segments=None):
  """float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
  if segments is not None:
    same = np.asarray(segments)[:, None, :, None] == np.asarray(key_segments)[:, None, None, :]
    logits = np.where(same, logits, -np.inf)
  probabilities = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities /= probabilities.sum(-1, keepdims=True)
  return np.einsum("bhnm,bmhd->bnhd", probabilities, v)


@pytest.fixture(params=["xla", "chunked", "splash"])
def implementation(request, monkeypatch):
  """Splash runs interpreted here, the same kernel that a TPU compiles."""
  monkeypatch.setattr(attention, "CHUNK", 16)  # five chunks of queries, the last one not full
  return request.param


@pytest.mark.parametrize("segmented", [False, True])
def test_every_implementation_is_softmax_attention(implementation, segmented):
  """Sums of 50 and 8 products of numbers near 1 in float32: 1e-5 is a hundred roundings."""
  q, k, v = inputs()
  which = dict(zip(("segments", "key_segments"), ids(), strict=True)) if segmented else {}
  found = attend(q, k, v, implementation=implementation, **which)
  np.testing.assert_allclose(found, reference(q, k, v, **which), rtol=0, atol=1e-5)


def test_softmax_is_float32_under_bfloat16(implementation):
  """What is left is the rounding of inputs, probabilities and output: 2**-8 each, of values < 4."""
  q, k, v = inputs(dtype=jnp.bfloat16)
  found = attend(q, k, v, implementation=implementation)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), reference(q, k, v), rtol=0, atol=2**-6)


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("name", ["chunked", "splash"])
def test_gradients_agree(name, segmented, monkeypatch):
  monkeypatch.setattr(attention, "CHUNK", 16)
  q, k, v = inputs()
  which = dict(zip(("segments", "key_segments"), ids(), strict=True)) if segmented else {}
  run = lambda q, k, v, name: attend(q, k, v, implementation=name, **which)
  loss = lambda q, k, v, name: jnp.sum(jnp.sin(run(q, k, v, name)))
  gradients = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
  plain = gradients(q, k, v, "xla")
  for a, b in zip(gradients(q, k, v, name), plain, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_segments_keep_frames_apart_after_random_dropping(implementation):
  """Attention by segments is attention of each frame's tokens alone, however many there are."""
  q, k, v = inputs(40, 40, batch=1)
  frames = jnp.sort(jax.random.randint(jax.random.key(0), (1, 40), 0, 5))
  found = attend(q, k, v, segments=frames, implementation=implementation)
  for frame in np.unique(frames):
    of = np.flatnonzero(frames[0] == frame)
    alone = reference(q[:, of], k[:, of], v[:, of])
    np.testing.assert_allclose(found[:, of], alone, rtol=0, atol=1e-5)


def test_a_query_without_a_key_is_finite_and_so_are_all_gradients(implementation):
  q, k, v = inputs()
  alone = jnp.zeros((2, 70), jnp.int32).at[:, 3].set(7)
  loss = lambda q, k, v: attend(
    q, k, v, segments=alone, key_segments=jnp.zeros((2, 50), jnp.int32),
    implementation=implementation,
  ).sum()  # fmt: skip
  found = jax.grad(loss, (0, 1, 2))(q, k, v)
  assert all(np.isfinite(leaf).all() for leaf in found)


@pytest.mark.parametrize(
  "sizes",
  [
    {"data": 8}, {"fsdp": 8}, {"tensor": 2, "data": -1}, {"context": 8},
    {"data": 2, "context": 4}, {"tensor": 2, "context": 4}, {"fsdp": 4, "tensor": 2},
  ],
  ids=str,
)  # fmt: skip
@pytest.mark.parametrize("segmented", [False, True])
def test_a_mesh_changes_no_number(sizes, segmented, monkeypatch):
  """70 queries do not divide over 4 or 8 devices: they are padded, and nobody sees it."""
  monkeypatch.setattr(attention, "CHUNK", 16)
  q, k, v = inputs(batch=8, heads=2)
  which = dict(zip(("segments", "key_segments"), ids(batch=8), strict=True)) if segmented else {}
  name = "chunked" if sizes.get("context") else "xla"
  loss = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, implementation=name, **which)))
  both = lambda: jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)
  alone = both()
  with jax.set_mesh(make_mesh(sizes)):
    found = both()
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_splash_runs_inside_the_mesh():
  q, k, v = inputs(batch=2, heads=2)
  with jax.set_mesh(make_mesh({"data": 2, "tensor": 2, "context": 2})):
    found = jax.jit(lambda q, k, v: attend(q, k, v, implementation="splash"))(q, k, v)
  np.testing.assert_allclose(found, reference(q, k, v), rtol=0, atol=1e-5)


def test_chunked_memory_is_linear_in_the_length():
  """Backward too: from 1024 to 4096 tokens temporaries grow about four times, not sixteen."""

  def temporaries(n):
    shape = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
    loss = lambda q, k, v: attend(q, k, v, implementation="chunked").sum()
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(4096) < 5 * temporaries(1024)
  assert temporaries(4096) < 4096 * 4096 * 2 * 4  # one N x N matrix a head


@pytest.mark.parametrize(
  ("platform", "length", "dtype", "depth", "segmented", "chosen"),
  [
    ("cpu", 512, "float32", 64, False, "xla"),
    ("cpu", 513, "float32", 64, False, "chunked"),
    ("gpu", 513, "bfloat16", 64, False, "cudnn"),
    ("gpu", 513, "bfloat16", 64, True, "chunked"),  # cuDNN has no segments
    ("gpu", 513, "bfloat16", 192, False, "chunked"),  # nor wide heads before Hopper
    ("gpu", 513, "float32", 64, False, "chunked"),  # nor float32
    ("gpu", 512, "bfloat16", 64, False, "xla"),
    ("tpu", 512, "bfloat16", 64, False, "xla"),
    ("tpu", 513, "float32", 64, True, "splash"),
  ],
)
def test_auto(platform, length, dtype, depth, segmented, chosen):
  x = jnp.zeros((1, length, 1, depth), dtype)
  assert attention.choose(platform, x, x, segmented=segmented) == chosen


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300_000))
def test_blocks_waste_little(length):
  """At most one register of 128 too many for a length under one block, a tenth for a long one."""
  size = attention.block(length)
  padded = -(-length // size) * size
  assert size % attention.LANES == 0 and 0 < size <= attention.LARGEST_BLOCK
  assert padded - length < 128 if length <= 1024 else padded <= 1.25 * length


def test_an_unknown_implementation_is_named():
  with pytest.raises(UserError, match="attention='flash' is unknown; use auto, xla, chunked"):
    attend(*inputs(), implementation="flash")


def test_cudnn_refuses_segments():
  q, k, v = inputs(50, 50)
  with pytest.raises(UserError, match="takes no segments; use 'chunked'"):
    attend(q, k, v, segments=jnp.zeros((2, 50), jnp.int32), implementation="cudnn")
