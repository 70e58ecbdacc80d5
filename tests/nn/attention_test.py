import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.nn import attention
from vfe.nn.attention import attend


def inputs(n=70, m=50, dtype=np.float32):
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.standard_normal((2, k, 3, 8)), dtype) for k in (n, m, m))


def reference(q, k, v):
  """float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
  probabilities = np.exp(logits - logits.max(-1, keepdims=True))
  probabilities /= probabilities.sum(-1, keepdims=True)
  return np.einsum("bhnm,bmhd->bnhd", probabilities, v)


@pytest.fixture(params=["xla", "chunked"])
def implementation(request, monkeypatch):
  monkeypatch.setattr(attention, "CHUNK", 16)  # five chunks of queries, the last one not full
  return request.param


def test_every_implementation_is_softmax_attention(implementation):
  """Sums of 50 and 8 products of numbers near 1 in float32: 1e-5 is a hundred roundings."""
  q, k, v = inputs()
  found = attend(q, k, v, implementation=implementation)
  np.testing.assert_allclose(found, reference(q, k, v), rtol=0, atol=1e-5)


def test_softmax_is_float32_under_bfloat16(implementation):
  """What is left is the rounding of inputs, probabilities and output: 2**-8 each, of values < 4."""
  q, k, v = inputs(dtype=jnp.bfloat16)
  found = attend(q, k, v, implementation=implementation)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), reference(q, k, v), rtol=0, atol=2**-6)


def test_gradients_agree(monkeypatch):
  monkeypatch.setattr(attention, "CHUNK", 16)
  q, k, v = inputs()
  loss = lambda q, k, v, name: jnp.sum(jnp.sin(attend(q, k, v, implementation=name)))
  gradients = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
  plain = gradients(q, k, v, "xla")
  for a, b in zip(gradients(q, k, v, "chunked"), plain, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_chunked_memory_is_linear_in_the_length():
  """Backward too: from 1024 to 4096 tokens temporaries grow about four times, not sixteen."""

  def temporaries(n):
    shape = jax.ShapeDtypeStruct((1, n, 2, 16), jnp.float32)
    loss = lambda q, k, v: attend(q, k, v, implementation="chunked").sum()
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(4096) < 5 * temporaries(1024)
  assert temporaries(4096) < 4096 * 4096 * 2 * 4  # one N x N matrix a head


def test_auto_is_plain_when_short_and_chunked_when_long():
  short, long = (jnp.zeros((1, n, 1, 4)) for n in (attention.LONG, attention.LONG + 1))
  assert attention._choose(short, short) == "xla"
  assert attention._choose(long, long) == "chunked"


def test_an_unknown_implementation_is_named():
  with pytest.raises(UserError, match="attention='flash' is unknown; use auto, xla, chunked"):
    attend(*inputs(), implementation="flash")
