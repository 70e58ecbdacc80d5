"""What is measured of two towers without training on it: retrieval, and classes by their names."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vfe import config as configs
from vfe.data.streams import Stream
from vfe.data.text import Text, Tokenizer, most_captions
from vfe.errors import UserError
from vfe.evaluate import zero_shot
from vfe.evaluate.classification import Classification
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.retrieval import Retrieval
from vfe.learn.state import Params
from vfe.models import contrastive
from vfe.stages.stage import Batch
from vfe.tokens import selection
from vfe.tokens.tubelets import gather_tubelets


def retrieval(stage: Any, name: str) -> Evaluator:
  """Text to video and video to text among the validation videos of `retrieval.<name>`."""
  data = _data(stage, f"retrieval.{name}", stage.config.retrieval[name].data)
  source = stage.setting.open_source(data, "validation")
  captions = max(1, most_captions(source, data.text.key))
  text = Text(stage.words.source, data.text.length, data.text.key, captions)
  stream = Stream.of(source, data, stage.config.eval_batch, text=text)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    ids, mask = clip["text"]["ids"], clip["text"]["mask"]
    flat = lambda x: x.reshape(-1, x.shape[-1])
    texts = stage.tested.apply({"params": params}, flat(ids), flat(mask), method="embed_text")
    return {
      "video": contrastive.normalised(_embedded(stage, params, clip["video"])),
      "text": contrastive.normalised(texts).reshape(*ids.shape[:2], -1),
      "mask": mask.any(-1),
    }

  own = name if len(stage.config.retrieval) > 1 else ""  # several would write the same files
  return Evaluator(name, stream, predict, lambda: Retrieval(source, data.text.key), own)


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
  ids, mask = _prompts(stage, source.heads[config.head], config.templates, data.text.length)
  stream = Stream.of(source, data, stage.config.eval_batch)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    texts = stage.tested.apply({"params": params}, ids, mask, method="embed_text")
    by_class = zero_shot.class_embeddings(texts.reshape(-1, len(config.templates), texts.shape[-1]))
    scale = contrastive.scale_of(params["log_scale"])
    video = _embedded(stage, params, clip["video"])
    return {config.head: zero_shot.probabilities(video, by_class, scale)}

  return Evaluator("zero_shot", stream, predict, lambda: Classification(source, (config.head,)))


def _data(stage: Any, key: str, changes: Any) -> Any:
  return configs.laid_over(stage.config.data, changes, f"config.{stage.name}.{key}.data")


def _embedded(stage: Any, params: Params, video: Array) -> Float[Array, "B D"]:
  """Embeddings of all tokens of clips, or of images."""
  layout = stage.vision.layout if video.shape[1] > 1 else stage.vision.image_layout
  chosen = selection.everything(len(video), layout.size)
  patches = gather_tubelets(video, layout, chosen)
  run = functools.partial(stage.tested.apply, {"params": params}, method="embed_video")
  return run(patches, chosen)


def _prompts(
  stage: Any, names: tuple[str, ...], templates: tuple[str, ...], length: int
) -> tuple[Int[Array, "n L"], Any]:
  texts = [text for of in zero_shot.prompts(names, templates) for text in of]
  ids, mask = Tokenizer(stage.words.source, length)(texts)
  return jnp.asarray(np.asarray(ids)), jnp.asarray(mask)
