"""Masked language modelling (BERT, arXiv 1810.04805): which words are hidden, and their loss."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.models.contrastive import Loss
from vfe.nn.random import row_keys


@dataclasses.dataclass(frozen=True)
class Masking:
  """How words are hidden: `config.masking`.

  Attributes:
    mask: the id of [MASK].
    vocabulary: ids are below it; a random word is any of them.
    kept: ids that are never hidden, [CLS]; [SEP] may be.
    share: of the other tokens are asked for (SViTT: 0.5, BERT: 0.15).
    masked, swapped: of those, the shares that become [MASK] and a random word; the rest stays.
  """

  mask: int
  vocabulary: int
  kept: tuple[int, ...]
  share: float = 0.5
  masked: float = 0.8
  swapped: float = 0.1


def hide(
  rng: Key[Array, ""],
  ids: Int[Array, "B L"],
  mask: Bool[Array, "B L"],
  rows: Int[Array, "B"],
  masking: Masking,
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
  """The ids with words hidden, and which ones are asked for: never padding, never `kept`.

  Every token is asked for by its own chance, so a text may have none. What a row draws depends on
  its number in the global batch, and so on no mesh.
  """
  free = mask & ~jnp.isin(ids, jnp.array(masking.kept, ids.dtype))

  def draw(key):
    asked, way, word = (jax.random.fold_in(key, i) for i in range(3))
    shape = ids.shape[1:]
    return (
      jax.random.uniform(asked, shape),
      jax.random.uniform(way, shape),
      jax.random.randint(word, shape, 0, masking.vocabulary, ids.dtype),
    )

  chance, way, word = jax.vmap(draw)(row_keys(rng, "hide", rows))
  asked = free & (chance < masking.share)
  swapped = jnp.where(way < masking.masked + masking.swapped, word, ids)
  hidden = jnp.where(way < masking.masked, masking.mask, swapped)
  return jnp.where(asked, hidden, ids).astype(ids.dtype), asked


def masked_words_loss(
  logits: Float[Array, "B L V"],
  ids: Int[Array, "B L"],
  asked: Bool[Array, "B L"],
  *,
  valid: Bool[Array, "B"] | None = None,
) -> Loss:
  """Cross-entropy of the words that were asked for, float32; `ids` are the ones before `hide`.

  Returns:
    (sum over the words asked for in valid rows, how many they are, {"words/top1": hits}).
  """
  if valid is not None:
    asked = asked & valid[:, None]
  # What is not finite in a word that does not count stays out of the gradient, too.
  logits = jnp.where(asked[..., None], logits.astype(jnp.float32), 0.0)
  own = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - own
  hits = asked & (jnp.argmax(logits, axis=-1) == ids)
  count = jnp.sum(asked.astype(jnp.float32))
  total = jnp.sum(jnp.where(asked, loss, 0.0))
  return total, count, {"words/top1": (jnp.sum(hits.astype(jnp.float32)), count)}
