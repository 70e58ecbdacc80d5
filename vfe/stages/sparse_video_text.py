"""Training of SViTT and SViTT-Ego: a sparse video encoder and a text encoder, together.

Three losses: clips and narrations find each other in the batch (EgoNCE, or InfoNCE), a reader of
both judges whether they match, and says which words were hidden (SViTT-Ego, section 3).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vfe import config as configs
from vfe.data.narration import Narration
from vfe.data.streams import Stream
from vfe.data.text import Text
from vfe.evaluate.evaluator import Evaluator
from vfe.learn.state import Params, State
from vfe.learn.step import Metrics, apply, cached_gradients, gradients
from vfe.learn.trained import Trained
from vfe.models import contrastive, flops
from vfe.models.egonce import egonce, egonce_positives
from vfe.models.frozen import first_tokens
from vfe.models.masked_words import Masking, hide, masked_words_loss
from vfe.models.matching import hard_negatives, matching_loss
from vfe.models.svitt import Svitt
from vfe.nn.random import key, row_keys
from vfe.stages import fused, measured, pictured, towers
from vfe.stages.encoder import execution
from vfe.stages.stage import Batch, Setting, Stage, mean
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

CONTRASTS = ("egonce", "info_nce")


class SparseVideoTextStage(Stage):
  """With `neighbours`, every second row of a batch is a clip of the scene of the one before it."""

  roles = ("encoder", "text", "vocabulary")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    configs.choose(dict.fromkeys(CONTRASTS), self.config.contrast, f"config.{self.name}.contrast")
    self.words = towers.words(setting)
    self.svitt = fused.svitt_config(setting, self.config, self.words.size)
    self.vision = self.svitt.vision
    self.masking = Masking(
      self.words.id("[MASK]"), self.words.size, (self.words.id("[CLS]"),), self.config.hidden
    )
    run = execution(setting.config, self.dtype)
    text = dataclasses.replace(run, attention="auto")
    self.model = Svitt(
      self.svitt, dataclasses.replace(run, drop_path=self.config.drop_path), text
    )
    self.tested = Svitt(self.svitt, run, text)

  # Data.

  def inputs(self) -> dict[str, Stream]:
    """Clips with their narrations, and the nouns and verbs that these are about."""
    data = self.config.data
    taxonomy = getattr(self.source, "taxonomy", {})
    text = Narration(
      self.words.source, data.text.length, data.text.key, clean=data.text.clean, **taxonomy
    )
    stream = Stream.of(
      self.source, data, self.config.batch, text=text, neighbours=self.config.neighbours
    )
    return {"clip": stream}

  def text_of(self, data: Any, key: str, captions: int = 1) -> Text:
    """How texts are read."""
    return Text(self.words.source, data.text.length, key, captions, data.text.clean)

  # State.

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """One group: both encoders, what reads both, the heads, the temperature."""
    patches, chosen = first_tokens(self.vision.layout)
    words = jnp.zeros((1, 1), jnp.int32)
    return {"model": self.tested.init(rng, patches, chosen, words, words == 0)["params"]}

  def warm(self) -> dict[str, Params]:
    """What the inputs have of it."""
    return {"model": fused.warm(self.setting, self.svitt)}

  def trained(self, group: str) -> Trained:
    """Everything, or all but the temperature."""
    return Trained(".*") if self.config.learn_temperature else Trained("^(?!log_scale$)")

  # A step.

  def embed(self, params: Params, batch: Batch, rng: jax.Array) -> dict[str, jax.Array]:
    """Tokens of clips, of their narrations, and of these with words hidden. Pure."""
    clip, run = batch["clip"], functools.partial(self.model.apply, {"params": params})
    chosen = everything(len(clip["video"]), self.vision.layout.size)
    patches = gather_tubelets(clip["video"], self.vision.layout, chosen)
    path = row_keys(rng, "path", clip["row"])
    found = {
      "video": run(patches, chosen, path, key(rng, "edges"), method="tokens_of_video"),
      "words": self._words(run, clip["text"]["ids"], clip["text"]["mask"]),
    }
    if self.config.weights.words:
      found["hidden"] = self._words(run, self._hidden(clip, rng)[0], clip["text"]["mask"])
    return found

  def _words(self, run, ids, mask):
    return run(ids, mask, method="tokens_of_text")

  def _hidden(self, clip: Batch, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
    return hide(rng, clip["text"]["ids"], clip["text"]["mask"], clip["row"], self.masking)

  def score(
    self, params: Params, embedded: dict[str, jax.Array], extra: Any, batch: Batch, rng: jax.Array
  ) -> tuple[jax.Array, jax.Array, Metrics, Any]:
    """(sum, weight 1, metrics, extra): the mean of each loss by its weight. Pure."""
    clip, run = batch["clip"], functools.partial(self.model.apply, {"params": params})
    scale = contrastive.scale_of(params["log_scale"])
    video = run(embedded["video"], method="embed_video")
    text = run(embedded["words"], method="embed_text")
    positives = self._positives(clip["text"])
    losses = {"contrast": self._contrast(video, text, scale, positives, clip["valid"])}
    if self.config.weights.match or self.config.weights.words:
      losses |= self._read(run, embedded, (video, text, scale, positives), clip, rng)
    total, metrics = jnp.float32(0), {}
    for name, (summed, weight, found) in losses.items():
      metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
      metrics[f"{name}/loss"] = (summed, weight)
      total += self.config.weights[name] * summed / jnp.maximum(weight, 1.0)
    metrics["scale"] = (scale, jnp.float32(1))
    return total, jnp.float32(1), metrics, extra

  def _positives(self, text: Batch) -> jax.Array:
    """Pairs that are no negatives of each other: of one clip, or with EgoNCE of one action."""
    nouns, verbs = text["nouns"], text["verbs"]
    if self.config.contrast == "info_nce":
      nouns = jnp.zeros_like(nouns)
    return egonce_positives(nouns, verbs, text["clip"])

  def _contrast(self, video, text, scale, positives, valid) -> contrastive.Loss:
    if self.config.contrast == "egonce":
      return egonce(video, text, scale, positives, valid=valid)
    return contrastive.info_nce(video, text, scale, valid=valid)

  def _read(self, run, embedded, sides, clip: Batch, rng: jax.Array) -> dict[str, Any]:
    """The losses of what reads a text and a clip together, of all pairs at once."""
    asked, mask, valid = self.config.weights, clip["text"]["mask"], clip["valid"]
    pairs, negatives = [], None
    if asked.match:
      negatives = hard_negatives(rng, *sides, clip["row"], valid=valid)
      words, video = embedded["words"], embedded["video"]
      pairs += [
        (words, mask, video),
        (words, mask, video[negatives.video]),
        (words[negatives.text], mask[negatives.text], video),
      ]
    if asked.words:
      pairs.append((embedded["hidden"], mask, embedded["video"]))
    # The pairs of a row stay beside each other, and so on its device.
    joined = (jnp.stack(parts, 1) for parts in zip(*pairs, strict=True))
    keys = jnp.repeat(row_keys(rng, "fused", clip["row"]), len(pairs))
    read = run(*(x.reshape(-1, *x.shape[2:]) for x in joined), keys, method="fuse")
    read = read.reshape(len(mask), len(pairs), *read.shape[1:]).swapaxes(0, 1)
    found = {}
    if asked.match:
      judged = (run(of, method="match") for of in read[:3])
      found["match"] = matching_loss(*judged, negatives.has, valid=valid)
    if asked.words:
      logits = run(read[-1], method="words")
      hidden = self._hidden(clip, rng)[1]
      found["words"] = masked_words_loss(logits, clip["text"]["ids"], hidden, valid=valid)
    return found

  def step(
    self, state: State, frozen: dict[str, Params], batch: Batch, rng: jax.Array
  ) -> tuple[State, Metrics]:
    """One update; `accumulate` parts are encoded one after another, twice."""
    params, update = state.groups["model"].params, self.updates["model"]
    parts, trained = self.config.accumulate, update.trained
    embed = lambda params, batch: self.embed(params, batch, rng)
    score = functools.partial(self.score, rng=rng)
    if parts == 1:
      loss = lambda params, extra, batch: score(params, embed(params, batch), extra, batch)
      found = gradients(loss, params, state.extra, batch, trained=trained)
    else:
      found = cached_gradients(
        embed, score, params, state.extra, batch, parts=parts, trained=trained
      )
    state, norms = apply(state, "model", found.grads, found.loss, update)
    state = state.replace(step=state.step + 1, extra=found.extra)
    return state, {"loss": mean(found), **found.metrics, **norms}

  def tokens(self) -> int:
    """Tokens of a clip that enter."""
    return self.vision.layout.size

  def model_flops(self) -> int:
    """Both encoders, and what reads both, forward and backward."""
    asked = self.config.weights
    read = 3 * bool(asked.match) + bool(asked.words)
    return flops.TRAINED * self.config.batch * flops.svitt(
      self.svitt, self.config.data.text.length, texts=1 + bool(asked.words), read=read,
      words=bool(asked.words),
    )  # fmt: skip

  # Results.

  def embed_clips(self, params: Params, video: jax.Array) -> jax.Array:
    """Embeddings float32[B, W]; edges are the same whenever it is called."""
    tokens = self._tokens(params, video)
    return self.tested.apply({"params": params}, tokens, method="embed_video")

  def embed_texts(self, params: Params, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Embeddings float32[B, W]."""
    run = functools.partial(self.tested.apply, {"params": params})
    return run(run(ids, mask, method="tokens_of_text"), method="embed_text")

  def judge(
    self, params: Params, video: jax.Array, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """How likely each of the texts [B, C, L] is to tell of its clip: log-odds, float32[B, C]."""
    run = functools.partial(self.tested.apply, {"params": params})
    tokens = self._tokens(params, video)

    def one(text):
      ids, mask = text
      return run(run(run(ids, mask, method="tokens_of_text"), mask, tokens, method="fuse"),
                 method="match")  # fmt: skip

    logits = jax.lax.map(one, (ids.swapaxes(0, 1), mask.swapaxes(0, 1)))
    return (logits[..., 1] - logits[..., 0]).T

  def _tokens(self, params: Params, video: jax.Array) -> jax.Array:
    chosen = everything(len(video), self.vision.layout.size)
    patches = gather_tubelets(video, self.vision.layout, chosen)
    return self.tested.apply({"params": params}, patches, chosen, method="tokens_of_video")

  def evaluators(self) -> list[Evaluator]:
    """Each of `measures` whose data are named, and pictures of the tokens of the first."""
    found = measured.measures(self)
    return [*found, pictured.pruned_tokens(self, found[0].name)] if found else []

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """All networks, and how texts are read."""
    text = self.config.data.text
    model = {
      "svitt": dataclasses.asdict(self.svitt),
      "encoder": dataclasses.asdict(self.vision),
      "length": text.length,
      "clean": text.clean,
    }
    return "svitt", model, params

  def files(self) -> dict[str, str]:
    """The vocabulary, by which the export's texts are read."""
    return {"tokenizer.json": self.words.text}
