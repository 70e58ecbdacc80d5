"""What is measured of two towers: retrieval, EgoMCQ, classes by their names.

Such a stage says `text_of` (data, key, captions) how texts are read, and embeds: `embed_clips`
(params, video) and `embed_texts` (params, ids, mask); `judge` (params, video, ids, mask) where it
can read both together.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vfe import config as configs
from vfe.data.captioned.charades_ego import charades_classes
from vfe.data.streams import Stream
from vfe.data.text import most_captions
from vfe.errors import UserError
from vfe.evaluate import zero_shot
from vfe.evaluate.classification import Classification
from vfe.evaluate.egomcq import EgoMCQ, JudgedMCQ
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.multi_instance import MultiInstance
from vfe.evaluate.multi_label import MultiLabel
from vfe.evaluate.retrieval import Retrieval
from vfe.learn.state import Params
from vfe.models import contrastive
from vfe.stages.stage import Batch


def retrieval(stage: Any, name: str) -> Evaluator:
  """Text to video and video to text among the validation videos of `retrieval.<name>`."""
  own = name if len(stage.config.retrieval) > 1 else ""  # several would write the same files
  return _searched(stage, f"retrieval.{name}", stage.config.retrieval[name].data, Retrieval, own)


def measures(stage: Any) -> list[Evaluator]:
  """Of the section `measures`, those whose data.source is named.

  Raises:
    UserError: a kind that there is not.
  """
  asked = {name: of for name, of in stage.config.measures.items() if of.data.source}
  return [
    configs.choose(KINDS, of.kind, f"config.{stage.name}.measures.{name}.kind")(stage, name)
    for name, of in asked.items()
  ]


def _by_embeddings(collector: Callable) -> Callable:
  def measure(stage: Any, name: str) -> Evaluator:
    section = stage.config.measures[name]
    return _searched(stage, f"measures.{name}", section.data, collector, name)

  return measure


def _judged_mcq(stage: Any, name: str) -> Evaluator:
  """EgoMCQ by how well the stage takes each narration and clip to match, read together."""
  data = _data(stage, f"measures.{name}", stage.config.measures[name].data)
  source = stage.setting.open_source(data, "validation")
  text = stage.text_of(data, "asked", max(1, most_captions(source, "asked")))
  stream = Stream.of(source, data, stage.config.eval_batch, text=text)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    ids, mask = clip["text"]["ids"], clip["text"]["mask"]
    return {"scores": stage.judge(params, clip["video"], ids, mask)}

  return Evaluator(name, stream, predict, lambda: JudgedMCQ(source), name)


def _multi_label(stage: Any, name: str) -> Evaluator:
  """The classes of Charades-Ego by their names, which nothing was trained on."""
  section = stage.config.measures[name]
  data = _data(stage, f"measures.{name}", section.data)
  source = stage.setting.open_source(data, "validation")
  names = tuple(charades_classes(pathlib.Path(data.path).expanduser()).values())
  ids, mask = _prompts(stage, names, section.templates, data)
  stream = Stream.of(source, data, stage.config.eval_batch)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    texts = stage.embed_texts(params, ids, mask)
    by_class = zero_shot.class_embeddings(texts.reshape(len(names), -1, texts.shape[-1]))
    return {"scores": contrastive.normalised(stage.embed_clips(params, clip["video"])) @ by_class.T}

  return Evaluator(name, stream, predict, lambda: MultiLabel(source, names), name)


# What can be measured: (stage, name of the section in `measures`) -> evaluator.
KINDS = {
  "retrieval": _by_embeddings(Retrieval),
  "egomcq": _by_embeddings(lambda source, key: EgoMCQ(source, key)),
  "judged_egomcq": _judged_mcq,
  "multi_instance": _by_embeddings(lambda source, key: MultiInstance(source, key)),
  "multi_label": _multi_label,
}


def _searched(
  stage: Any, place: str, changes: Any, collector: Callable, folder: str
) -> Evaluator:
  """What goes by the embeddings of clips and of all their texts."""
  data = _data(stage, place, changes)
  source = stage.setting.open_source(data, "validation")
  key = data.text.key
  text = stage.text_of(data, key, max(1, most_captions(source, key)))
  stream = Stream.of(source, data, stage.config.eval_batch, text=text)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    ids, mask = clip["text"]["ids"], clip["text"]["mask"]
    flat = lambda x: x.reshape(-1, x.shape[-1])
    texts = contrastive.normalised(stage.embed_texts(params, flat(ids), flat(mask)))
    return {
      "video": contrastive.normalised(stage.embed_clips(params, clip["video"])),
      "text": texts.reshape(*ids.shape[:2], -1),
      "mask": mask.any(-1),
    }

  return Evaluator(place.split(".")[-1], stream, predict, lambda: collector(source, key), folder)


def classes(stage: Any) -> Evaluator:
  """Top-1 and top-5 of a label head whose classes the text tower knows by name only.

  Raises:
    UserError: the data have no such head.
  """
  config = stage.config.zero_shot
  data = _data(stage, "zero_shot", config.data)
  source = stage.setting.open_source(data, "validation")
  if config.head not in source.heads:
    raise UserError(
      f"config.{stage.name}.zero_shot.head={config.head!r}: {source.name} has the heads "
      f"{', '.join(source.heads) or 'none'} ({configs.nearest(config.head, source.heads)})."
    )
  ids, mask = _prompts(stage, source.heads[config.head], config.templates, data)
  stream = Stream.of(source, data, stage.config.eval_batch)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    texts = stage.embed_texts(params, ids, mask)
    by_class = zero_shot.class_embeddings(texts.reshape(-1, len(config.templates), texts.shape[-1]))
    scale = contrastive.scale_of(params["log_scale"])
    video = stage.embed_clips(params, clip["video"])
    return {config.head: zero_shot.probabilities(video, by_class, scale)}

  return Evaluator("zero_shot", stream, predict, lambda: Classification(source, (config.head,)))


def _data(stage: Any, key: str, changes: Any) -> Any:
  return configs.laid_over(stage.config.data, changes, f"config.{stage.name}.{key}.data")


def _prompts(
  stage: Any, names: tuple[str, ...], templates: tuple[str, ...], data: Any
) -> tuple[Int[Array, "n L"], Any]:
  texts = [text for of in zero_shot.prompts(names, templates) for text in of]
  ids, mask = stage.text_of(data, data.text.key, 1).tokenizer(texts)
  return jnp.asarray(np.asarray(ids)), jnp.asarray(mask)
