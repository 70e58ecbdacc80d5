"""A model that writes about videos, opened: captions, summaries, and answers to questions."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vfe import config as configs
from vfe.data.prompt import decoder, filled, laid
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling
from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models.dual_encoder import vision_tower
from vfe.models.frozen import as_dtype, frozen_encoder
from vfe.models.generation import Choice
from vfe.models.opened.language import ROUND
from vfe.models.video_language import VideoLanguage, VideoLanguageConfig
from vfe.models.words import Words
from vfe.nn.blocks import Between, Execution

HOW = ("beams", "temperature", "top_p")  # of `Choice`: by which words are chosen


@dataclasses.dataclass(frozen=True)
class Asked:
  """What is asked, and of which clips.

  template  the prompt, with the names of texts in braces, such as "Question: {question} Answer:"
  words     the most that are written
  frames    of a clip
  sampling  the fields of the `vfe.data.sampling.Sampling` by which they are taken
  """

  template: str
  words: int
  frames: int
  sampling: Mapping[str, Any]


class Chosen(NamedTuple):
  """Of R questions: log_likelihood float32[R, O] of whole options, -inf where a question has fewer;
  words int32[R, O], how many they have, with the one that ends a text; option int32[R], the
  likeliest, of equal ones the first."""

  log_likelihood: np.ndarray
  words: np.ndarray
  option: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Captioner:
  """What the stages of kind caption leave, with the two frozen models between which it was trained.

  config  the `vfe.models.video_language.VideoLanguageConfig`
  params  {resampler, bridge}, of `vfe.models.video_language.VideoLanguage`
  frozen  {encoder, language} likewise
  words   the tokenizer's path, and the word that ends a text
  model   the export's model config, plain JSON
  path    where it was loaded from

  Videos are uint8[B, T, size, size, 3], RGB, of up to config.encoder.frames frames. Texts are asked
  for by a `prompt`: a name in `prompts`, a text, or an `Asked`. Which tokens are dropped, of a
  model that drops some, is decided by a row's number: by default its place in the batch, as in the
  stage's evaluations, else int[B] `rows`.
  """

  config: VideoLanguageConfig
  params: Any
  frozen: Any
  words: Words
  model: dict[str, Any]
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, parts: Mapping[str, Export], dtype: str = "float32") -> "Captioner":
    """The model in an export; parts are its `encoder` and `language`."""
    config = VideoLanguageConfig.from_dict(export.model["video_language"])
    frozen = {
      "encoder": frozen_encoder(vision_tower(parts["encoder"]), config.encoder, dtype),
      "language": as_dtype(parts["language"].params["language"], dtype),
    }
    params, frozen = jax.device_put((export.params, frozen))
    words = Words.of(parts["language"])
    return cls(config, params, frozen, words, export.model, export.path, dtype)

  @property
  def prompts(self) -> dict[str, Asked]:
    """What it was evaluated by: `written`, and `questions`."""
    return self._evaluated("questions") | self._evaluated("written")

  def asked(self, prompt: str | Asked | None = None) -> Asked:
    """What a prompt asks for; without one, what was written of the longest clips.

    A text may be any, without words in braces; it is asked of clips of all frames.

    Raises:
      UserError: a single word that is no name in `prompts`.
    """
    if isinstance(prompt, Asked):
      return prompt
    if prompt is None:
      written = self._evaluated("written").values()
      if not written:
        raise UserError(f"{self.path} was trained without `written`; give a prompt.")
      return max(written, key=lambda asked: asked.frames)
    if prompt.isidentifier():
      return configs.choose(self.prompts, prompt, "prompt")
    return Asked(prompt, Choice().words, self.config.encoder.frames, self.model["sampling"])

  def asked_question(self, prompt: str | Asked | None = None) -> Asked:
    """What is asked with a question; without a prompt, as the stage's first `questions` did.

    Raises:
      UserError: the prompt has no {question}.
    """
    questions = list(self._evaluated("questions").values())
    asked = questions[0] if prompt is None and questions else self.asked(prompt)
    if "{question}" not in asked.template:
      raise UserError(
        f"prompt {asked.template!r} has no place for a question; give one such as "
        "'Question: {question} Answer:'."
      )
    return asked

  def read(
    self,
    path: str | os.PathLike[str],
    prompt: str | Asked | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
  ) -> UInt8[np.ndarray, "1 T S S 3"]:
    """The clip of a video file that is shown for a prompt: its centre, by the stage's sampling.

    Args:
      path: of any video or image file.
      prompt: decides the number of frames and how they are taken.
      start, end: seconds within the video; None, its first and last frame.

    Raises:
      vfe.data.faults.FaultError: it cannot be read.
    """
    from vfe.data import augment, decode  # PyAV only where videos are read

    asked, size = self.asked(prompt), self.config.encoder.size
    record = VideoRecord(os.fspath(path), path=os.fspath(path), start=start, end=end)
    crops = lambda height, width: augment.spatial_crops(height, width, size)
    sampling = Sampling(**asked.sampling)
    views = decode.read_views(record, asked.frames, sampling, None, crops, short_side=2 * size)
    return views[0].frames[None]

  def describe(
    self,
    video: Any,
    prompt: str | Asked | None = None,
    *,
    rows: Any = None,
    seed: int = 0,
    **choice: Any,
  ) -> list[str]:
    """A text of each clip.

    Args:
      video: as above.
      prompt: as `asked` takes it.
      rows: as above.
      seed: of the draws, where there are any.
      choice: words, beams, temperature and top_p of `vfe.models.generation.Choice`. Where none of
        the last three is given, they are those of the stage's evaluations.

    Raises:
      UserError: a video of another type or shape, or a choice that cannot be.
    """
    asked = self.asked(prompt)
    said = filled(asked.template, {}, "the prompt")
    shown = self._checked(video, rows, len(video))
    return self._written(shown, [said] * len(video), asked.words, seed, choice)

  def answer(
    self,
    video: Any,
    questions: Sequence[str],
    prompt: str | Asked | None = None,
    *,
    rows: Any = None,
    seed: int = 0,
    **choice: Any,
  ) -> list[str]:
    """An answer to each question; the rest as `describe`.

    There are as many questions as clips, or n times as many: the first n are about the first one.
    """
    asked = self.asked_question(prompt)
    said, shown = _questions(asked, questions), self._checked(video, rows, len(questions))
    return self._written(shown, said, asked.words, seed, choice)

  def choose(
    self,
    video: Any,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    prompt: str | Asked | None = None,
    *,
    rows: Any = None,
  ) -> Chosen:
    """The likeliest of the options of each question.

    A video of None gives what the language model finds without one. The rest as `answer`.

    Raises:
      UserError: a question has no two options.
    """
    said = _questions(self.asked_question(prompt), questions)
    for number, of in enumerate(options):
      if isinstance(of, str) or len(of) < 2 or not all(option.strip() for option in of):
        raise UserError(f"question {number} has the options {of!r}; give a list of at least two.")
    if len(options) != len(said):
      raise UserError(f"{len(said)} questions and options of {len(options)}; give each its own.")
    text = self._laid(said, options)
    found = self._score(self._checked(video, rows, len(said)), text)
    found = np.where(text["mask"].any(-1), found, -np.inf).astype(np.float32)
    counts = text["answer"].sum(-1, dtype=np.int32)
    return Chosen(found, counts, found.argmax(-1).astype(np.int32))

  def log_likelihood(
    self,
    video: Any,
    texts: Sequence[str],
    prompt: str | Asked | None = None,
    *,
    rows: Any = None,
  ) -> Float[np.ndarray, "R"]:
    """Of each whole text, with the word that ends it, after the prompt. A clip may have several
    texts, and none may be shown, as in `choose`."""
    said = filled(self.asked(prompt).template, {}, "the prompt")
    text = self._laid([said] * len(texts), [[of] for of in texts])
    return self._score(self._checked(video, rows, len(texts)), text)[:, 0]

  def _evaluated(self, kind: str) -> dict[str, Asked]:
    return {name: Asked(**fields) for name, fields in self.model[kind].items()}

  def _checked(self, video: Any, rows: Any, texts: int) -> tuple[Array, Array] | None:
    """Clips and the numbers of their rows; None of no video."""
    if not texts:
      raise UserError("there are no texts; give at least one.")
    if video is None:
      return None
    most, size = self.config.encoder.frames, self.config.encoder.size
    fits = video.dtype == jnp.uint8 and video.ndim == 5 and video.shape[2:] == (size, size, 3)
    if not fits or not 1 <= video.shape[1] <= most:
      raise UserError(
        f"the video is {video.dtype}{list(video.shape)}; this model takes uint8[B, T, {size}, "
        f"{size}, 3] of up to {most} frames."
      )
    self._model.layout(video.shape[1])
    if not len(video) or texts % len(video):
      raise UserError(f"{texts} texts about {len(video)} clips; give as many about each.")
    rows = np.arange(len(video)) if rows is None else np.asarray(rows)
    if rows.shape != (len(video),):
      raise UserError(f"rows has the shape {rows.shape}; give a number for each clip.")
    return jnp.asarray(video), jnp.asarray(rows, jnp.int32)

  def _laid(
    self, prompts: Sequence[str], answers: Sequence[Sequence[str | None]]
  ) -> dict[str, np.ndarray]:
    return laid(self.words.tokenizer, prompts, answers, self.words.end, ROUND)

  def _written(
    self, shown: Any, prompts: Sequence[str], words: int, seed: int, choice: dict[str, Any]
  ) -> list[str]:
    evaluated = {} if set(HOW) & set(choice) else self.model["generate"]
    how = Choice(**({"words": words, "eos": (self.words.end,)} | evaluated | choice))
    text = self._laid(prompts, [[None]] * len(prompts))
    rng = jax.random.key(seed)
    found = self._generate(self.params, self.frozen, shown, text, rng, how)
    decode, rows = decoder(self.words.tokenizer), (np.asarray(found.ids), np.asarray(found.mask))
    return [decode(ids[there].tolist()) for ids, there in zip(*rows, strict=True)]

  def _score(self, shown: Any, text: Mapping[str, np.ndarray]) -> Float[np.ndarray, "R O"]:
    return np.asarray(self._option_scores(self.params, self.frozen, shown, text))

  def _looking(self, params: Any, frozen: Any, shown: Any) -> Between | None:
    return shown and self._model.looking(params, *self._model.shown(frozen, *shown))

  @property
  def _model(self) -> VideoLanguage:
    run = Execution(dtype=self.dtype)
    return VideoLanguage(self.config, run, run)

  # Parameters are arguments of the programs: as constants they would be copied into each.

  @functools.cached_property
  def _generate(self):
    def run(params, frozen, shown, text, rng, how: Choice):
      looking = self._looking(params, frozen, shown)
      ids, mask = text["ids"][:, 0], text["mask"][:, 0]
      return self._model.generate(frozen, ids, mask, looking, how, rng)

    return jax.jit(run, static_argnames="how")

  @functools.cached_property
  def _option_scores(self):
    def run(params, frozen, shown, text):
      return self._model.option_scores(frozen, text, self._looking(params, frozen, shown))

    return jax.jit(run)


def _questions(asked: Asked, questions: Sequence[str]) -> list[str]:
  """The prompts of questions."""
  if isinstance(questions, str):
    raise UserError(f"the questions are {questions!r}; give a list.")
  named = enumerate(questions)
  return [filled(asked.template, {"question": of}, f"question {number}") for number, of in named]
