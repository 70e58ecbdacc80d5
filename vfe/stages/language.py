"""A language model on texts alone: a small one of its own, or one that goes on being trained.

Of a recipe without weights it is what writes: a decoder of the captions' own words.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vfe import config as configs
from vfe.data.prompt import Prompt
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.evaluate.evaluator import Evaluator, Means
from vfe.interop.language_model import TOKENIZER
from vfe.learn.state import Params
from vfe.learn.step import Metrics
from vfe.models import flops
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.models.words import Words
from vfe.stages import mixture
from vfe.stages.encoder import execution
from vfe.stages.stage import Batch, Setting, Stage


class LanguageStage(Stage):
  """Each part of the mixture is a stream of texts, a prompt and its answer in one.

  The loss is the mean over all words but the first ones of texts; a part's words count `weight`
  each.
  """

  roles = ("vocabulary", "language")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self.words, self.language = self._language()
    self.model = LanguageModel(self.language, execution(setting.config, self.dtype))
    self.rows = mixture.rows(self.config, self.name)

  def _language(self) -> tuple[Words, LanguageConfig]:
    """Of a vocabulary a new model; a given one keeps its words and its shape."""
    place = f"config.{self.name}.inputs"
    vocabulary = self.setting.export("vocabulary", "vocabulary")
    given = self.setting.export("language", "language")
    if (vocabulary is None) == (given is None):
      both = "not set" if given is None else "set, and a language model has words of its own"
      raise UserError(f"{place}.vocabulary and .language are both {both}; set one of them.")
    if given is not None:
      return Words.of(given), LanguageConfig.from_dict(given.model["language"])
    size = self.setting.config.model.language
    config = LanguageConfig.of(size, vocabulary.model["size"])
    return Words.of_vocabulary(vocabulary), config

  # Data.

  def stream(self, name: str, split: str, rows: int) -> Stream:
    """The texts of a part of the mixture."""
    part = self.config.mixture[name]
    data = configs.laid_over(self.config.data, part.data, f"config.{self.name}.mixture.{name}.data")
    prompt = Prompt(
      self.words.tokenizer, data.text.length, part.template, data.text.key, self.words.end,
      begin=self.words.begin,
    )  # fmt: skip
    return Stream.of_text(self.setting.open_source(data, split), data, rows, prompt)

  @functools.cached_property
  def _streams(self) -> dict[str, Stream]:
    return {name: self.stream(name, "train", count) for name, count in self.rows.items()}

  def inputs(self) -> dict[str, Stream]:
    """A stream for each part of the mixture."""
    return self._streams

  # State.

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: the language model."""
    one = jnp.zeros((1, 1), jnp.int32)
    return {"model": self.model.init(rng, one, one == 0)["params"]}

  def warm(self) -> dict[str, Params]:
    """The given model's parameters."""
    given = self.setting.inputs.get("language")
    return {} if given is None else {"model": given.params["language"]}

  # A step.

  def loss(
    self, params: Params, frozen: dict[str, Params], extra: Any, batch: Batch, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics, Any]:
    """Nats of the next words."""
    del frozen, rng
    total, weight, metrics = jnp.float32(0), jnp.float32(0), {}
    for name, part in batch.items():
      nats, words = (jnp.sum(of) for of in self._read(params, part))
      metrics[f"{name}/loss"] = (nats, words)
      total += self.config.mixture[name].weight * nats
      weight += self.config.mixture[name].weight * words
    return total, weight, metrics, extra

  def _read(self, params: Params, part: Batch) -> tuple[jax.Array, jax.Array]:
    """Nats of every row's words, and how many they are, float32[B] each."""
    ids, mask = part["text"]["ids"], part["text"]["mask"] & part["valid"][:, None]
    found = self.model.apply({"params": params}, ids, mask, method="log_likelihood")
    return -jnp.sum(found, axis=-1), jnp.sum(mask[:, 1:], axis=-1).astype(jnp.float32)

  def tokens(self) -> int:
    """Words of a row, padding included; of several lengths the mean."""
    streams = self.inputs().values()
    words = sum(stream.batch * stream.spec.text.length for stream in streams)
    return words // sum(stream.batch for stream in streams)

  def model_flops(self) -> int:
    """The whole model, forward and backward."""
    return flops.TRAINED * sum(
      stream.batch * flops.language(self.language, stream.spec.text.length)
      for stream in self.inputs().values()
    )

  # Results.

  def evaluators(self) -> list[Evaluator]:
    """How well the validation texts of every part are foretold."""
    return [self._validation(name) for name in self.config.mixture]

  def _validation(self, name: str) -> Evaluator:
    def predict(params: Params, frozen: Any, texts: Batch) -> dict[str, Any]:
      return {"nats": self._read(params, texts)}

    stream = self.stream(name, "validation", self.config.eval_batch)
    return Evaluator(f"validation/{name}", stream, predict, Perplexity)

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """The model, which reads by the tokenizer beside it."""
    language = dataclasses.asdict(self.language)
    model = {"language": language, "tokenizer": None, "eos": list(self.words.ends)}
    return "language", model, {"language": params}

  def files(self) -> dict[str, str]:
    """The tokenizer."""
    return {TOKENIZER: self.words.text}


class Perplexity(Means):
  """A collector of nats: their mean a word, its exponential, and the number of words."""

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`nats`, `perplexity` and `words`."""
    nats = super().finish(folder).get("nats", np.nan)
    perplexity = float(np.exp(nats))
    return {"nats": nats, "perplexity": perplexity, "words": self.weights.get("nats", 0.0)}
