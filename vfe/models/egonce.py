"""EgoNCE: a contrastive loss in which pairs that tell of the same action are positives too.

As in `vfe.models.contrastive`, the loss is of the whole batch and knows nothing of devices. Its
scene-aware hard negatives are rows of the batch like any other (`vfe.data.scenes`), and so are
anchors themselves and may be positives of each other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vfe.config import choose
from vfe.models.contrastive import Loss, pair_logits

_LEAST = -1e30  # the logit of a pair that does not count

# What two narrations have to share.
_SHARED = {
  "noun_verb": lambda nouns, verbs: nouns & verbs,
  "noun": lambda nouns, verbs: nouns,
  "verb": lambda nouns, verbs: verbs,
}


def egonce_positives(
  nouns: Bool[Array, "M n"],
  verbs: Bool[Array, "M v"],
  clip: Int[Array, "M"] | None = None,
  share: str = "noun_verb",
) -> Bool[Array, "M M"]:
  """Pairs that share at least one noun and at least one verb; a row is always its own positive.

  A row without nouns or without verbs shares with none. EgoVLP (arXiv 2206.01670), model/loss.py.

  Args:
    nouns, verbs: multi-hot, by class of the taxonomy.
    clip: rows of equal numbers, of a clip that was drawn as its own neighbour or twice, are
      positives whatever their tags.
    share: "noun_verb", or only "noun" or "verb" (the paper's ablations).
  """
  common = choose(_SHARED, share, "egonce.share")(_meet(nouns), _meet(verbs))
  same = jnp.arange(len(nouns)) if clip is None else clip
  return common | jnp.eye(len(nouns), dtype=bool) | (same[:, None] == same[None, :])


def egonce(
  video: Float[Array, "M D"],
  text: Float[Array, "M D"],
  scale: Float[Array, ""],
  positives: Bool[Array, "M M"],
  *,
  valid: Bool[Array, "M"] | None = None,
) -> Loss:
  """-log of the share of the softmax that falls on positives, both directions added.

  With `positives` the identity it is twice `info_nce`. Embeddings are brought to length 1 here and
  all is computed in float32. EgoVLP (arXiv 2206.01670), model/loss.py; SViTT-Ego, section 3.

  Args:
    scale: the inverse temperature; EgoVLP's is fixed, 1 / 0.05.
    positives: symmetric, `egonce_positives`; a row's own pair counts whether it is there or not.
    valid: rows that are not are neither anchors nor positives nor negatives; default: all are.

  Returns:
    (sum over valid rows of both directions, valid rows, metrics). A hit `top1/video_to_text` or
    `top1/text_to_video` is a row with a positive above every negative; `positives` counts those
    besides the own pair.
  """
  logits, own, weight = pair_logits(video, text, scale, valid)
  valid = weight > 0
  there = valid[:, None] & valid[None, :]
  good = (positives | own) & there
  (to_text, hits_text), (to_video, hits_video) = (
    _one_way(logits, good, there, axis) for axis in (1, 0)
  )
  rows = jnp.sum(weight)
  return (
    jnp.sum(jnp.where(valid, to_text + to_video, 0.0)),
    rows,
    {
      "top1/video_to_text": (jnp.sum(hits_text * weight), rows),
      "top1/text_to_video": (jnp.sum(hits_video * weight), rows),
      "positives": (jnp.sum((good & ~own).astype(jnp.float32)), rows),
    },
  )


def _meet(classes):
  """bool[M, M]: whether two rows have a class in common."""
  classes = classes.astype(jnp.float32)
  return classes @ classes.T > 0


def _one_way(logits, good, there, axis):
  """-log of the positives' share along an axis, and whether one of them is above all others."""
  among, mine = (jnp.where(pairs, logits, _LEAST) for pairs in (there, good))
  loss = jax.nn.logsumexp(among, axis) - jax.nn.logsumexp(mine, axis)
  best = jnp.max(jnp.where(there & ~good, logits, _LEAST), axis)
  return loss, jax.lax.stop_gradient(jnp.max(mine, axis) > best)
