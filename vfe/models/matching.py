"""Video-text matching: does this text tell of this video? And which wrong pairs to ask it of.

ALBEF's loss (arXiv 2107.07651) as SViTT has it: of n pairs 3 n are judged, the n right ones, every
text with a wrong video and every video with a wrong text, the wrong ones being those that the
contrastive similarities take for right.
"""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.models.contrastive import Loss, normalised
from vfe.nn.random import row_keys

FLOOR = 1e-4  # added to every probability, so that none is 0 (SViTT)


@flax.struct.dataclass
class Negatives:
  """Of every row the number of a row that is no match of it.

  Attributes:
    video: int32[M], the wrong video of text i; text: int32[M], the wrong text of video i.
    has: bool[M]; False where the batch holds none, and both numbers are then the row's own.
  """

  video: jax.Array
  text: jax.Array
  has: jax.Array


def hard_negatives(
  rng: Key[Array, ""],
  video: Float[Array, "M D"],
  text: Float[Array, "M D"],
  scale: Float[Array, ""],
  positives: Bool[Array, "M M"],
  rows: Int[Array, "M"],
  *,
  valid: Bool[Array, "M"] | None = None,
) -> Negatives:
  """Draws for every text a wrong video and for every video a wrong text, the likelier the closer.

  Row i draws j with a probability that goes as softmax_j(scale * cosine) + 1e-4 among the valid
  rows that are no positives of i, as EgoVLPv2 does: two clips of the same action are no wrong
  pair. Nothing is learned through it.

  Args:
    positives: symmetric, `vfe.models.egonce.egonce_positives`, or the identity.
    rows: numbers in the global batch: what a row draws depends on no mesh.
    valid: rows that are not are never drawn, and have none themselves.
  """
  valid = jnp.ones(len(video), bool) if valid is None else valid
  video, text = (
    jax.lax.stop_gradient(normalised(jnp.where(valid[:, None], side, 0))) for side in (video, text)
  )
  logits = jax.lax.stop_gradient(scale) * jnp.matmul(
    text, video.T, precision=jax.lax.Precision.HIGHEST
  )
  own = jnp.arange(len(video))
  wrong = ~(positives | (own[:, None] == own[None, :])) & valid[:, None] & valid[None, :]
  has = jnp.any(wrong, axis=1)
  drawn = (
    _draw(row_keys(rng, name, rows), table, wrong, valid)
    for name, table in (("wrong video", logits), ("wrong text", logits.T))
  )
  return Negatives(*(jnp.where(has, row, own).astype(jnp.int32) for row in drawn), has)


def matching_loss(
  right: Float[Array, "M 2"],
  wrong_video: Float[Array, "M 2"],
  wrong_text: Float[Array, "M 2"],
  has: Bool[Array, "M"],
  *,
  valid: Bool[Array, "M"] | None = None,
) -> Loss:
  """Cross-entropy of the two-way head; column 1 says that text and video match. float32.

  Args:
    right: logits of text i with video i; wrong_video: of text i with the wrong video it drew;
      wrong_text: of video i with its wrong text.
    has: `Negatives.has`: where it is False, the wrong pairs are none and do not count.

  Returns:
    (sum over the pairs that count, how many they are, {"matching/right": ..., "matching/wrong":
    ...}, the shares that are judged so); a tie is judged wrongly.
  """
  valid = jnp.ones(len(right), bool) if valid is None else valid
  counts = jnp.stack([valid, valid & has, valid & has])
  logits = jnp.stack([right, wrong_video, wrong_text]).astype(jnp.float32)
  # What is not finite in a pair that does not count stays out of the gradient, too.
  logits = jnp.where(counts[..., None], logits, 0.0)
  margin = (logits[..., 1] - logits[..., 0]) * jnp.array([1.0, -1.0, -1.0])[:, None]
  total = jnp.sum(jnp.where(counts, jax.nn.softplus(-margin), 0.0))
  hits, weight = ((where & counts).astype(jnp.float32) for where in (margin > 0, counts))
  return total, jnp.sum(weight), {
    "matching/right": (jnp.sum(hits[0]), jnp.sum(weight[0])),
    "matching/wrong": (jnp.sum(hits[1:]), jnp.sum(weight[1:])),
  }  # fmt: skip


def _draw(keys, logits, wrong, valid):
  among = jnp.where(valid[None, :], logits, -jnp.inf)
  chance = jax.nn.softmax(jnp.where(valid[:, None], among, 0.0), axis=1) + FLOOR
  return jax.vmap(jax.random.categorical)(keys, jnp.where(wrong, jnp.log(chance), -jnp.inf))
