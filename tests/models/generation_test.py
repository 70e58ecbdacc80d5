import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfe.errors import UserError
from vfe.models.generation import Choice, beam_search, generate, nucleus, one_by_one
from vfe.models.language_model import Cache, LanguageConfig, LanguageModel
from vfe.nn.rotary import Rope

WORDS = 5
CONFIG = LanguageConfig.of(
  "test", 16, windows=(3, 3, 0), rope_local=Rope(20.0), qk_norm=True, sandwich=True
)
COUNTS = np.asarray([6, 3, 1])
RIGHT = np.arange(6) < COUNTS[:, None]  # where words are, padded on the right
IDS = np.where(RIGHT, np.random.default_rng(0).integers(0, 16, (3, 6)), 0).astype(np.int32)


@pytest.fixture(scope="module")
def params():
  """Uneven ones, so that texts do not repeat a word."""
  shapes = jax.eval_shape(LanguageModel(CONFIG).init, jax.random.key(0), IDS, RIGHT)["params"]
  random = np.random.default_rng(1)
  draw = lambda leaf: random.normal(scale=0.4, size=leaf.shape).astype(np.float32)
  return jax.tree.map(draw, shapes)


def write(params, ids, mask, choice):
  def run(params, ids, mask):
    read = lambda *of: LanguageModel(CONFIG).apply({"params": params}, *of, method="read")
    return generate(read, Cache.empty(CONFIG, 3, 6 + WORDS, "float32"), ids, mask, choice)

  return jax.tree.map(np.asarray, jax.jit(run)(params, ids, mask))


@pytest.fixture(scope="module")
def greedy(params):
  return write(params, IDS, RIGHT, Choice(WORDS))


@pytest.fixture(scope="module")
def uncached(params):
  """log p of each of the words written after the prompts, over all words, without a cache."""
  run = jax.jit(LanguageModel(CONFIG).apply)

  def logp(written):
    rows = [np.r_[ids[:n], new, np.zeros(6 - n, int)] for ids, n, new in zip(
      IDS, COUNTS, written, strict=True)]  # fmt: skip
    mask = np.arange(6 + WORDS) < (COUNTS + WORDS)[:, None]
    logits = run({"params": params}, np.asarray(rows, np.int32), mask)
    before = COUNTS[:, None] - 1 + np.arange(WORDS)
    found = jnp.take_along_axis(logits, jnp.asarray(before)[:, :, None], axis=1)
    return np.asarray(jax.nn.log_softmax(found))

  return logp


def of_words(logp, ids):
  return np.take_along_axis(logp, ids[:, :, None], axis=2)[:, :, 0]


def test_greedy_words_are_the_likeliest_without_a_cache(greedy, uncached):
  logp = uncached(greedy.ids)
  np.testing.assert_array_equal(greedy.ids, logp.argmax(-1))
  np.testing.assert_allclose(greedy.score, of_words(logp, greedy.ids).sum(1), atol=1e-4)
  assert greedy.mask.all() and len(set(greedy.ids.ravel().tolist())) > 3


def test_prompts_padded_on_the_left_give_the_same(params, greedy):
  order = np.argsort(RIGHT, axis=1, kind="stable")
  left = np.take_along_axis(IDS, order, 1), np.take_along_axis(RIGHT, order, 1)
  assert left[1][1].tolist() == [False] * 3 + [True] * 3
  np.testing.assert_array_equal(write(params, *left, Choice(WORDS)).ids, greedy.ids)


def test_a_beams_score_is_that_of_its_words_without_a_cache(params, greedy, uncached):
  found = write(params, IDS, RIGHT, Choice(WORDS, beams=3))
  score = of_words(uncached(found.ids), found.ids).sum(1)
  np.testing.assert_allclose(found.score, score, atol=1e-4)
  assert (found.score >= greedy.score - 1e-4).all() and (found.ids != greedy.ids).any()


# A model on a tiny vocabulary whose words depend on all before them: its state is their hash.
VOCABULARY, STATES = 4, 97
TABLE = np.random.default_rng(3).standard_normal((STATES, VOCABULARY)).astype(np.float32) * 1.5


class State(NamedTuple):
  hash: jax.Array

  def take(self, rows):
    return State(self.hash[rows])


def after(state, word):
  return (state * 31 + word * 7 + 1) % STATES


def read(ids, count, cache):
  del count
  state = after(cache.hash, ids[:, 0])
  return jnp.asarray(TABLE)[state], State(state)


def logp(state):
  return TABLE[state] - np.log(np.exp(TABLE[state]).sum())


def follow(state, words):
  """The words up to the first 0, which ends a text, and their log-likelihood."""
  score = 0.0
  for i, word in enumerate(words):
    score += logp(state)[word]
    if word == 0:
      return score, words[: i + 1]
    state = after(state, word)
  return score, words


NUCLEUS = jax.jit(nucleus)
STARTS = np.arange(40, dtype=np.int32)


def search(choice, run=beam_search, **more):
  start = lambda of: run(read, State(of), jnp.asarray(TABLE)[of], choice, **more)
  return jax.tree.map(np.asarray, jax.jit(start)(STARTS))


def texts(written):
  return [tuple(row[there].tolist()) for row, there in zip(written.ids, written.mask, strict=True)]


@pytest.fixture(scope="module")
def toy():
  """Greedy, by the model on a tiny vocabulary, of words after 40 states."""
  return search(Choice(4, eos=(0,)), one_by_one)


def test_many_beams_find_the_likeliest_of_all_texts():
  found = search(Choice(4, eos=(0,), beams=VOCABULARY**3))
  for state, text, score in zip(STARTS, texts(found), found.score, strict=True):
    every = (follow(state, words) for words in itertools.product(range(VOCABULARY), repeat=4))
    best = max(every)
    assert text == best[1] and score == pytest.approx(best[0], abs=1e-4)


def by_hand(state, count):
  """Beam search in plain words."""
  going, ended = [(0.0, (), state)], []
  for _ in range(4):
    every = [(score + logp(state)[word], (*text, word), after(state, word))
             for score, text, state in going for word in range(VOCABULARY)]  # fmt: skip
    every.sort(reverse=True)
    ended += [of for of in every[:count] if of[1][-1] == 0]
    going = [of for of in every if of[1][-1] != 0][:count]
    if ended and max(ended)[0] >= going[0][0]:
      return max(ended)
  return max(ended + going)


def test_two_beams_are_those_of_a_search_in_plain_words():
  found = search(Choice(4, eos=(0,), beams=2))
  for state, text, score in zip(STARTS, texts(found), found.score, strict=True):
    best = by_hand(int(state), 2)
    assert text == best[1] and score == pytest.approx(best[0], abs=1e-4)


def test_one_beam_is_greedy(toy):
  found = search(Choice(4, eos=(0,)))
  assert texts(found) == texts(toy)
  np.testing.assert_allclose(found.score, toy.score, atol=1e-5)


def test_a_text_stops_at_its_end_whatever_the_others_do(toy):
  lengths = toy.mask.sum(1)
  assert set(lengths.tolist()) >= {1, 2, 4}
  for ids, n, state, score in zip(toy.ids, lengths, STARTS, toy.score, strict=True):
    assert (ids[n:] == 0).all() and (ids[: n - 1] != 0).all()
    assert n == 4 or ids[n - 1] == 0
    assert score == pytest.approx(follow(state, tuple(ids[:n]))[0], abs=1e-4)


def test_draws_follow_the_probabilities_and_the_key():
  """1,000 rows in one state: counts within 5 deviations; the other rows change no row's draw."""
  choice, rows = Choice(1, temperature=2.0, top_p=0.8), 1000

  @jax.jit
  def draw(states, rng):
    return one_by_one(read, State(states), jnp.asarray(TABLE)[states], choice, rng).ids[:, 0]

  states, rng = jnp.full(rows, 5), jax.random.key(0)
  words = np.asarray(draw(states, rng))
  expected = np.asarray(jax.nn.softmax(nucleus(jnp.asarray(TABLE[5]) / 2, 0.8)))
  deviation = np.sqrt(expected * (1 - expected) * rows)
  assert (expected == 0).any()
  assert (abs(np.bincount(words, minlength=VOCABULARY) - rows * expected) <= 5 * deviation).all()
  np.testing.assert_array_equal(draw(states.at[50:].set(7), rng)[:50], words[:50])
  assert (np.asarray(draw(states, jax.random.key(1))) != words).any()


@settings(max_examples=30, deadline=None)
@given(
  st.lists(st.integers(-400, 400), min_size=6, max_size=6, unique=True), st.floats(0.01, 1.0)
)
def test_the_nucleus_is_the_smallest_set_with_its_share(hundredths, top_p):
  logits = np.asarray(hundredths, np.float32) / 100
  kept = np.isfinite(np.asarray(NUCLEUS(jnp.asarray(logits), top_p)))
  probability = np.exp(logits.astype(float))
  probability /= probability.sum()
  share = probability[kept].sum()
  assert share >= top_p - 1e-5 and share - probability[kept].min() < top_p + 1e-5
  assert kept.all() or probability[kept].min() > probability[~kept].max()


@pytest.mark.parametrize(
  "fields, said",
  [
    (dict(words=0), "words=0 and beams=1; use 1 or more"),
    (dict(top_p=0.0), "top_p=0.0 above 0 and at most 1"),
    (dict(temperature=-1.0), "temperature=-1.0 is at least 0"),
    (dict(beams=3, temperature=1.0), "beams=3 draw no words"),
  ],
)
def test_choices_that_cannot_be(fields, said):
  with pytest.raises(UserError, match=said):
    Choice(**fields)


def test_an_end_that_is_no_word():
  with pytest.raises(UserError, match="eos=9 is not among the model's 4 words"):
    search(Choice(2, eos=(9,)), one_by_one)
