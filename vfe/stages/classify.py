"""Fine-tuning an encoder on labels (LVMAE A.5.3), from scratch, or a probe on a frozen one."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.evaluate.classification import Classification
from vfe.evaluate.evaluator import Evaluator
from vfe.learn.mixup import mix
from vfe.learn.state import Params
from vfe.models import flops
from vfe.models.classifier import Classifier
from vfe.models.frozen import first_tokens
from vfe.nn.random import key, row_keys
from vfe.stages.encoder import edges, encoder_config, encoder_input, execution, warm_encoder
from vfe.stages.stage import Batch, Setting, Stage
from vfe.tokens import selection
from vfe.tokens.tubelets import gather_tubelets


class ClassifyStage(Stage):
  """One linear head a label of the data (verb and noun, say) over one pooled encoder.

  With `freeze`, only pooling and heads are trained and nothing is computed backward below them:
  a linear probe with pool=mean, an attentive one with pool=attentive.
  """

  roles = ("encoder",)

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self.pretrained = encoder_input(setting)
    encoder = encoder_config(setting.config, self.config.data, self.pretrained)
    self.encoder = dataclasses.replace(encoder, edges=edges(self.config))
    self.layout = self.encoder.layout
    self.heads = {name: len(classes) for name, classes in self.source.heads.items()}
    if not self.heads:
      raise UserError(
        f"config.{self.name}: {self.source.name} has no labels; use a folder with a sub-folder a "
        "class, or a manifest with a label column."
      )
    first_trained = self.encoder.depth if self.config.freeze else 0
    self.model = self._classifier(first_trained, self.config.drop_path)
    self.tested = self._classifier(first_trained, 0.0)

  def _classifier(self, first_trained: int, drop_path: float) -> Classifier:
    run = execution(
      self.setting.config, self.dtype, first_trained=first_trained, drop_path=drop_path
    )
    return Classifier(self.encoder, self.heads, self.config.pool, run)

  def optimizer_config(self, group: str) -> Any:
    """With `freeze`, the encoder has neither updates nor optimiser state."""
    config = super().optimizer_config(group)
    if self.config.freeze:
      config = config.copy_and_resolve_references()
      with config.unlocked():
        config.trainable = "^(pool|head_)"
    return config

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: encoder, pooling and heads."""
    patches, one = first_tokens(self.layout)
    return {"model": self.tested.init(rng, patches, one)["params"]}

  def warm(self) -> dict[str, Params]:
    """The pre-trained encoder, where there is one."""
    return warm_encoder(self, self.pretrained, self.encoder)

  @property
  def _kept_per_frame(self) -> int:
    return selection.visible(self.layout.per_frame, self.config.token_drop)

  def tokens(self) -> int:
    """Tokens of a clip after token drop."""
    return self._kept_per_frame * self.layout.grid[0]

  def model_flops(self) -> int:
    """Encoder, pooling and heads trained; with `freeze`, the encoder forward only."""
    kept, freeze = self.tokens(), self.config.freeze
    encoder = flops.encoder(self.encoder, kept) * (1 if freeze else flops.TRAINED)
    top = flops.pooling(self.encoder, self.config.pool, kept)
    top += flops.heads(self.encoder, self.heads)
    return self.config.batch * (encoder + flops.TRAINED * top)

  def prepared(self, batch: Batch, rng: jax.Array) -> Batch:
    """Mixes rows in pairs, which accumulated parts would tear."""
    clip = batch["clip"]
    video, targets = mix(
      key(rng, "mix"),
      clip["video"],
      clip["label"],
      self.heads,
      mixup=self.config.mixup,
      cutmix=self.config.cutmix,
      smoothing=self.config.label_smoothing,
    )
    return {"clip": {**clip, "video": video, "targets": targets}}

  def loss(
    self, params: Params, frozen: dict[str, Params], extra: Any, batch: Batch, rng: jax.Array
  ):
    """Cross-entropy with soft labels, summed over the heads."""
    clip = batch["clip"]
    rows, targets = clip["row"], clip["targets"]
    kept = selection.tube(row_keys(rng, "drop", rows), self.layout, self._kept_per_frame)
    patches = gather_tubelets(clip["video"], self.layout, kept)
    keys = row_keys(rng, "path", rows) if self.config.drop_path else None
    logits = self.model.apply({"params": params}, patches, kept, keys, rng)
    weight = clip["valid"].astype(jnp.float32)
    losses = {n: optax.softmax_cross_entropy(logits[n], targets[n]) for n in self.heads}
    hits = {n: jnp.argmax(logits[n], -1) == jnp.argmax(targets[n], -1) for n in self.heads}
    metrics = {f"top1/{n}": (jnp.sum(hit * weight), jnp.sum(weight)) for n, hit in hits.items()}
    return jnp.sum(sum(losses.values()) * weight), jnp.sum(weight), metrics, extra

  def evaluators(self) -> list[Evaluator]:
    """Top-1 and top-5 of every head over all views of a clip, and predictions as CSV."""
    everything = functools.partial(selection.everything, n=self.layout.size)

    def predict(params, frozen, clip):
      chosen = everything(len(clip["video"]))
      patches = gather_tubelets(clip["video"], self.layout, chosen)
      logits = self.tested.apply({"params": params}, patches, chosen)
      return {name: jax.nn.softmax(values) for name, values in logits.items()}

    source = self.eval_source
    stream = Stream.of(source, self.config.data, self.config.eval_batch)
    return [Evaluator("validation", stream, predict, lambda: Classification(source))]

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """Encoder, pooling, heads and the names of their classes."""
    model = {
      "encoder": dataclasses.asdict(self.encoder),
      "pool": self.config.pool,
      "heads": self.heads,
      "classes": {name: list(classes) for name, classes in self.source.heads.items()},
    }
    return "classifier", model, params
