"""Contrastive losses of videos and texts over the whole batch, and their learnable temperature.

They know nothing of devices. Embeddings whose rows lie over the devices give logits whose rows do:
the compiler gathers one side's embeddings, and no device ever holds the M x M logits
(`benchmarks/contrastive.py` shows what a chip does hold).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MOST = 100.0  # of the scale: CLIP's bound
# Loss -> its learnable scalars at the start: CLIP's temperature of 0.07; SigLIP's, with a bias that
# starts from as many wrong pairs as there are.
INITIAL = {
  "info_nce": {"log_scale": math.log(1 / 0.07)},
  "sigmoid": {"log_scale": math.log(10.0), "bias": -10.0},
}
_LEAST = -1e30  # the logit of a column that is not there
_EPSILON = 1e-12  # least length that is divided by

# name -> (sum, weight), as in vfe.learn.step
Metrics = dict[str, tuple[jax.Array, jax.Array]]
Loss = tuple[jax.Array, jax.Array, Metrics]


def normalised(rows: Float[Array, "*n D"]) -> Float[Array, "*n D"]:
  """Rows of Euclidean length 1, float32; a row of zeros stays, and its gradient is finite."""
  rows = rows.astype(jnp.float32)
  square = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
  return rows * jax.lax.rsqrt(jnp.maximum(square, _EPSILON**2))


@jax.custom_vjp
def scale_of(log_scale: Float[Array, ""]) -> Float[Array, ""]:
  """exp(log_scale), at most 100.

  At the bound a gradient that would raise the scale is zero, one that would lower it is not: so
  the scale can come back, which the gradient of a plain minimum would not let it.
  """
  return jnp.minimum(jnp.exp(log_scale), MOST)


def _scale_forward(log_scale):
  scale = scale_of(log_scale)
  return scale, scale


def _scale_backward(scale, wanted):
  raises = (scale >= MOST) & (wanted < 0)  # descent goes against the gradient
  return (jnp.where(raises, 0.0, scale * wanted),)


scale_of.defvjp(_scale_forward, _scale_backward)


def info_nce(
  video: Float[Array, "M D"],
  text: Float[Array, "M D"],
  scale: Float[Array, ""],
  *,
  smoothing: float = 0.0,
  valid: Bool[Array, "M"] | None = None,
) -> Loss:
  """Symmetric softmax over the batch: each video among all texts, each text among all videos.

  Row i of both is a pair, every other row a negative; embeddings are brought to length 1 here and
  all is computed in float32. CLIP (arXiv 2103.00020), Flamingo B.1.3 with its label smoothing.

  Args:
    scale: the inverse temperature, `scale_of`.
    smoothing: the share of the target that lies evenly over all valid rows.
    valid: rows that are not are neither anchors nor negatives; default: all are.

  Returns:
    (sum over valid rows of the mean of both directions, valid rows, metrics); the metrics are hits
    `top1/video_to_text` and `top1/text_to_video`, where an equal negative is a miss.
  """
  logits, own, weight = pair_logits(video, text, scale, valid)
  to_text, hits_text = _one_way(logits, own, weight, smoothing, 1)
  to_video, hits_video = _one_way(logits, own, weight, smoothing, 0)
  rows = jnp.where(weight > 0, (to_text + to_video) / 2, 0.0)
  return jnp.sum(rows), jnp.sum(weight), _metrics(hits_text, hits_video, weight)


def sigmoid_loss(
  video: Float[Array, "M D"],
  text: Float[Array, "M D"],
  scale: Float[Array, ""],
  bias: Float[Array, ""],
  *,
  valid: Bool[Array, "M"] | None = None,
) -> Loss:
  """SigLIP's loss (arXiv 2303.15343): of each of the M x M pairs, whether it is one, on its own.

  As `info_nce`; the sum is over valid pairs, the weight still the valid rows.
  """
  logits, own, weight = pair_logits(video, text, scale, valid)
  pairs = jax.nn.softplus(jnp.where(own, -(logits + bias), logits + bias))
  there = (weight[:, None] > 0) & (weight[None, :] > 0)
  total = jnp.sum(jnp.where(there, pairs, 0.0))
  _, hits_text = _one_way(logits, own, weight, 0.0, 1)
  _, hits_video = _one_way(logits, own, weight, 0.0, 0)
  return total, jnp.sum(weight), _metrics(hits_text, hits_video, weight)


def pair_logits(video, text, scale, valid):
  """(float32[M, M], bool[M, M] where a row meets itself, float32[M] of 1 or 0), `info_nce`'s."""
  rows = jnp.arange(len(video))
  if valid is None:
    valid = jnp.ones(len(video), bool)
  # What is not finite in a row that does not count stays out of the others' gradients, too.
  video, text = (normalised(jnp.where(valid[:, None], side, 0)) for side in (video, text))
  return scale * _products(video, text), rows[:, None] == rows[None, :], valid.astype(jnp.float32)


def _exact(a, b):
  """A product of float32, which by default is one of bfloat16 on a TPU."""
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.custom_vjp
def _products(video, text):
  """Of every row of one with every row of the other, [M, M].

  Its gradient is the plain one, in an order: where rows lie over devices, `text` was gathered for
  the product and its gradient is as large again before it is summed. The barrier lets the one go
  before the other is made.
  """
  return _exact(video, text.T)


def _products_forward(video, text):
  return _products(video, text), (video, text)


def _products_backward(given, wanted):
  video, text = given
  to_video, wanted = jax.lax.optimization_barrier((_exact(wanted, text), wanted))
  return to_video, _exact(wanted.T, video)


_products.defvjp(_products_forward, _products_backward)


def _one_way(logits, own, weight, smoothing, axis):
  """The cross-entropy among the valid ones along an axis, and whether one's own is the best."""
  there = jnp.expand_dims(weight > 0, 1 - axis)
  among = jnp.where(there, logits, _LEAST)
  mine = jnp.sum(jnp.where(own, logits, 0.0), axis)
  loss = jax.nn.logsumexp(among, axis) - mine
  if smoothing:
    mean = jnp.sum(jnp.where(there, logits, 0.0), axis) / jnp.maximum(jnp.sum(weight), 1.0)
    loss += smoothing * (mine - mean)
  best = jnp.max(jnp.where(own, _LEAST, among), axis)
  return loss, jax.lax.stop_gradient(mine > best)


def _metrics(hits_text, hits_video, weight) -> Metrics:
  rows = jnp.sum(weight)
  return {
    "top1/video_to_text": (jnp.sum(hits_text * weight), rows),
    "top1/text_to_video": (jnp.sum(hits_video * weight), rows),
  }
