"""The adaptive tokenizer (LVMAE 3.3): pixels, perception, GAN and R1, MAGVIT's recipe."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vfe.data.streams import Stream
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.reconstruction import Reconstructions
from vfe.learn.state import Params, State
from vfe.learn.step import Metrics, apply, gradients
from vfe.models import flops, fsq
from vfe.models.discriminator import (
  Discriminator,
  DiscriminatorConfig,
  discriminator_loss,
  generator_loss,
  logits_and_r1,
)
from vfe.models.resnet import ResNetConfig, perceptual
from vfe.models.tokenizer import (
  Tokenizer,
  TokenizerConfig,
  from_uint8,
  reconstruct_clip,
  tokenize_clip,
)
from vfe.nn.random import key
from vfe.stages.stage import Batch, Setting, Stage, mean


class TokenizerStage(Stage):
  """Two groups, generator and discriminator, both updated from the state before the step."""

  roles = ("perceptual",)

  def __init__(self, setting: Setting):
    super().__init__(setting)
    self.tokenizer = TokenizerConfig(**self.config.model.to_dict())
    data = self.config.data
    self.tokenizer.grid(data.frames, data.size, data.size)
    self.generator = Tokenizer(self.tokenizer, self.dtype)
    self.discriminator = Discriminator(
      DiscriminatorConfig(**self.config.discriminator.to_dict()), self.dtype
    )
    self.judge = setting.export("perceptual", "resnet")

  def notes(self) -> list[str]:
    """That there is no perceptual loss, where none was asked for."""
    if self.judge is not None:
      return []
    given = f"config.{self.name}.inputs.perceptual"
    return [f"no {given} (a ResNet-50 folder), so the perceptual loss is off"]

  def inputs(self) -> dict[str, Stream]:
    """Clips of one window."""
    return {"clip": self._stream(self.source)}

  def _stream(self, source: Any) -> Stream:
    window = self.tokenizer.window
    return Stream.of(source, self.config.data, self.config.batch, frames=window)

  def init(self, rng: jax.Array) -> dict[str, Params]:
    """Generator (with the scorer) and discriminator."""
    size = self.config.data.size
    video = jnp.zeros((1, self.tokenizer.window, size, size, 3), jnp.float32)
    init = lambda module, name: module.init(key(rng, name), video)["params"]
    return {
      "generator": init(self.generator, "generator"),
      "discriminator": init(self.discriminator, "discriminator"),
    }

  def optimizer_config(self, group: str) -> Any:
    """Generator and discriminator have a section each."""
    config = self.config
    return config.discriminator_optimizer if group == "discriminator" else config.optimizer

  @property
  def averages(self) -> dict[str, float]:
    """MAGVIT averages the generator."""
    return {"generator": self.config.ema} if self.config.ema else {}

  @functools.cached_property
  def frozen(self) -> dict[str, Params]:
    """The perceptual network, where there is one."""
    return {"perceptual": self.judge.params} if self.judge else {}

  def loss(
    self, params: dict[str, Params], frozen: dict[str, Params], extra: Any, batch: Batch, rng: Any
  ):
    """The losses of both groups in one sum: each reaches its own group's parameters only."""
    del rng
    clip, weights = batch["clip"], self.config.loss
    real = from_uint8(clip["video"])
    drawn = self.generator.apply({"params": params["generator"]}, real)
    judge = lambda group: lambda video: self.discriminator.apply({"params": group}, video)

    rows = {"pixel": jnp.square(drawn.video - real).mean((1, 2, 3, 4))}
    if self.judge:
      rows["perceptual"] = perceptual(
        ResNetConfig(**self.judge.model), frozen["perceptual"], real, drawn.video, self.dtype
      )
    fixed = jax.lax.stop_gradient(params["discriminator"])
    rows["adversarial"] = generator_loss(judge(fixed)(drawn.video))

    trained = judge(params["discriminator"])
    real_logits, r1 = logits_and_r1(trained, real)
    fake_logits = trained(jax.lax.stop_gradient(drawn.video))
    rows["discriminator"] = discriminator_loss(real_logits, fake_logits)
    rows["r1"] = r1

    total = sum(weights[name] * values for name, values in rows.items())
    valid = clip["valid"].astype(jnp.float32)
    over_rows = lambda values: (jnp.sum(values * valid), jnp.sum(valid))
    metrics = {f"loss/{name}": over_rows(values) for name, values in rows.items()}
    metrics["psnr"] = over_rows(-10 * jnp.log10(jnp.maximum(rows["pixel"], 1e-10)))
    return *over_rows(total), metrics, extra

  def step(
    self, state: State, frozen: dict[str, Params], batch: Batch, rng: jax.Array
  ) -> tuple[State, Metrics]:
    """One update of both groups; metrics are of the state before it."""

    def loss(params, extra, part):
      return self.loss(params, frozen, extra, part, rng)

    params = {name: group.params for name, group in state.groups.items()}
    found = gradients(loss, params, state.extra, batch, accumulate=self.config.accumulate)
    metrics = {"loss": mean(found), **found.metrics}
    for name in params:
      update = self.updates[name]
      grads = update.trained.of(found.grads[name])
      state, norms = apply(state, name, grads, found.loss, update)
      metrics |= norms
    return state.replace(step=state.step + 1, extra=found.extra), metrics

  def model_flops(self) -> int:
    """Generator, discriminator with R1, and the perceptual network on both clips, if there is."""
    size = self.config.data.size
    a_clip = flops.gan_step(self.tokenizer, self.discriminator.config, size)
    if self.judge:
      a_look = flops.perceptual(ResNetConfig(**self.judge.model), self.tokenizer.window)
      a_clip += (1 + flops.PASSED) * a_look  # the real one forward, the drawn one passed
    return self.config.batch * a_clip

  def evaluated(self, state: State) -> Params:
    """The averaged generator."""
    return state.averaged("generator")

  def evaluators(self) -> list[Evaluator]:
    """PSNR from the kept tokens and from all, how much of the codebook is used, pictures."""

    def predict(params, frozen, clip):
      run = functools.partial(reconstruct_clip, self.tokenizer, params, clip["video"])
      drawn, mask = run(masked=True, dtype=self.dtype)
      drawn_from_all, _ = run(masked=False, dtype=self.dtype)
      codes = tokenize_clip(self.tokenizer, params, clip["video"], self.dtype).codes
      return {
        "video": clip["video"],
        "drawn": drawn,
        "drawn_from_all": drawn_from_all,
        "mask": mask,
        "codes": fsq.indices_of_codes(codes, self.tokenizer.levels),
      }

    stream = self._stream(self.eval_source)
    collector = lambda: Reconstructions(self.tokenizer.levels)
    return [Evaluator("validation", stream, predict, collector)]

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """The averaged generator with its scorer."""
    return "tokenizer", dataclasses.asdict(self.tokenizer), params
