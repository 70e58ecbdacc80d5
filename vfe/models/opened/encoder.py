"""A trained video encoder, opened: videos to tokens, vectors and classes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models import classifier, vivit
from vfe.models.inflate import positions, relative_tables
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
  """A trained video encoder: tokens, one vector a clip, and, of a classifier, its classes.

  config  the `vfe.models.vivit.EncoderConfig`; .frames and .size are those of the clips it takes
  params  the export's parameters; params["encoder"] are those of `vfe.models.vivit.Encoder`
  kind    "mae", "encoder" or "classifier"
  model   the export's model config, plain JSON
  path    where it was loaded from
  """

  config: EncoderConfig
  params: Any
  kind: str
  model: dict[str, Any]
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "Encoder":
    """The encoder in an export."""
    config = EncoderConfig.from_dict(export.model["encoder"])
    # Mean pooling takes the tokens before the final norm, so such a classifier has none.
    has = {name: name in export.params["encoder"] for name in ("norm", "cls")}
    config = dataclasses.replace(
      config, final_norm=has["norm"], cls=config.cls and has["cls"]
    )
    params = jax.device_put(export.params)
    return cls(config, params, export.kind, export.model, export.path, dtype)

  def resized(self, frames: int | None = None, size: int | None = None) -> "Encoder":
    """The same parameters for clips of another length or another number of pixels.

    Fixed positions are computed for the new layout, learned ones interpolated: linearly in time,
    bicubically over the picture; relative ones as `vfe.models.inflate.relative_tables`. What was
    not trained at it may do worse.

    Raises:
      UserError: the tubelet does not divide such clips.
    """
    config = dataclasses.replace(
      self.config, frames=frames or self.config.frames, size=size or self.config.size
    )
    have, want, params = self.config.layout, config.layout, self.params
    if have != want and config.positions in ("learned", "relative"):
      encoder = params["encoder"]
      if config.positions == "learned":
        change = {"position": positions(encoder["position"], want.grid)}
      else:
        tables = relative_tables(encoder["blocks"]["relative"], have.grid, want.grid)
        change = {"blocks": encoder["blocks"] | {"relative": tables}}
      params = params | {"encoder": encoder | change}
    return dataclasses.replace(self, config=config, params=params)

  @property
  def classes(self) -> dict[str, tuple[str, ...]]:
    """The names of the classes of every head; empty without heads."""
    return {head: tuple(names) for head, names in self.model.get("classes", {}).items()}

  def encode(self, video: Any, selection: Any = None) -> Float[Array, "B K D"]:
    """Tokens in (t, y, x) order, float32, after the class tokens of an encoder that has them.

    There is one of those, so that K tokens become 1 + K, or with mixing="frame" one of every latent
    frame; the last K are always the selected ones, or with pruning those of them that are left.

    Args:
      video: uint8[B, frames, size, size, 3], RGB.
      selection: int32[B, K], sorted indices of the tokens to encode: the others are not embedded
        and nobody attends to them. Default: all N. Unless config.mixing is "joint", as many of
        each latent frame; with tubes, `TubeLayout.shares(K)` of each kernel.

    Raises:
      UserError: a video of another type or shape.
    """
    return self._encode(self.params, *self.checked(video, selection))

  def kept(self, video: Any, selection: Any = None) -> tuple[Int32[Array, "B _"], ...]:
    """Which tokens go on after each of the layers config.pruning.after, as indices into
    config.layout, in order; nothing without pruning. Arguments and errors as `encode`'s."""
    return self._kept(self.params, *self.checked(video, selection))

  def pooled(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """One vector a clip, float32: what a classifier's heads see, else the mean of the tokens.

    Class tokens are no part of a mean.
    """
    return self._pooled(self.params, *self.checked(video, selection))

  def classify(self, video: Any, selection: Any = None) -> dict[str, Float[Array, "B C"]]:
    """Probabilities of the classes of every head, in the order of `classes`.

    Raises:
      UserError: this is not a classifier.
    """
    if self.kind != "classifier":
      raise UserError(
        f"{self.path} holds a {self.kind}, which has no classes; train a stage of kind classify."
      )
    return self._classify(self.params, *self.checked(video, selection))

  def checked(self, video: Any, selection: Any) -> tuple[Array, Array]:
    """A video that the encoder takes and the selection, by default of all tokens.

    Raises:
      UserError: a video of another type or shape.
    """
    frames, size = self.config.frames, self.config.size
    if video.dtype != jnp.uint8 or video.ndim != 5 or video.shape[1:] != (frames, size, size, 3):
      raise UserError(
        f"the video is {video.dtype}{list(video.shape)}; this encoder takes "
        f"uint8[B, {frames}, {size}, {size}, 3] (others: encoder.resized(frames=..., size=...))."
      )
    if selection is None:
      selection = everything(len(video), self.config.layout.size)
    return jnp.asarray(video), jnp.asarray(selection)

  # Parameters are arguments of the programs: as constants they would be copied into each.

  @functools.cached_property
  def _encode(self):
    return jax.jit(lambda *inputs: self._tokens(*inputs).astype(jnp.float32))

  @functools.cached_property
  def _kept(self):
    def kept(params, video, selection):
      sown = self._tokens(params, video, selection, mutable=["intermediates"])[1]
      return sown.get("intermediates", {}).get("kept", ())

    return jax.jit(kept)

  @functools.cached_property
  def _pooled(self):
    return jax.jit(self._pool)

  @functools.cached_property
  def _classify(self):
    def classify(params, *inputs):
      pooled = self._pool(params, *inputs)
      heads = {name: params[f"head_{name}"] for name in self.model["heads"]}
      return {n: jax.nn.softmax(pooled @ h["kernel"] + h["bias"]) for n, h in heads.items()}

    return jax.jit(classify)

  def _tokens(self, params, video, selection, **more):
    module = vivit.Encoder(self.config, Execution(dtype=self.dtype))
    patches = gather_tubelets(video, self.config.layout, selection)
    return module.apply({"params": params["encoder"]}, patches, selection, **more)

  def _pool(self, params, video, selection):
    tokens = self._tokens(params, video, selection)
    classes = self.config.classes()
    if self.kind != "classifier":
      return tokens[:, classes:].astype(jnp.float32).mean(1)
    pool = classifier.POOLS[self.model["pool"]](self.config, self.dtype, classes)
    return pool.apply({"params": params["pool"]}, tokens).astype(jnp.float32)
