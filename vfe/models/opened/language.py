"""A language model, opened: logits, and texts written on from prompts."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vfe.errors import UserError
from vfe.interop.language_model import TOKENIZER, open_tokenizer
from vfe.learn.exports import Export
from vfe.models import generation, language_model
from vfe.models.generation import Choice, Written
from vfe.models.language_model import Cache, LanguageConfig
from vfe.nn.blocks import Execution

ROUND = 16  # prompts are padded to a multiple of it, so that few programs are compiled


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
  """A decoder with its tokenizer.

  config     the `vfe.models.language_model.LanguageConfig`
  params     of `vfe.models.language_model.LanguageModel`
  tokenizer  the path of a tokenizer.json, or None
  eos        the words that end a text
  path       where it was loaded from
  """

  config: LanguageConfig
  params: Any
  tokenizer: str | None
  eos: tuple[int, ...]
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "LanguageModel":
    """The language model in an export."""
    model, params = export.model, jax.device_put(export.params["language"])
    config = LanguageConfig.from_dict(model["language"])
    beside = pathlib.Path(export.path) / TOKENIZER
    tokenizer = model["tokenizer"] or (str(beside) if beside.is_file() else None)
    return cls(config, params, tokenizer, tuple(model["eos"]), export.path, dtype)

  def tokens(
    self, texts: Sequence[str]
  ) -> tuple[Int[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
    """Words as the tokenizer frames them, padded on the left, and where there is one.

    Raises:
      UserError: no texts, a text without words, or no tokenizer beside the model.
    """
    if isinstance(texts, str) or not len(texts):
      raise UserError(f"the texts are {texts!r}; give a list of at least one.")
    rows = [self._words.encode(text).ids for text in texts]
    if not all(rows):
      raise UserError(f"text {rows.index([])} has no words; give it at least one.")
    length = -(-max(map(len, rows)) // ROUND) * ROUND
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
      ids[i, -len(row) :], mask[i, -len(row) :] = row, True
    return ids, mask

  def logits(
    self, ids: Int[Any, "B L"], mask: Bool[Any, "B L"]
  ) -> Float[Array, "B L V"]:
    """float32, of the word after each; those of padding mean nothing."""
    return self._logits(self.params, jnp.asarray(ids), jnp.asarray(mask))

  def generate(self, texts: Sequence[str], *, seed: int = 0, **choice: Any) -> list[str]:
    """Writes on from each text, and gives what it has added.

    Args:
      texts: prompts, as the tokenizer frames them.
      seed: of the draws, where there are any.
      choice: words, temperature, top_p and beams of `vfe.models.generation.Choice`, and eos.

    Raises:
      UserError: what `tokens` raises, or a choice that cannot be.
    """
    how = Choice(**({"eos": self.eos} | choice))
    ids, mask = self.tokens(texts)
    written = self._generate(self.params, ids, mask, jax.random.key(seed), how)
    rows = zip(np.asarray(written.ids), np.asarray(written.mask), strict=True)
    return [self._words.decode(row[there].tolist()) for row, there in rows]

  @functools.cached_property
  def _module(self):
    return language_model.LanguageModel(self.config, Execution(dtype=self.dtype))

  @functools.cached_property
  def _words(self):
    if self.tokenizer is None:
      raise UserError(f"{self.path} holds no tokenizer.json; put the model's own there.")
    words = open_tokenizer(self.tokenizer)
    words.no_padding()
    words.no_truncation()
    return words

  @functools.cached_property
  def _logits(self):
    return jax.jit(lambda params, *words: self._module.apply({"params": params}, *words))

  @functools.cached_property
  def _generate(self):
    module = self._module

    def run(params, ids, mask, rng, how: Choice) -> Written:
      read = lambda *inputs: module.apply({"params": params}, *inputs, method="read")
      cache = Cache.empty(self.config, len(ids), ids.shape[1] + how.words, self.dtype)
      return generation.generate(read, cache, ids, mask, how, rng)

    return jax.jit(run, static_argnames="how")
