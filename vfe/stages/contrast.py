"""Contrastive training of a video and a text encoder (LongViViT, sections 2 and 3).

image -> short video -> long video are three stages of this kind, each begun from the one before.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vfe import config as configs
from vfe.data.streams import Stream
from vfe.data.text import Text
from vfe.errors import UserError
from vfe.evaluate.evaluator import Evaluator
from vfe.learn.state import Params, State
from vfe.learn.step import Metrics, apply, cached_gradients, gradients
from vfe.learn.trained import Trained
from vfe.models import contrastive, flops
from vfe.models.dual_encoder import POOLS, DualEncoder
from vfe.models.frozen import first_tokens
from vfe.nn.random import key, row_keys
from vfe.stages import measured, mixture, towers
from vfe.stages.encoder import execution
from vfe.stages.stage import Batch, Setting, Stage, mean
from vfe.tokens import selection
from vfe.tokens.layout import Layout
from vfe.tokens.tubelets import gather_tubelets
from vfe.tokens.tubes import TubeLayout, random_of_tubes

# Which tokens enter: (keys, layout, ratio, equal in each frame?) -> (selection, latent frames).
MASKS = {
  "random": lambda keys, layout, ratio, equal: (
    selection.random_of_frames(keys, layout, selection.visible(layout.per_frame, ratio))
    if equal
    else selection.random(keys, layout.size, selection.visible(layout.size, ratio)),
    layout.grid[0],
  ),
  "tube": lambda keys, layout, ratio, equal: (
    selection.tube(keys, layout, selection.visible(layout.per_frame, ratio)),
    layout.grid[0],
  ),
  "frame": lambda keys, layout, ratio, equal: (
    selection.random_frames(keys, layout, selection.visible(layout.grid[0], ratio)),
    selection.visible(layout.grid[0], ratio),
  ),
}


class ContrastStage(Stage):
  """Each part of the mixture is a stream of pairs with its own fixed rows in every step.

  The negatives of a pair are those of its own stream: captions of one data set are told from those
  of another by their style. The loss is the sum of the streams' means by their weights.
  """

  roles = ("encoder", "text", "vocabulary")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self._check()
    self.words = towers.words(setting)
    self.dual = towers.dual_config(setting, self.config, self.words.size)
    self.vision = self.dual.vision
    self.subset = towers.subset(self.config, self.vision)
    self.model = self._dual(self.subset.first)
    self.tested = self._dual(0)

  def _check(self) -> None:
    place = f"config.{self.name}"
    configs.choose(MASKS, self.config.mask.kind, f"{place}.mask.kind")
    if self.setting.config.model.tubes and self.config.mask.kind != "random":
      raise UserError(
        f"{place}.mask.kind={self.config.mask.kind!r}: tubes are dropped at random only; use that."
      )
    configs.choose(contrastive.INITIAL, self.config.loss, f"{place}.loss")
    configs.choose(POOLS, self.setting.config.model.pool, "config.model.pool")
    configs.choose(towers.PATTERNS, self.config.train, f"{place}.train")
    self.rows = mixture.rows(self.config, self.name)

  def _dual(self, first_trained: int) -> DualEncoder:
    run = execution(self.setting.config, self.dtype, first_trained=first_trained)
    return DualEncoder(self.dual, run, dataclasses.replace(run, first_trained=0))

  # Data.

  def part_data(self, name: str) -> Any:
    """The data config of a part of the mixture."""
    place = f"config.{self.name}.mixture.{name}.data"
    return configs.laid_over(self.config.data, self.config.mixture[name].data, place)

  @functools.cached_property
  def sources(self) -> dict[str, Any]:
    """The training pairs of each part."""
    open_source = self.setting.open_source
    return {name: open_source(self.part_data(name), "train") for name in self.config.mixture}

  def inputs(self) -> dict[str, Stream]:
    """A stream for each part of the mixture."""
    streams = {}
    for name, rows in self.rows.items():
      data = self.part_data(name)
      text = self.text_of(data, data.text.key)
      streams[name] = Stream.of(self.sources[name], data, rows, text=text)
    return streams

  def layout(self, data: Any) -> Layout | TubeLayout:
    """The layout of a part's clips: the encoder's, or an image's."""
    return self.vision.layout if data.frames > 1 else self.vision.image_layout

  # State.

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: both towers, their projections, the temperature."""
    patches, chosen = first_tokens(self.vision.layout)
    one = jnp.zeros((1, 1), jnp.int32)
    return {"model": self.tested.init(rng, patches, chosen, one, one > 0)["params"]}

  def warm(self) -> dict[str, Params]:
    """What the inputs have of either tower."""
    return {"model": towers.warm(self.setting, self.config, self.dual)}

  def trained(self, group: str) -> Trained:
    """The subset that `train` names; of the text tower all or nothing."""
    return self.subset

  # A step.

  def visible(self, layout: Layout | TubeLayout, keys: jax.Array) -> tuple[jax.Array, int]:
    """Tokens that enter in training, and the latent frames that they lie in."""
    mask, equal = self.config.mask, self.vision.mixing != "joint"
    tubes = isinstance(layout, TubeLayout)  # which lie in no frames
    frames = 1 if tubes else layout.grid[0]
    if not mask.ratio or (frames == 1 and mask.kind == "frame"):
      return selection.everything(len(keys), layout.size), frames
    if tubes:
      return random_of_tubes(keys, layout, selection.visible(layout.size, mask.ratio)), frames
    return MASKS[mask.kind](keys, layout, mask.ratio, equal)

  def embed(self, params: Params, batch: Batch, rng: jax.Array) -> dict[str, dict[str, Any]]:
    """Embeddings of every stream, the clips' from the tokens that enter. Pure."""
    return {name: self._embedded(params, name, part, rng) for name, part in batch.items()}

  def _embedded(self, params: Params, name: str, part: Batch, rng: jax.Array) -> dict[str, Any]:
    layout = self.layout(self.part_data(name))
    chosen, frames = self.visible(layout, row_keys(key(rng, name), "visible", part["row"]))
    patches = gather_tubelets(part["video"], layout, chosen)  # no other is ever embedded
    run = functools.partial(self.model.apply, {"params": params})
    return {
      "video": run(patches, chosen, frames=frames, method="embed_video"),
      "text": run(part["text"]["ids"], part["text"]["mask"], method="embed_text"),
    }

  def score(
    self, params: Params, embedded: dict[str, dict[str, Any]], extra: Any, batch: Batch
  ) -> tuple[jax.Array, jax.Array, Metrics, Any]:
    """(sum, weight 1, metrics, extra): each stream's mean loss by its weight. Pure."""
    scalars = [params[name] for name in contrastive.INITIAL[self.config.loss]]
    total, metrics = jnp.float32(0), {}
    for name, part in embedded.items():
      loss = LOSSES[self.config.loss](self.config, part, scalars, batch[name]["valid"])
      metrics |= {f"{name}/{metric}": value for metric, value in loss[2].items()}
      metrics[f"{name}/loss"] = loss[:2]
      total += self.config.mixture[name].weight * loss[0] / jnp.maximum(loss[1], 1.0)
    one = jnp.float32(1)
    metrics["scale"] = (contrastive.scale_of(params["log_scale"]), one)
    return total, one, metrics, extra

  def step(
    self, state: State, frozen: dict[str, Params], batch: Batch, rng: jax.Array
  ) -> tuple[State, Metrics]:
    """One update; `accumulate` parts are embedded one after another, twice."""
    params, update = state.groups["model"].params, self.updates["model"]
    parts, trained = self.config.accumulate, update.trained
    embed = lambda params, batch: self.embed(params, batch, rng)
    if parts == 1:
      loss = lambda params, extra, batch: self.score(params, embed(params, batch), extra, batch)
      found = gradients(loss, params, state.extra, batch, trained=trained)
    else:
      found = cached_gradients(
        embed, self.score, params, state.extra, batch, parts=parts, trained=trained
      )
    state, norms = apply(state, "model", found.grads, found.loss, update)
    state = state.replace(step=state.step + 1, extra=found.extra)
    return state, {"loss": mean(found), **found.metrics, **norms}

  def tokens(self) -> int:
    """Tokens of a clip that enter."""
    return self._entering(self.vision.layout)

  def _entering(self, layout: Layout | TubeLayout) -> int:
    one = jax.random.split(jax.random.key(0), 1)
    return jax.eval_shape(lambda keys: self.visible(layout, keys)[0], one).shape[1]

  def model_flops(self) -> int:
    """Both towers on every stream; forward only where nothing is trained."""
    total = 0
    few = self.config.train in ("adapters", "lora", "temporal")
    for name, stream in self.inputs().items():
      layout = self.layout(self.part_data(name))
      vision = flops.tuned_encoder(
        self.vision, self._entering(layout), layout, first_trained=self.subset.first, few=few
      )
      text = flops.text(self.dual.text, stream.spec.text.length)
      text *= 1 if self.config.freeze_text else flops.TRAINED
      total += stream.batch * (vision + text)
    return total

  # Results.

  def text_of(self, data: Any, key: str, captions: int = 1) -> Text:
    """How texts are read."""
    return Text(self.words.source, data.text.length, key, captions)

  def embed_clips(self, params: Params, video: jax.Array) -> jax.Array:
    """Embeddings float32[B, W] of all tokens of clips, or of images."""
    layout = self.vision.layout if video.shape[1] > 1 else self.vision.image_layout
    chosen = selection.everything(len(video), layout.size)
    patches = gather_tubelets(video, layout, chosen)
    return self.tested.apply({"params": params}, patches, chosen, method="embed_video")

  def embed_texts(self, params: Params, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Embeddings float32[B, W] of texts."""
    return self.tested.apply({"params": params}, ids, mask, method="embed_text")

  def evaluators(self) -> list[Evaluator]:
    """Zero-shot retrieval on each of `retrieval`, and classes by name where a head is given."""
    found = [measured.retrieval(self, name) for name in self.config.retrieval]
    return [*found, measured.classes(self)] if self.config.zero_shot.head else found

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """Both towers and the words that the text tower reads."""
    model = {
      "dual": dataclasses.asdict(self.dual),
      "encoder": dataclasses.asdict(self.vision),
      "length": self.config.data.text.length,
    }
    return "contrast", model, params

  def files(self) -> dict[str, str]:
    """The vocabulary, by which the export's texts are read."""
    return {"tokenizer.json": self.words.text}


LOSSES: dict[str, Callable] = {
  "info_nce": lambda config, part, scalars, valid: contrastive.info_nce(
    part["video"], part["text"], contrastive.scale_of(scalars[0]),
    smoothing=config.label_smoothing, valid=valid,
  ),
  "sigmoid": lambda config, part, scalars, valid: contrastive.sigmoid_loss(
    part["video"], part["text"], contrastive.scale_of(scalars[0]), scalars[1], valid=valid
  ),
}  # fmt: skip
