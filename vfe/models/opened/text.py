"""A trained text encoder, opened: sentences to words and vectors."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vfe.data.text import Tokenizer
from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models import text
from vfe.models.text import TextConfig, mean_of_tokens
from vfe.nn.blocks import Execution


@dataclasses.dataclass(frozen=True, eq=False)
class TextEncoder:
  """BERT with its vocabulary.

  config      the `vfe.models.text.TextConfig`
  params      of `vfe.models.text.TextEncoder`
  vocabulary  a path that `vfe.data.text.Tokenizer` reads, or None
  path        where it was loaded from
  length      tokens of a text with [CLS] and [SEP]: longer ones are cut
  """

  config: TextConfig
  params: Any
  vocabulary: str | None
  path: str
  dtype: str = "float32"
  length: int = 64

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "TextEncoder":
    """The text encoder in an export."""
    config, params = TextConfig.from_dict(export.model["text"]), jax.device_put(export.params)
    vocabulary, length = export.model.get("vocabulary"), min(64, config.positions)
    return cls(config, params["text"], vocabulary, export.path, dtype, length)

  def encode(
    self, texts: Sequence[str]
  ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """A float32 vector a token, and where there is one: the others mean nothing.

    Raises:
      UserError: no texts, or no vocabulary beside the model.
    """
    ids, mask = tokenized(self.vocabulary, self.length, self.path, texts)
    return self._encode(self.params, ids, mask), jnp.asarray(mask)

  def pooled(self, texts: Sequence[str]) -> Float[Array, "B D"]:
    """One float32 vector a text: the mean of its tokens."""
    return mean_of_tokens(*self.encode(texts))

  @functools.cached_property
  def _encode(self):
    module = text.TextEncoder(self.config, Execution(dtype=self.dtype))
    apply = lambda params, ids, mask: module.apply({"params": params}, ids, mask)
    return jax.jit(lambda *inputs: apply(*inputs).astype(jnp.float32))


def tokenized(
  vocabulary: str | None, length: int, path: str, texts: Sequence[str], clean: bool = False
):
  """Ids int32[B, L] and mask bool[B, L] of texts, by the vocabulary of what lies at `path`.

  `clean` is that of `vfe.data.text.Tokenizer`.

  Raises:
    UserError: not a list of at least one text, or there is no vocabulary.
  """
  if isinstance(texts, str) or not len(texts):
    raise UserError(f"the texts are {texts!r}; give a list of at least one.")
  if vocabulary is None:
    raise UserError(f"{path} holds no tokenizer.json nor vocab.txt; put the model's own there.")
  return Tokenizer(vocabulary, length, clean)(texts)
