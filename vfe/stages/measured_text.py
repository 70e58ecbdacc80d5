"""What is measured of a stage that writes: captions, and answers to questions.

Such a stage says what is asked, and of what: `data_of`, `source_of` (data, split), `prompt`,
`stream` (source, data, text); and `looking` (params, frozen, batch) at what a batch shows, or None.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vfe import config as configs
from vfe.data.prompt import decoder, most_options
from vfe.data.questions.options import with_options
from vfe.evaluate import captions
from vfe.evaluate.answers import OFFICIAL, Answers
from vfe.evaluate.captions import Captions
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.multiple_choice import SUBMISSIONS, MultipleChoice
from vfe.learn.state import Params
from vfe.models.generation import Choice
from vfe.nn.blocks import Between
from vfe.stages.stage import Batch


def ready(section: Any) -> None:
  """Raises UserError where what `written` asks for cannot be measured on this machine."""
  if section.written:
    captions.check()


def evaluators(stage: Any) -> list[Evaluator]:
  """Of `written`, and of those `questions` whose data are named."""
  found = []
  for name, section in stage.config.written.items():
    found.append(written(stage, name))
    if section.get("wrong_video"):
      found.append(written(stage, name, wrong_video=True))
  asked = stage.config.questions.items()
  return found + [questions(stage, name) for name, of in asked if of.data.source]


def written(stage: Any, name: str, *, wrong_video: bool = False) -> Evaluator:
  """Texts that are generated, against those that the validation videos have.

  With `wrong_video` each is written of another video of its batch: what is then still right, the
  language model knew before it looked.
  """
  section = stage.config.written[name]
  data = stage.data_of(f"written.{name}", section.data)
  source = stage.source_of(data, "validation")
  stream = stage.stream(source, data, stage.prompt(section.template, data, "prompt"))
  choice = _choice(stage, section.words)

  def predict(params: Params, frozen: Any, batch: Batch) -> dict[str, Any]:
    shown = batch
    if wrong_video:
      shown = batch | {"video": jnp.roll(batch["video"], 1, axis=0)}
    return _generated(stage, frozen, batch["text"], stage.looking(params, frozen, shown), choice)

  label = f"{name}_wrong_video" if wrong_video else name
  collector = lambda: Captions(source, data.text.key, decoder(stage.words.tokenizer))
  return Evaluator(label, stream, predict, collector, label)


def questions(stage: Any, name: str) -> Evaluator:
  """Answers by `how` of `HOW`."""
  section = stage.config.questions[name]
  how = configs.choose(HOW, section.how, f"config.{stage.name}.questions.{name}.how")
  data = stage.data_of(f"questions.{name}", section.data)
  return how(stage, name, section, data, stage.source_of(data, "validation"))


def likeliest(stage: Any, name: str, section: Any, data: Any, source: Any) -> Evaluator:
  """Multiple choice by the options' log-likelihood, beside that without the video.

  Open-ended questions are a choice among the `options` most frequent answers of training.
  """
  if section.options:
    source = with_options(source, stage.setting.open_source(data, "train"), section.options)
  text = stage.prompt(section.template, data, "options", max(2, most_options(source)))
  stream = stage.stream(source, data, text)

  def predict(params: Params, frozen: Any, batch: Batch) -> dict[str, Any]:
    text = batch["text"]
    score = functools.partial(stage.model.option_scores, frozen, text)
    return {
      "sum": score(stage.looking(params, frozen, batch)),
      "blind": score(None),
      "tokens": text["answer"].sum(-1),
      "mask": text["mask"].any(-1),
    }

  official = data.source if data.source in SUBMISSIONS else None
  return Evaluator(name, stream, predict, lambda: MultipleChoice(source, official), name)


def generated(stage: Any, name: str, section: Any, data: Any, source: Any) -> Evaluator:
  """Open-ended answers, written."""
  stream = stage.stream(source, data, stage.prompt(section.template, data, "prompt"))
  choice = _choice(stage, section.words)

  def predict(params: Params, frozen: Any, batch: Batch) -> dict[str, Any]:
    return _generated(stage, frozen, batch["text"], stage.looking(params, frozen, batch), choice)

  official = data.source if data.source in OFFICIAL else None
  decode = decoder(stage.words.tokenizer)
  return Evaluator(name, stream, predict, lambda: Answers(source, decode, official), name)


HOW = {"likelihood": likeliest, "generated": generated}


def _choice(stage: Any, words: int) -> Choice:
  how = stage.config.generate
  return Choice(words, (stage.words.end,), how.temperature, how.top_p, how.beams)


def _generated(
  stage: Any, frozen: Any, text: Batch, looking: Between | None, choice: Choice
) -> dict[str, Any]:
  rng = jax.random.key(stage.setting.config.seed)
  found = stage.model.generate(frozen, text["ids"], text["mask"], looking, choice, rng)
  return {"ids": found.ids, "mask": found.mask}
