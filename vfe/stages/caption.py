"""From video to text: a frozen encoder, a frozen language model, and what is trained between them.

LongViViT, sections 2 to 4 (arXiv 2312.07395): captions of short clips and summaries of long videos
are learned together; what was learned then writes, and answers questions.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from vfe import config as configs
from vfe.data.prompt import Prompt
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.evaluate.evaluator import Evaluator
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.learn.step import Metrics
from vfe.models import flops
from vfe.models.bridge import BridgeConfig
from vfe.models.frozen import as_dtype, frozen_encoder
from vfe.models.language_model import LanguageConfig
from vfe.models.resampler import ResamplerConfig
from vfe.models.video_language import VideoLanguage, VideoLanguageConfig
from vfe.models.words import Words
from vfe.nn.blocks import Between
from vfe.nn.random import key, row_keys
from vfe.stages import encoder as encoders
from vfe.stages import measured_text, mixture
from vfe.stages.stage import Batch, Setting, Stage


class CaptionStage(Stage):
  """Each part of the mixture is a stream of clips and their texts, with its own prompt and length.

  The loss is the mean over the answers' words; a part's words count `weight` each. Clips may be
  shorter than the encoder's.
  """

  roles = needed = ("encoder", "language")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self._encoder = encoders.encoder_input(setting)
    self._language = setting.export("language", "language")
    self.words = Words.of(self._language)
    self.model = VideoLanguage(
      self._config(),
      encoders.execution(setting.config, self.dtype),
      dataclasses.replace(encoders.execution(setting.config, self.dtype), attention="auto"),
    )
    self.rows = mixture.rows(self.config, self.name)

  def _config(self) -> VideoLanguageConfig:
    section = self.config
    encoder = encoders.encoder_config(self.setting.config, section.data, self._encoder)
    encoder = encoders.of_all_tokens(encoder)
    language = LanguageConfig.from_dict(self._language.model["language"])
    of_resampler, of_bridge = dict(section.resampler), dict(section.bridge)
    width = of_resampler.pop("width") or language.width
    of_resampler["mlp"] *= width
    of_bridge["mlp"] *= language.width
    return VideoLanguageConfig(
      encoder,
      language,
      ResamplerConfig(encoder.width, width, **of_resampler),
      BridgeConfig(language.width, language.depth, width, **of_bridge),
      section.pool,
      section.masked,
      section.spread,
    )

  @classmethod
  def ready(cls, section: Any) -> None:
    """Raises UserError where captions cannot be measured."""
    measured_text.ready(section)

  def notes(self) -> list[str]:
    """What of the frozen encoder is left out."""
    return encoders.notes(self._encoder)

  # Data.

  def data_of(self, place: str, changes: Any) -> Any:
    """The data config of a part or a measure: its own keys over the stage's.

    Raises:
      UserError: longer clips than the encoder's.
    """
    place = f"config.{self.name}.{place}.data"
    data = configs.laid_over(self.config.data, changes, place)
    if data.frames > self.config.data.frames:
      raise UserError(
        f"{place}.frames={data.frames} is more than the stage's, config.{self.name}.data.frames="
        f"{self.config.data.frames}; use no more."
      )
    self.model.layout(data.frames)  # an error of the tubelet now, not in a jitted step
    return data

  def prompt(self, template: str, data: Any, form: str = "answer", options: int = 0) -> Prompt:
    """What is read of a record."""
    text = data.text
    return Prompt(
      self.words.tokenizer, text.length, template, text.key, self.words.end, form, options
    )

  def inputs(self) -> dict[str, Stream]:
    """A stream for each part of the mixture."""
    streams = {}
    for name, part in self.config.mixture.items():
      data = self.data_of(f"mixture.{name}", part.data)
      text = self.prompt(part.template, data)
      streams[name] = Stream.of(self.sources[name], data, self.rows[name], text=text)
    return streams

  @functools.cached_property
  def sources(self) -> dict[str, Any]:
    """The training videos of each part."""
    parts = self.config.mixture.items()
    data = {name: self.data_of(f"mixture.{name}", part.data) for name, part in parts}
    return {name: self.setting.open_source(of, "train") for name, of in data.items()}

  def source_of(self, data: Any, split: str) -> Any:
    """The videos of a part or a measure."""
    return self.setting.open_source(data, split)

  def stream(self, source: Any, data: Any, text: Prompt) -> Stream:
    """Evaluation batches: clips, and what is asked of each."""
    return Stream.of(source, data, self.config.eval_batch, text=text)

  def looking(self, params: Params, frozen: Params, batch: Batch) -> Between:
    """What lets the language model look at the clips of an evaluation batch."""
    shown = self.model.shown(frozen, batch["video"], batch["row"])
    return self.model.looking(params, *shown)

  # State.

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: resampler and bridge."""
    return {"model": self.model.init(rng)}

  @functools.cached_property
  def frozen(self) -> dict[str, Params]:
    """Encoder and language model, in the type that they are run in."""
    encoder = self.model.config.encoder
    return {
      "encoder": frozen_encoder(self._encoder, encoder, self.dtype),
      "language": as_dtype(self._language.params["language"], self.dtype),
    }

  # A step.

  def loss(
    self, params: Params, frozen: dict[str, Params], extra: Any, batch: Batch, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics, Any]:
    """Next words of the answers."""
    total, weight, metrics = jnp.float32(0), jnp.float32(0), {}
    for name, part in batch.items():
      keys = row_keys(key(rng, name), "visible", part["row"])
      features = self.model.features(frozen, part["video"], keys)
      looking, text = self.model.looking(params, *features), part["text"]
      found = self.model.log_likelihood(frozen, text["ids"], text["mask"], looking)
      asked = text["answer"] & part["valid"][:, None]
      loss, words = -jnp.sum(jnp.where(asked, found, 0.0)), jnp.sum(asked).astype(jnp.float32)
      metrics[f"{name}/loss"] = (loss, words)
      total += self.config.mixture[name].weight * loss
      weight += self.config.mixture[name].weight * words
    gates = jnp.abs(jnp.tanh(params["bridge"]["blocks"]["gate"]))
    metrics["gate"] = (jnp.mean(gates), jnp.float32(1))
    return total, weight, metrics, extra

  def tokens(self) -> int:
    """Tokens of the longest clip that enter."""
    return self._entering(self.config.data.frames)

  def _entering(self, frames: int) -> int:
    one = jax.random.split(jax.random.key(0), 1)
    return jax.eval_shape(lambda keys: self.model.chosen(keys, frames), one).shape[1]

  def model_flops(self) -> int:
    """The encoder forward; backward through the language model to what is trained in between."""
    return sum(
      stream.batch
      * flops.video_language(
        self.model.config,
        tokens=self._entering(stream.spec.frames),
        layout=self.model.layout(stream.spec.frames),
        words=stream.spec.text.length,
      )
      for stream in self.inputs().values()
    )

  # Results.

  def evaluators(self) -> list[Evaluator]:
    """What is written of validation videos, and what is answered to questions on them."""
    return measured_text.evaluators(self)

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """Resampler and bridge, and where the frozen parts lie that they were trained with."""
    parts = {"encoder": self.setting.inputs["encoder"], "language": self._language}
    section = self.config
    model = {
      "video_language": dataclasses.asdict(self.model.config),
      "inputs": {
        role: {"path": self._place(export), "digest": export.digest}
        for role, export in parts.items()
      },
      "written": {n: self._asked(f"written.{n}", of) for n, of in section.written.items()},
      "questions": {n: self._asked(f"questions.{n}", of) for n, of in section.questions.items()},
      "generate": section.generate.to_dict(),
      "sampling": section.data.sampling.to_dict(),
    }
    return "caption", model, params

  def _place(self, export: Export) -> str:
    """Where an input lies: seen from the own export, if in the workdir, which can be moved then."""
    path, folder = pathlib.Path(export.path).absolute(), self.setting.folder.absolute()
    inside = path.is_relative_to(folder.parent)
    return os.path.relpath(path, folder / "export") if inside else str(path)

  def _asked(self, place: str, section: Any) -> dict[str, Any]:
    """What is asked of which clips."""
    data = self.data_of(place, section.data)
    clips = {"frames": data.frames, "sampling": data.sampling.to_dict()}
    return {"template": section.template, "words": section.words, **clips}
