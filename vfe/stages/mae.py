"""Masked auto-encoding (LVMAE 3.1-3.2): encode the visible tokens, decode only what is asked."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from vfe import config as configs
from vfe.data.streams import Stream
from vfe.errors import UserError
from vfe.evaluate.evaluator import Evaluator, Means
from vfe.evaluate.pictures import KeptTokens, Several
from vfe.learn.state import Params
from vfe.models import flops, fsq
from vfe.models.frozen import first_tokens
from vfe.models.mae import MAE, DecoderConfig, masked_mse, pixel_targets
from vfe.models.tokenizer import ENCODING, TokenizerConfig, tokenize_clip
from vfe.nn.random import row_keys
from vfe.stages import encoder as encoders
from vfe.stages.stage import Batch, Setting, Stage
from vfe.stages.stored import check_stored
from vfe.tokens import selection
from vfe.tokens.importance import token_difference
from vfe.tokens.layout import Layout
from vfe.tokens.selection import contains, count, gather_tokens
from vfe.tokens.tubelets import gather_tubelets, tubelets

# Which tokens enter: (keys, layout, ratio) -> selection.
VISIBLE = {
  "tube": lambda keys, layout, ratio: selection.tube(
    keys, layout, selection.visible(layout.per_frame, ratio)
  ),
  "random": lambda keys, layout, ratio: selection.random(
    keys, layout.size, selection.visible(layout.size, ratio)
  ),
}

# Which are asked for: (keys, layout, importance or None, budget) -> selection. LVMAE 4.2.
ASKED = {
  "adaptive": lambda keys, layout, importance, budget: selection.top_and_random(
    keys, importance, count(layout.size, budget.importance), count(layout.size, budget.random)
  ),
  "random": lambda keys, layout, importance, budget: selection.random(
    keys, layout.size, count(layout.size, budget.importance) + count(layout.size, budget.random)
  ),
  "uniform": lambda keys, layout, importance, budget: selection.frames(
    len(keys), layout, round(1 / (budget.importance + budget.random))
  ),
  "all": lambda keys, layout, importance, budget: selection.everything(len(keys), layout.size),
}
IMPORTANCES = ("tokenizer", "difference")  # the learned scorer's, or EVEREST's on pixels
TARGETS = ("latent", "pixels")


class MAEStage(Stage):
  """Targets and importance come from the frozen tokenizer, from its stored results, or, with
  `target=pixels`, from the clip itself."""

  roles = ("tokenizer", "targets", "encoder")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self._check()
    export = setting.export("tokenizer", "tokenizer")
    self.tokenizer = TokenizerConfig(**export.model) if export else None
    self.stored = setting.export("targets", "targets")
    given = encoders.encoder_input(setting)
    encoder = encoders.encoder_config(setting.config, self.config.data, given)
    encoder = encoders.of_all_tokens(encoder)
    self.encoder = dataclasses.replace(encoder, cls=False)  # the decoder has no place for it
    self.layout = self.encoder.layout
    self._check_targets()
    self.model = MAE(
      self.encoder,
      DecoderConfig.of(setting.config.model.size, depth=setting.config.model.decoder_depth),
      self.layout.channels if self.config.target == "pixels" else len(self.levels),
      encoders.execution(setting.config, self.dtype),
    )

  def _check(self) -> None:
    place = f"config.{self.name}"
    configs.choose(VISIBLE, self.config.encoder_mask.kind, f"{place}.encoder_mask.kind")
    configs.choose(ASKED, self.config.decoder_budget.kind, f"{place}.decoder_budget.kind")
    configs.choose(dict.fromkeys(TARGETS), self.config.target, f"{place}.target")
    configs.choose(dict.fromkeys(IMPORTANCES), self.config.importance, f"{place}.importance")

  def _check_targets(self) -> None:
    given = self.tokenizer or self.stored
    if (self._latent or self._learned) and not given:
      raise UserError(
        f"config.{self.name}.target={self.config.target!r} with importance="
        f"{self.config.importance!r} needs config.{self.name}.inputs.tokenizer (or .targets)."
      )
    if self.tokenizer:
      self.tokenizer.grid(self.encoder.frames, self.encoder.size, self.encoder.size)
      tubelet = self.tokenizer.tubelet
    else:
      tubelet = tuple(self.stored.model["tubelet"]) if self.stored else self.encoder.tubelet
    if tubelet != self.encoder.tubelet:
      raise UserError(
        f"config.model.tubelet={self.encoder.tubelet} differs from the tokenizer's {tubelet}; "
        "a token must stand for the same pixels in both."
      )
    mask, mixing = self.config.encoder_mask.kind, self.encoder.mixing
    if mixing != "joint" and mask != "tube":
      raise UserError(
        f"config.{self.name}.encoder_mask.kind={mask!r} with an encoder of mixing={mixing!r}, "
        "which takes as many tokens of each frame; use kind=tube."
      )
    if self.stored:
      check_stored(self.name, self.config.data, self.stored)

  def notes(self) -> list[str]:
    """What of an encoder that it begins with is left out."""
    return encoders.notes(encoders.encoder_input(self.setting))

  @property
  def _latent(self) -> bool:
    return self.config.target == "latent"

  @property
  def _learned(self) -> bool:
    adaptive = self.config.decoder_budget.kind == "adaptive"
    return adaptive and self.config.importance == "tokenizer"

  @property
  def _tokenizes(self) -> bool:
    """Whether the tokenizer is a part of the step."""
    return not self.stored and (self._latent or self._learned)

  @property
  def levels(self) -> tuple[int, ...]:
    """Levels of the latent's dimensions."""
    return tuple(self.tokenizer.levels if self.tokenizer else self.stored.model["levels"])

  def inputs(self) -> dict[str, Stream]:
    """Clips, with their stored targets where there are such."""
    return {"clip": self._stream(self.source, "train")}

  def _stream(self, source: Any, split: str) -> Stream:
    # The store lies beside the export that names it.
    if not self.stored:
      return Stream.of(source, self.config.data, self.config.batch)
    stored = str(pathlib.Path(self.stored.path).parent / split)
    targets = self.layout.size, len(self.levels)
    return Stream.of(source, self.config.data, self.config.batch, targets=targets, stored=stored)

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: encoder and decoder."""
    patches, one = first_tokens(self.layout)
    return {"model": self.model.init(rng, patches, one, one)["params"]}

  def warm(self) -> dict[str, Params]:
    """The encoder of another pre-training, where one is an input (paper 4.4: K710 first)."""
    return encoders.warm_encoder(self, encoders.encoder_input(self.setting), self.encoder)

  @functools.cached_property
  def frozen(self) -> dict[str, Params]:
    """The encoding half of the tokenizer, where it is a part of the step."""
    if not self._tokenizes:
      return {}
    params = self.setting.inputs["tokenizer"].params
    return {"tokenizer": {part: params[part] for part in ENCODING}}

  def tokens(self) -> int:
    """Visible tokens of a clip."""
    keys = jax.random.split(jax.random.key(0), 1)
    return jax.eval_shape(lambda: self._visible(keys)).shape[1]

  def asked(self) -> int:
    """Tokens of a clip that the decoder is asked for."""
    importance = jax.ShapeDtypeStruct((1, self.layout.size), jnp.float32)
    video = jax.ShapeDtypeStruct((1, *self.layout.video, 3), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 1)
    return jax.eval_shape(self._asked, keys, importance, video).shape[1]

  def model_flops(self) -> int:
    """Encoder and decoder trained, on visible and asked tokens; the tokenizer, if any, forward."""
    visible, asked = self.tokens(), self.asked()
    trained = flops.encoder(self.encoder, visible) + flops.decoder(
      self.encoder, self.model.decoder, self.model.target_dim, visible, asked
    )
    frozen = 0
    if self._tokenizes:
      frozen = flops.targets(self.tokenizer, self.encoder.frames, self.encoder.size)
    return self.config.batch * (flops.TRAINED * trained + frozen)

  def targets(
    self, frozen: dict[str, Params], clip: Batch
  ) -> tuple[Float[Array, "B N d"] | None, Float[Array, "B N"] | None]:
    """Latents of all tokens and the importance of each, whichever are needed."""
    if self.stored:
      return fsq.latents_of_codes(clip["codes"], self.levels), clip["importance"]
    if self._tokenizes:
      found = tokenize_clip(self.tokenizer, frozen["tokenizer"], clip["video"], self.dtype)
      found = jax.lax.stop_gradient(found)
      return found.latent, found.importance
    return None, None

  def _visible(self, keys: Key[Array, "B"]) -> Int[Array, "B K"]:
    mask = self.config.encoder_mask
    return VISIBLE[mask.kind](keys, self.layout, mask.ratio)

  def _asked(self, keys: Key[Array, "B"], importance: Any, video: UInt8[Array, "B T H W 3"]):
    budget = self.config.decoder_budget
    if budget.kind == "adaptive" and self.config.importance == "difference":
      importance = token_difference(tubelets(video, self.layout), self.layout)
    return ASKED[budget.kind](keys, self.layout, importance, budget)

  def predict(
    self, params: Params, frozen: dict[str, Params], clip: Batch, rng: jax.Array, rows: Any
  ) -> "Prediction":
    """What the network sees and says of a batch; rows fold into the keys of its masks."""
    latents, importance = self.targets(frozen, clip)
    visible = self._visible(row_keys(rng, "visible", rows))
    asked = self._asked(row_keys(rng, "asked", rows), importance, clip["video"])
    patches = gather_tubelets(clip["video"], self.layout, visible)  # no other is ever embedded
    predicted = self.model.apply({"params": params}, patches, visible, asked)
    if self._latent:
      target, static = gather_tokens(latents, asked), still(latents, self.layout, asked)
    else:
      target = pixel_targets(clip["video"], self.layout, asked)
      static = None
    # No loss on what the encoder has seen, nor on rows that are padding.
    weight = ~contains(visible, asked, self.layout.size) & clip["valid"][:, None]
    return Prediction(visible, asked, predicted, target, static, weight)

  def loss(
    self, params: Params, frozen: dict[str, Params], extra: Any, batch: Batch, rng: jax.Array
  ):
    """Mean squared error over the tokens that were asked for and not seen (Eq. 1-2)."""
    clip = batch["clip"]
    found = self.predict(params, frozen, clip, rng, clip["row"])
    total, weight = masked_mse(found.predicted, found.target, found.weight)
    return total, weight, {}, extra

  def evaluators(self) -> list[Evaluator]:
    """The loss on validation clips beside two that cost nothing, and pictures of the tokens."""
    rng = jax.random.key(0)

    def predict(params, frozen, clip):
      found = self.predict(params, frozen, clip, rng, clip["record"])
      outputs = {"loss": _rows(found.predicted, found)}
      # Of the batch's own targets, so a little below what a constant could reach.
      mean = jnp.sum(found.target * found.weight[..., None], (0, 1)) / jnp.sum(found.weight)
      outputs["loss_of_mean"] = _rows(jnp.broadcast_to(mean, found.target.shape), found)
      if found.static is not None:
        outputs["loss_of_static_scene"] = _rows(found.static, found)
      return {"means": outputs, "tokens": self._seen(found, clip["video"])}

    stream = self._stream(self.eval_source, "validation")
    collector = lambda: Several({"means": Means(), "tokens": KeptTokens(self.layout)})
    return [Evaluator("validation", stream, predict, collector)]

  def _seen(self, found: "Prediction", video: Any) -> Batch:
    marks = lambda chosen: jnp.zeros((len(chosen), self.layout.size), bool).at[
      jnp.arange(len(chosen))[:, None], chosen
    ].set(True)
    return {
      "frames": video[:, :: self.layout.tubelet[0]],
      "visible": marks(found.visible),
      "asked": marks(found.asked),
    }

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """Encoder and decoder."""
    model = {
      "encoder": dataclasses.asdict(self.encoder),
      "decoder": dataclasses.asdict(self.model.decoder),
      "target_dim": self.model.target_dim,
      "target": self.config.target,
    }
    return "mae", model, params


@dataclasses.dataclass(frozen=True)
class Prediction:
  """visible int32[B, K]; asked int32[B, M]; predicted, target and static float32[B, M, C] (static:
  the target if nothing moved, or None); weight bool[B, M]."""

  visible: jax.Array
  asked: jax.Array
  predicted: jax.Array
  target: jax.Array
  static: jax.Array | None
  weight: jax.Array


def still(
  latents: Float[Array, "B N d"], layout: Layout, asked: Int[Array, "B M"]
) -> Float[Array, "B M d"]:
  """What a scene that does not change predicts: the mean over time of each place's latent."""
  by_frame = latents.reshape(len(latents), layout.grid[0], layout.per_frame, -1)
  return gather_tokens(by_frame.mean(1), asked % layout.per_frame)


def _rows(predicted: Float[Array, "B M C"], found: Prediction):
  """(sum [B], weight [B]) of each row's squared error."""
  error = jnp.square(predicted - found.target).mean(-1)
  return jnp.sum(error * found.weight, 1), jnp.sum(found.weight, 1).astype(jnp.float32)
