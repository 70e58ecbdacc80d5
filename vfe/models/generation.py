"""Writing on from prompts with a cache: greedy, by chance, or the likeliest of several beams.

A model is here what reads words: `read(ids, count, cache) -> (logits, cache)`, as
`vfe.models.language_model.LanguageModel.read`, and its cache has `take(rows)`. All of it runs
inside a jit, rows of a batch beside each other, until each has ended.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.errors import UserError
from vfe.nn.random import row_keys

Read = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
IMPOSSIBLE = -1e30  # the score of a beam that is none; finite, so that sums of it are no NaNs


@dataclasses.dataclass(frozen=True)
class Choice:
  """How words are chosen.

  words        the most that are written
  eos          words that end a text; they are its last
  temperature  by which logits are divided before a draw; 0, the likeliest word and no draw
  top_p        draws are from the fewest words with this share of the probability
  beams        texts followed at once, of which the likeliest is kept; 1, no search
  """

  words: int = 64
  eos: tuple[int, ...] = ()
  temperature: float = 0.0
  top_p: float = 1.0
  beams: int = 1

  def __post_init__(self):
    if self.words < 1 or self.beams < 1:
      raise UserError(f"words={self.words} and beams={self.beams}; use 1 or more of each.")
    if self.temperature < 0 or not 0 < self.top_p <= 1:
      raise UserError(
        f"temperature={self.temperature} is at least 0, top_p={self.top_p} above 0 and at most 1."
      )
    if self.beams > 1 and self.temperature > 0:
      raise UserError(f"beams={self.beams} draw no words; use beams=1 or temperature=0.")


class Written(NamedTuple):
  """ids int32[B, words], 0 where mask bool[B, words] is False: after the text's end, which is in
  it. score float32[B] is the log-likelihood of the words under the model, the end's included."""

  ids: jax.Array
  mask: jax.Array
  score: jax.Array


def generate(
  read: Read,
  cache: Any,
  ids: Int[Array, "B P"],
  mask: Bool[Array, "B P"],
  choice: Choice,
  rng: Key[Array, ""] | None = None,
) -> Written:
  """Writes on from prompts of unequal length, padded on whichever side.

  The cache is empty, with room for P + choice.words in each row. A draw needs rng, and what is
  drawn in a row depends on that and the row's number alone.
  """
  if choice.temperature > 0 and rng is None:
    raise ValueError("a draw needs an rng")
  ids, count = aligned(ids, mask)
  logits, cache = read(ids, count, cache)
  if choice.beams > 1:
    return beam_search(read, cache, logits, choice)
  return one_by_one(read, cache, logits, choice, rng)


def aligned(
  ids: Int[Array, "B P"], mask: Bool[Array, "B P"]
) -> tuple[Int[Array, "B P"], Int[Array, "B"]]:
  """The words of each row from its left, in their order, and how many they are."""
  order = jnp.argsort(~mask, axis=1, stable=True)
  return jnp.take_along_axis(ids, order, axis=1), mask.sum(1)


def nucleus(
  logits: Float[Array, "*B V"], top_p: float | Float[Array, ""]
) -> Float[Array, "*B V"]:
  """Logits of the fewest words that have the share top_p of the probability; -inf of the others.

  Words as likely as the last of them stay, too. arXiv 1904.09751.
  """
  down = -jnp.sort(-logits, axis=-1)
  probability = jax.nn.softmax(down, axis=-1)
  before = jnp.cumsum(probability, axis=-1) - probability
  last = jnp.sum(before < top_p, axis=-1, keepdims=True) - 1
  least = jnp.take_along_axis(down, jnp.maximum(last, 0), axis=-1)
  return jnp.where(logits >= least, logits, -jnp.inf)


class _Text(NamedTuple):
  """What has been written: step int32[], word int32[B] the last, ended bool[B], and a `Written`."""

  step: jax.Array
  word: jax.Array
  ended: jax.Array
  so_far: Written


def one_by_one(
  read: Read,
  cache: Any,
  logits: Float[Array, "B V"],
  choice: Choice,
  rng: Key[Array, ""] | None = None,
) -> Written:
  """`generate` without beams, from the logits after the prompts."""
  rows, vocabulary = logits.shape
  ends = _ends(choice, vocabulary)
  keys = None if rng is None else row_keys(rng, "words", jnp.arange(rows))

  def chosen(logits, step):
    if choice.temperature == 0:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    likely = logits / choice.temperature
    likely = nucleus(likely, choice.top_p) if choice.top_p < 1 else likely
    drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    return jax.vmap(jax.random.categorical)(drawn, likely).astype(jnp.int32)

  def write(text: _Text, logits) -> _Text:
    word, live = chosen(logits, text.step), ~text.ended
    found = jnp.take_along_axis(jax.nn.log_softmax(logits), word[:, None], axis=1)[:, 0]
    ids, mask, score = text.so_far
    word = jnp.where(live, word, 0)
    so_far = Written(
      ids.at[:, text.step].set(word),
      mask.at[:, text.step].set(live),
      score + jnp.where(live, found, 0.0),
    )
    return _Text(text.step + 1, word, text.ended | ends[word] & live, so_far)

  def on(state):
    text, cache = state
    logits, cache = read(text.word[:, None], jnp.ones(rows, jnp.int32), cache)
    return write(text, logits), cache

  def is_on(state):
    return (state[0].step < choice.words) & ~state[0].ended.all()

  shape = (rows, choice.words)
  empty = Written(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(rows))
  nothing = _Text(jnp.int32(0), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, bool), empty)
  return jax.lax.while_loop(is_on, on, (write(nothing, logits), cache))[0].so_far


class _Beams(NamedTuple):
  """K texts of each row that have not ended, the likeliest first: ids int32[B, K, words] and
  score float32[B, K]; parent int32[B, K] is where each comes from. best is the likeliest that has
  ended, with its length int32[B], and its score `IMPOSSIBLE` where none has."""

  step: jax.Array
  ids: jax.Array
  score: jax.Array
  parent: jax.Array
  best: jax.Array
  best_length: jax.Array
  best_score: jax.Array


def beam_search(
  read: Read, cache: Any, logits: Float[Array, "B V"], choice: Choice
) -> Written:
  """`generate` with K = choice.beams, from the logits after the prompts.

  Of all that K texts can be followed by, the K likeliest are looked at: those that end compete for
  the result by log-likelihood, with nothing for their length, and the K likeliest that do not end
  are followed. A row is done when none of these can get better than its result.
  """
  rows, count = len(logits), choice.beams
  ends = _ends(choice, logits.shape[-1])

  def write(beams: _Beams, logits) -> _Beams:
    logits = logits.reshape(rows, count, -1)
    score = beams.score[:, :, None] + jax.nn.log_softmax(logits)
    likeliest, parent, word = _top(score, count)
    closed = jnp.where(ends[word], likeliest, IMPOSSIBLE)
    first = jnp.argmax(closed, axis=1)
    pick = lambda of: jnp.take_along_axis(of, first[:, None], axis=1)[:, 0]
    text = jnp.take_along_axis(beams.ids, pick(parent)[:, None, None], axis=1)[:, 0]
    better = pick(closed) > beams.best_score
    text = text.at[:, beams.step].set(pick(word))
    score, parent, word = _top(jnp.where(ends, IMPOSSIBLE, score), count)
    ids = jnp.take_along_axis(beams.ids, parent[:, :, None], axis=1)
    return _Beams(
      beams.step + 1,
      ids.at[:, :, beams.step].set(word),
      score,
      parent,
      jnp.where(better[:, None], text, beams.best),
      jnp.where(better, beams.step + 1, beams.best_length),
      jnp.where(better, pick(closed), beams.best_score),
    )

  def on(state):
    beams, cache = state
    came_from = jnp.arange(rows)[:, None] * count + beams.parent
    word = beams.ids[:, :, beams.step - 1]
    one = jnp.ones(rows * count, jnp.int32)
    logits, cache = read(word.reshape(-1, 1), one, cache.take(came_from.reshape(-1)))
    return write(beams, logits), cache

  def is_on(state):
    beams = state[0]
    return (beams.step < choice.words) & (beams.score[:, 0] > beams.best_score).any()

  shape, none = (rows, choice.words), jnp.zeros(rows, jnp.int32)
  nothing = _Beams(
    jnp.int32(0), jnp.zeros((rows, count, choice.words), jnp.int32),
    jnp.full((rows, count), IMPOSSIBLE).at[:, 0].set(0.0), jnp.zeros((rows, count), jnp.int32),
    jnp.zeros(shape, jnp.int32), none, jnp.full(rows, IMPOSSIBLE),
  )  # fmt: skip
  every = jnp.repeat(jnp.arange(rows), count)
  begun = write(nothing, logits[every]), cache.take(every)
  return _likeliest(jax.lax.while_loop(is_on, on, begun)[0], choice)


def _likeliest(beams: _Beams, choice: Choice) -> Written:
  """The best that has ended, or what is still going on where that is likelier."""
  going = beams.score[:, 0] > beams.best_score
  length = jnp.where(going, choice.words, beams.best_length)
  mask = jnp.arange(choice.words) < length[:, None]
  ids = jnp.where(going[:, None], beams.ids[:, 0], beams.best)
  score = jnp.where(going, beams.score[:, 0], beams.best_score)
  return Written(jnp.where(mask, ids, 0), mask, score)


def _top(score: Float[Array, "B K V"], count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The `count` highest scores of a row, from which beam and of which word, int32[B, count]."""
  vocabulary = score.shape[-1]
  best, index = jax.lax.top_k(score.reshape(len(score), -1), count)
  return best, index // vocabulary, index % vocabulary


def _ends(choice: Choice, vocabulary: int) -> Bool[Array, "V"]:
  """Which words end a text."""
  wrong = [word for word in choice.eos if not 0 <= word < vocabulary]
  if wrong:
    raise UserError(f"eos={wrong[0]} is not among the model's {vocabulary} words.")
  return jnp.zeros(vocabulary, bool).at[jnp.asarray(choice.eos, jnp.int32)].set(True)
