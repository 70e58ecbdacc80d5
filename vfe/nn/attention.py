"""How tokens meet: `attend`, one function with several implementations of the same numbers.

On a mesh of several devices this is the one place with a `shard_map`: a kernel cannot be cut by the
partitioner. Everything around it takes its sharding from here or from its operands.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from vfe.errors import UserError
from vfe.nn.platform import platform

LONG = 512  # the longest sequence whose N x M probabilities are held at once
CHUNK = 256  # queries whose probabilities are held at once by `chunked`

LANES = 128  # a TPU register is 8 x 128: splash works on multiples of it
LARGEST_BLOCK = 1024  # of queries or keys: larger ones leave the TPU's fast memory

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row with no key must not make NaNs

# Mesh axes (see vfe.learn.sharding) over which rows, tokens and heads lie.
ROWS, TOKENS, HEADS = ("data", "fsdp"), "context", "tensor"

Segments = tuple[Int[Array, "B N"], Int[Array, "B M"]] | None


def attend(
  q: Float[Array, "B N H d"],
  k: Float[Array, "B M H d"],
  v: Float[Array, "B M H d"],
  *,
  segments: Int[Array, "B N"] | None = None,
  key_segments: Int[Array, "B M"] | None = None,
  implementation: str = "auto",
) -> Float[Array, "B N H d"]:
  """softmax(q kᵀ / √d) v, softmax in float32.

  Every query sees every key, or with `segments` those of its own segment: tokens of one frame, or
  of one site, also when random dropping has left frames with unequal counts, or the words that are
  not padding. key_segments are those of the keys, by default the queries'. A query of whose
  segment there is no key gets finite numbers without a meaning.

  implementation is a name in `IMPLEMENTATIONS`, or "auto": by platform, dtype, length and head
  size. On an ambient mesh (`jax.set_mesh`) rows lie over data and fsdp, heads over tensor and
  queries over context, where each device gathers the keys and values of all of them.

  Raises:
    UserError: there is no such implementation, or it cannot do what is asked.
  """
  if segments is not None and key_segments is None:
    key_segments = segments
  ids = None if segments is None else (segments, key_segments)
  if implementation == "auto":
    implementation = choose(platform(), q, k, segmented=ids is not None)
  if implementation not in IMPLEMENTATIONS:
    raise UserError(
      f"attention={implementation!r} is unknown; use auto, {', '.join(IMPLEMENTATIONS)}."
    )
  run = IMPLEMENTATIONS[implementation]
  mesh = jax.sharding.get_abstract_mesh()
  return _on_mesh(run, mesh, q, k, v, ids) if is_ours(mesh) else run(q, k, v, ids)


def over_rows(x: Shaped[Array, "B *rest"]) -> Shaped[Array, "B *rest"]:
  """The same; on an ambient mesh its rows lie over data and fsdp where their number divides.

  `attend` sees to that wherever it is. Where nothing else does, the partitioner may follow the
  parameters, cut the width, and add up every product over the mesh.
  """
  mesh = jax.sharding.get_abstract_mesh()
  names = tuple(name for name in ROWS if name in mesh.shape) if is_ours(mesh) else ()
  if not names or len(x) % math.prod(mesh.shape[name] for name in names):
    return x
  free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, PartitionSpec(names, *free))


def whole_heads(x: Float[Array, "B N H d"]) -> Float[Array, "B N H d"]:
  """The same; on an ambient mesh no head is cut: all are on every device of the tensor axis where
  their number does not divide over it. What follows would be sent in pieces otherwise."""
  mesh = jax.sharding.get_abstract_mesh()
  if not is_ours(mesh) or x.shape[2] % mesh.shape.get(HEADS, 1) == 0:
    return x
  free = PartitionSpec.UNCONSTRAINED
  return jax.lax.with_sharding_constraint(x, PartitionSpec(free, free, None, None))


def choose(
  platform: str, q: Float[Array, "B N H d"], k: Float[Array, "B M H d"], *, segmented: bool
) -> str:
  """The implementation that "auto" stands for."""
  if max(q.shape[1], k.shape[1]) <= LONG:
    return "xla"
  if platform == "tpu":
    return "splash"
  half = q.dtype in (jnp.bfloat16, jnp.float16)
  if platform == "gpu" and half and q.shape[-1] <= 128 and not segmented:
    return "cudnn"
  return "chunked"


def is_ours(mesh: AbstractMesh) -> bool:
  """Whether to cut the work by hand; inside somebody's `shard_map` it is cut already."""
  return mesh.size > 1 and all(kind == AxisType.Auto for kind in mesh.axis_types)


def _on_mesh(run: Callable, mesh: AbstractMesh, q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """Runs each device's part: its rows, its heads, its queries with all keys of these rows."""

  def axis(names: str | tuple[str, ...], size: int):
    names = tuple(n for n in ((names,) if isinstance(names, str) else names) if n in mesh.shape)
    parts = math.prod(mesh.shape[name] for name in names)
    return names if parts > 1 and size % parts == 0 else None

  n = q.shape[1]
  short = -n % mesh.shape.get(TOKENS, 1)
  if short and n > 1:  # a context axis that does not divide the queries would be left unused
    q = _pad(q, short)
    ids = ids and (_pad(ids[0], short), ids[1])
  rows, heads, tokens = axis(ROWS, len(q)), axis(HEADS, q.shape[2]), axis(TOKENS, q.shape[1])
  asking, answering = (PartitionSpec(rows, of, heads) for of in (tokens, None))
  which = ids and (PartitionSpec(rows, tokens), PartitionSpec(rows))
  out = jax.shard_map(
    run,
    mesh=mesh,
    in_specs=(asking, answering, answering, which),
    out_specs=asking,
    check_vma=False,  # Pallas says nothing of what varies over the mesh
  )(q, k, v, ids)
  return out[:, :n]


def _xla(q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """As it is written, N x M probabilities a head and all."""
  logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
  logits *= q.shape[-1] ** -0.5
  if ids is not None:
    same = ids[0][:, :, None] == ids[1][:, None, :]
    logits = jnp.where(same[:, None], logits, MASKED)
  probabilities = jax.nn.softmax(logits, axis=-1)
  return jnp.einsum("bhnm,bmhd->bnhd", probabilities.astype(v.dtype), v)


def _chunked(q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """Some queries at a time, their probabilities made again in the backward pass.

  Memory is linear in N and in M, and the numbers are those of `_xla`: each query sees all its keys
  in one softmax.
  """
  if platform() == "cpu":
    return _by_head(q, k, v, ids)

  def part(queries, own):
    return _xla(queries, k, v, None if ids is None else (own, ids[1]))

  return _in_parts(part, 1, q, None if ids is None else ids[0])


def _by_head(q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """`_chunked` with rows and heads one after another, too: XLA:CPU runs products of matrices
  faster than those with batch dimensions, forward and backward 1.4 times at 1,568 tokens."""
  heads = q.shape[2]

  def head(of):
    q, k, v, own, keys = of

    def part(q, own):
      logits = jnp.einsum("nd,md->nm", q, k, preferred_element_type=jnp.float32)
      logits *= q.shape[-1] ** -0.5
      if own is not None:
        logits = jnp.where(own[:, None] == keys, logits, MASKED)
      return jax.nn.softmax(logits, axis=-1).astype(v.dtype) @ v

    return _in_parts(part, 0, q, own)

  flat = lambda x: x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])
  own, keys = (None, None) if ids is None else (jnp.repeat(of, heads, axis=0) for of in ids)
  out = jax.lax.map(head, (flat(q), flat(k), flat(v), own, keys))
  return out.reshape(len(q), heads, *out.shape[1:]).swapaxes(1, 2)


def _in_parts(run: Callable, axis: int, q: jax.Array, own: jax.Array | None) -> jax.Array:
  """run(queries, their segments) of `CHUNK` queries after another; nothing is kept of a part."""
  n = q.shape[axis]
  short = -n % CHUNK

  def split(x):
    x = _pad(x, short, axis=axis)
    x = x.reshape(*x.shape[:axis], -1, CHUNK, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)

  parts = split(q), None if own is None else split(own)
  out = jax.lax.map(jax.checkpoint(lambda of: run(*of), prevent_cse=False), parts)
  out = jnp.moveaxis(out, 0, axis)
  return jax.lax.slice_in_dim(out.reshape(*q.shape[:axis], n + short, *q.shape[axis + 1 :]), 0, n,
                              axis=axis)  # fmt: skip


def _cudnn(q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """cuDNN's fused kernel: an NVIDIA GPU, bfloat16 or float16."""
  if ids is not None:
    raise UserError("attention='cudnn' takes no segments; use 'chunked', or 'auto'.")
  depth = q.shape[-1]
  q, k, v = (_pad(x, -depth % 8, axis=3) for x in (q, k, v))
  out = jax.nn.dot_product_attention(q, k, v, scale=depth**-0.5, implementation="cudnn")
  return out[..., :depth]


def _splash(q, k, v, ids: Segments) -> Float[Array, "B N H d"]:
  """JAX's Pallas kernel for TPUs, which keeps no probabilities; interpreted (slowly) elsewhere."""
  from jax.experimental.pallas.ops.tpu import splash_attention as splash

  n, m, heads = q.shape[1], k.shape[1], q.shape[2]
  asking, answering = block(n), block(m)
  more_queries, more_keys = -n % asking, -m % answering
  if ids is None and more_keys:
    ids = (jnp.ones(q.shape[:2], jnp.int32), jnp.ones(k.shape[:2], jnp.int32))
  if ids is not None:
    # Padded queries stay in the first key's segment, so that they see something; padded keys are
    # of a segment that nobody is in.
    nobody = jnp.minimum(ids[0].min(), ids[1].min()) - 1
    queries = jnp.concatenate([ids[0], jnp.repeat(ids[1][:, :1], more_queries, 1)], 1)
    ids = splash.SegmentIds(queries, _pad(ids[1], more_keys, value=nobody))
  sizes = splash.BlockSizes(
    block_q=asking, block_kv=answering, block_kv_compute=answering,
    block_q_dkv=asking, block_kv_dkv=answering, block_kv_dkv_compute=answering,
    block_q_dq=asking, block_kv_dq=answering,
  )  # fmt: skip
  everything = splash.FullMask((n + more_queries, m + more_keys))
  kernel = splash.make_splash_mha(
    splash.MultiHeadMask([everything] * heads),
    block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=platform() != "tpu",
  )  # fmt: skip
  first = lambda x, more: _pad(x, more).swapaxes(1, 2)  # heads first
  scaled = (q * q.shape[-1] ** -0.5).astype(q.dtype)
  out = jax.vmap(kernel)(first(scaled, more_queries), first(k, more_keys), first(v, more_keys), ids)
  return out.swapaxes(1, 2)[:, :n]


@functools.cache
def block(length: int) -> int:
  """Queries or keys that splash works on at once: little padding, but not many small blocks."""

  def cost(size):
    return math.ceil(length / size) * size * (1 + LANES / size)

  return min(range(LANES, LARGEST_BLOCK + 1, LANES), key=cost)


def _pad(x: jax.Array, more: int, *, axis: int = 1, value=0) -> jax.Array:
  return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)], constant_values=value)


IMPLEMENTATIONS = {"xla": _xla, "chunked": _chunked, "splash": _splash, "cudnn": _cudnn}
