"""How tokens meet: `attend`, one function with several implementations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.errors import UserError

# Above this many keys the probabilities of all queries are no longer held at once.
LONG = 2048
CHUNK = 256


def attend(
  q: Float[Array, "B N H d"],
  k: Float[Array, "B M H d"],
  v: Float[Array, "B M H d"],
  *,
  implementation: str = "auto",
) -> Float[Array, "B N H d"]:
  """softmax(q kᵀ / √d) v, softmax in float32, every query with every key.

  implementation is a name in `IMPLEMENTATIONS`, or "auto": by platform, dtype and length.

  Raises:
    UserError: there is no such implementation.
  """
  if implementation == "auto":
    implementation = _choose(q, k)
  if implementation not in IMPLEMENTATIONS:
    raise UserError(
      f"attention={implementation!r} is unknown; use auto, {', '.join(IMPLEMENTATIONS)}."
    )
  return IMPLEMENTATIONS[implementation](q, k, v)


def _choose(q: Float[Array, "B N H d"], k: Float[Array, "B M H d"]) -> str:
  if max(q.shape[1], k.shape[1]) <= LONG:
    return "xla"
  half = q.dtype in (jnp.bfloat16, jnp.float16)
  return "cudnn" if half and jax.default_backend() == "gpu" else "chunked"


def _xla(
  q: Float[Array, "B N H d"], k: Float[Array, "B M H d"], v: Float[Array, "B M H d"]
) -> Float[Array, "B N H d"]:
  """As it is written, N x M probabilities a head and all."""
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
  probabilities = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1)
  return jnp.einsum("bhnm,bmhd->bnhd", probabilities.astype(v.dtype), v)


def _chunked(
  q: Float[Array, "B N H d"], k: Float[Array, "B M H d"], v: Float[Array, "B M H d"]
) -> Float[Array, "B N H d"]:
  """Some queries at a time, their probabilities made again in the backward pass.

  Memory is linear in N and in M, and the numbers are those of `_xla`: each query sees all keys
  in one softmax.
  """
  batch, n, heads, depth = q.shape
  chunks = -(-n // CHUNK)
  padded = jnp.pad(q, ((0, 0), (0, chunks * CHUNK - n), (0, 0), (0, 0)))
  split = padded.reshape(batch, chunks, CHUNK, heads, depth).swapaxes(0, 1)
  out = jax.lax.map(jax.checkpoint(lambda part: _xla(part, k, v), prevent_cse=False), split)
  return out.swapaxes(0, 1).reshape(batch, chunks * CHUNK, heads, depth)[:, :n]


def _cudnn(
  q: Float[Array, "B N H d"], k: Float[Array, "B M H d"], v: Float[Array, "B M H d"]
) -> Float[Array, "B N H d"]:
  """cuDNN's fused kernel: an NVIDIA GPU, bfloat16 or float16."""
  return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


IMPLEMENTATIONS = {"xla": _xla, "chunked": _chunked, "cudnn": _cudnn}
