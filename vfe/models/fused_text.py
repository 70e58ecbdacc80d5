"""BERT whose last layers also see a video: SViTT's text and multimodal encoder in one (2.6)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vfe.models.text import TextConfig, check_length
from vfe.nn.attention import over_rows
from vfe.nn.blocks import ACTIVATIONS, Execution, Stack, norm
from vfe.nn.postnorm import FusedBlock, Fusing, PostNormBlock
from vfe.tokens.pruning import Pruning
from vfe.tokens.selection import gather_tokens


class FusedText(nn.Module):
  """The layers before the last `fused` read words, those words and a video of `video_width`.

  Parameters are those of `vfe.models.text.TextEncoder`; `cross`, the attention to the video, a
  layer of the last ones; and `head`, BERT's for hidden words, whose output is the words' embedding.
  pruning counts the last layers from 0.
  """

  config: TextConfig
  fused: int
  video_width: int
  pruning: Pruning | None = None
  execution: Execution = Execution()

  def setup(self):
    config, dtype = self.config, self.execution.dtype
    init = nn.initializers.truncated_normal(0.02)
    table = lambda name, rows: self.param(name, init, (rows, config.width))
    self.word = nn.Embed(config.vocabulary, config.width, embedding_init=init)
    self.position = table("position", config.positions)
    self.type = table("type", config.types)
    self.norm = norm(config.norm_eps, dtype)
    self.blocks = self.param("blocks", self._stack(PostNormBlock, config.depth).init)
    self.cross = self.param("cross", self._init_cross)
    self.head = Head(config, dtype)

  def __call__(self, ids, mask, video) -> Float[Array, "B L V"]:
    """All parts, so that all parameters are there."""
    return self.words(self.fuse(self.encode(ids, mask), mask, video))

  def encode(self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
    """Words that have seen each other; no word sees padding, whose own outputs mean nothing.

    Raises:
      UserError: L is more than the positions.
    """
    check_length(ids.shape[1], self.config)
    tokens = self.word(ids) + self.position[: ids.shape[1]] + self.type[0]
    tokens = over_rows(self.norm(tokens))
    stack, first = self._stack(PostNormBlock, self.config.depth), self.config.depth - self.fused
    words = mask.astype(jnp.int32)
    return stack.apply_part(self.blocks, tokens, 0, first, where=words)[0]

  def fuse(
    self,
    words: Float[Array, "B L D"],
    mask: Bool[Array, "B L"],
    video: Float[Array, "B N E"],
    keys: Key[Array, "B"] | None = None,
  ) -> Float[Array, "B L D"]:
    """Words, as `encode` gives them, that have seen the video's tokens, too, the first a CLS.

    With pruning the tokens that the first word sees most go on to the next layers, and the CLS; or
    random ones, by the keys of rows, without keys the same ones of all.
    """
    pruning = self.pruning or Pruning(after=())
    last = jax.tree.map(lambda leaf: leaf[self.config.depth - self.fused :], self.blocks)
    stack, params = self._stack(FusedBlock, self.fused), {**last, **self.cross}
    if keys is None:
      keys = jnp.broadcast_to(jax.random.key(0), (len(words),))
    for start, stop in pruning.parts(self.fused):
      where = Fusing(mask.astype(jnp.int32), video.astype(self.execution.dtype))
      own = jnp.zeros((stop - start, 0))
      words, seen = stack.apply_part(params, words, start, stop, own, None, where)
      if stop - 1 in pruning.after:
        drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, stop)
        kept = pruning.select(seen[-1][:, 1:], drawn)
        self.sow("intermediates", "kept_of_video", kept)
        video = jnp.concatenate([video[:, :1], gather_tokens(video[:, 1:], kept)], axis=1)
    return words

  def words(self, tokens: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """float32 logits of the words that stand at the tokens' places."""
    hidden = self.head(tokens)
    table = self.word.embedding
    logits = jnp.einsum("bld,vd->blv", hidden, table.astype(hidden.dtype),
                        preferred_element_type=jnp.float32)  # fmt: skip
    return logits + self.head.bias

  @nn.nowrap
  def _stack(self, kind: type[nn.Module], depth: int) -> Stack:
    config, run = self.config, self.execution
    more = {"video_width": self.video_width} if kind is FusedBlock else {}
    block = kind(
      heads=config.heads, mlp=config.mlp, norm_eps=config.norm_eps, dtype=run.dtype,
      attention=run.attention, activation=config.activation, **more, parent=None,
    )  # fmt: skip
    return Stack(block, config.width, depth, run)

  @nn.nowrap
  def _init_cross(self, rng: Key[Array, ""]):
    drawn = self._stack(FusedBlock, self.fused).init(rng)
    return {name: drawn[name] for name in ("cross", "cross_norm")}


class Head(nn.Module):
  """BERT's transformation before its words' embedding, and a bias a word."""

  config: TextConfig
  dtype: str = "float32"

  def setup(self):
    config = self.config
    self.transform = nn.Dense(config.width, dtype=self.dtype)
    self.norm = norm(config.norm_eps, self.dtype)
    self.bias = self.param("bias", nn.initializers.zeros_init(), (config.vocabulary,))

  def __call__(self, tokens: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    return self.norm(ACTIVATIONS[self.config.activation](self.transform(tokens)))
