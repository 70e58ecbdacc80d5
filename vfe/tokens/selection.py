"""Selections: which tokens. A selection is `int32[B, K]`, sorted indices into a layout, K static.

What is random is drawn from one key a row (`vfe.nn.random.row_keys`), so that a row's tokens do
not depend on the batch that it is in.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, Key, Shaped

from vfe.errors import UserError
from vfe.tokens.layout import Layout


def count(n: int, share: float) -> int:
  """The whole number of tokens in a share of n, rounded down as the papers do.

  count(12544, .10) = 1254, count(12544, .05) = 627 (LVMAE); the tube mask of 90 % leaves
  196 - count(196, .9) = 20 tokens a latent frame (VideoMAE).

  Raises:
    UserError: the share is not within [0, 1].
  """
  if not 0.0 <= share <= 1.0:
    raise UserError(f"a share of {share} of the tokens was asked for; use one from 0 to 1.")
  return int(n * share + 1e-6)  # 0.29 * 100 is 28.999999999999996


def visible(n: int, ratio: float) -> int:
  """How many of n tokens a mask of this ratio leaves visible."""
  return n - count(n, ratio)


def everything(batch: int, n: int) -> Int32[Array, "B N"]:
  """All tokens."""
  return jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (batch, n))


def random(keys: Key[Array, "B"], n: int, keep: int) -> Int32[Array, "B K"]:
  """`keep` of n tokens, every subset equally likely."""
  _check(keep, n)
  return largest(_noise(keys, n), keep)


def tube(keys: Key[Array, "B"], layout: Layout, keep_per_frame: int) -> Int32[Array, "B K"]:
  """The same random sites in every latent frame (VideoMAE; LVMAE 3.2)."""
  sites = random(keys, layout.per_frame, keep_per_frame)
  starts = jnp.arange(layout.grid[0], dtype=jnp.int32) * layout.per_frame
  return (starts[None, :, None] + sites[:, None, :]).reshape(len(keys), -1)


def random_of_frames(
  keys: Key[Array, "B"], layout: Layout, keep_per_frame: int
) -> Int32[Array, "B K"]:
  """As many random tokens of every latent frame, each frame's drawn on its own."""
  t = layout.grid[0]
  draw = lambda key: random(jax.random.split(key, t), layout.per_frame, keep_per_frame)
  starts = jnp.arange(t, dtype=jnp.int32) * layout.per_frame
  return (jax.vmap(draw)(keys) + starts[:, None]).reshape(len(keys), -1)


def random_frames(keys: Key[Array, "B"], layout: Layout, keep: int) -> Int32[Array, "B K"]:
  """All tokens of `keep` random latent frames."""
  starts = random(keys, layout.grid[0], keep) * layout.per_frame
  return (starts[:, :, None] + jnp.arange(layout.per_frame, dtype=jnp.int32)).reshape(len(keys), -1)


def frames(batch: int, layout: Layout, every: int) -> Int32[Array, "B K"]:
  """All tokens of every `every`-th latent frame, from the first on (LVMAE's "Uniform": 7)."""
  if every < 1:
    raise UserError(f"every {every}th latent frame was asked for; use 1 or more.")
  starts = jnp.arange(0, layout.size, every * layout.per_frame, dtype=jnp.int32)
  chosen = (starts[:, None] + jnp.arange(layout.per_frame, dtype=jnp.int32)).reshape(-1)
  return jnp.broadcast_to(chosen, (batch, len(chosen)))


def top_and_random(
  keys: Key[Array, "B"], importance: Float[Array, "B N"], top: int, random: int
) -> Int32[Array, "B K"]:
  """The `top` most important tokens and `random` others, K = top + random exactly.

  The random ones are drawn from those that are not in the top (LVMAE 3.2; the paper does not say
  from which), and no gradient reaches the importance. Of equally important tokens the earlier win.
  """
  n = importance.shape[1]
  _check(top + random, n)
  best = jax.lax.top_k(jax.lax.stop_gradient(importance), top)[1]
  rows = jnp.arange(len(best))[:, None]
  # Noise lies in [0, 1): those in the top come before all others, whatever their noise.
  return largest(_noise(keys, n).at[rows, best].set(1.0), top + random)


def largest(scores: Float[Array, "B N"], k: int) -> Int32[Array, "B K"]:
  """The k tokens of the largest scores; of equal ones the earlier."""
  return jnp.sort(jax.lax.top_k(scores, k)[1].astype(jnp.int32), axis=1)


def contains(selection: Int[Array, "B K"], asked: Int[Array, "B M"], n: int) -> Bool[Array, "B M"]:
  """Which of the asked tokens are in the selection, by way of one bit a token of the layout."""
  rows = jnp.arange(len(selection))[:, None]
  marks = jnp.zeros((len(selection), n), bool).at[rows, selection].set(True)
  return jnp.take_along_axis(marks, asked, axis=1)


def gather_tokens(
  tokens: Shaped[Array, "B N *D"], selection: Int[Array, "B K"]
) -> Shaped[Array, "B K *D"]:
  """Keeps the selected tokens, in the selection's order."""
  return tokens[jnp.arange(len(selection))[:, None], selection]


def scatter_tokens(
  tokens: Shaped[Array, "B K *D"], selection: Int[Array, "B K"], n: int
) -> Shaped[Array, "B N *D"]:
  """Puts tokens back to their places among n, zeros elsewhere."""
  rows = jnp.arange(len(selection))[:, None]
  empty = jnp.zeros((len(tokens), n, *tokens.shape[2:]), tokens.dtype)
  return empty.at[rows, selection].set(tokens)


def _noise(keys: Key[Array, "B"], n: int) -> Float[Array, "B N"]:
  return jax.vmap(lambda key: jax.random.uniform(key, (n,)))(keys)


def _check(keep: int, n: int):
  if not 0 < keep <= n:
    raise UserError(f"{keep} of {n} tokens were asked for; ask for at least 1 and at most {n}.")
