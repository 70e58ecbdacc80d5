"""What is trained already, from a folder: `vfe.load`, and the exports it reads."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vfe.config import nearest
from vfe.errors import UserError
from vfe.interop import bert, clip, resnet, siglip, videomae, vit
from vfe.interop import vivit as hf_vivit
from vfe.learn import exports
from vfe.learn.exports import Export
from vfe.models import fsq, tokenizer, vivit
from vfe.models.tokenizer import TokenizerConfig, Tokens
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.tokens.layout import Layout
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

HUGGING_FACE = {  # by model_type
  "bert": bert.read_export,
  "clip": clip.read_export,
  "clip_vision_model": clip.read_export,
  "resnet": resnet.read_export,
  "siglip": siglip.read_export,
  "siglip_vision_model": siglip.read_export,
  "videomae": videomae.read_export,
  "vit": vit.read_export,
  "vivit": hf_vivit.read_export,
}


def load(path: str | pathlib.Path, *, dtype: str = "float32") -> "Encoder | Tokenizer":
  """Opens what a stage has trained, or a Hugging Face VideoMAE folder.

  Args:
    path: a finished stage's folder (`runs/x/pretrain`), an export (`runs/x/pretrain/export`), or
      a local folder with config.json and model.safetensors.
    dtype: of activations and products; parameters and results are float32.

  Raises:
    UserError: nothing to load there, or something without a video encoder or tokenizer in it.
  """
  export = read(pathlib.Path(path).expanduser())
  if export.kind not in OPENERS:
    raise UserError(f"{path} holds a {export.kind}; vfe.load opens {', '.join(OPENERS)}.")
  return OPENERS[export.kind](export, dtype)


def read(folder: pathlib.Path) -> Export:
  """`find`, or an error that says what is there instead."""
  export = find(folder)
  if export is None:
    raise UserError(f"{folder}: {_what_is_there(folder)}")
  return export


def find(folder: pathlib.Path) -> Export | None:
  """The export in the folder or in its `export`, or the Hugging Face model, or None."""
  for place in (folder, folder / "export"):
    if exports.is_export(place):
      return exports.read(place)
  return read_hugging_face(folder) if (folder / "config.json").is_file() else None


def read_hugging_face(folder: pathlib.Path) -> Export:
  """A Hugging Face folder as an export, by its `model_type`.

  Raises:
    UserError: a model_type that vfe cannot read, or what the reader does not take.
  """
  try:
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
  except (ValueError, AttributeError) as error:
    raise UserError(f"{folder}/config.json is not a JSON object ({error}).") from None
  if kind not in HUGGING_FACE:
    raise UserError(
      f"{folder}/config.json: model_type={kind!r} cannot be read ({nearest(kind, HUGGING_FACE)})."
    )
  kind, model, params = HUGGING_FACE[kind](folder)
  return Export(kind, model, params, exports.digest(params), str(folder))


def _what_is_there(folder: pathlib.Path) -> str:
  if not folder.is_dir():
    return "no such folder."
  finished = sorted(p.parent.parent.name for p in folder.glob(f"*/export/{exports.FILE}"))
  if finished:
    return f"holds the stages {', '.join(finished)}; name one, such as {folder / finished[-1]}."
  return (
    f"neither an {exports.FILE} (made when a stage finishes) nor a Hugging Face config.json in it."
  )


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
    config = dataclasses.replace(config, final_norm="norm" in export.params["encoder"])
    params = jax.device_put(export.params)
    return cls(config, params, export.kind, export.model, export.path, dtype)

  def resized(self, frames: int | None = None, size: int | None = None) -> "Encoder":
    """The same parameters for clips of another length or another number of pixels.

    Positions are computed for the new layout; what was not trained at it may do worse.
    """
    config = dataclasses.replace(
      self.config, frames=frames or self.config.frames, size=size or self.config.size
    )
    Layout.of_video(config.frames, config.size, config.tubelet)  # an error now, not in a call
    return dataclasses.replace(self, config=config)

  @property
  def classes(self) -> dict[str, tuple[str, ...]]:
    """The names of the classes of every head; empty without heads."""
    return {head: tuple(names) for head, names in self.model.get("classes", {}).items()}

  def encode(self, video: Any, selection: Any = None) -> Float[Array, "B K D"]:
    """Tokens in (t, y, x) order, float32.

    Args:
      video: uint8[B, frames, size, size, 3], RGB.
      selection: int32[B, K], sorted indices of the tokens to encode: the others are not embedded
        and nobody attends to them. Default: all N.

    Raises:
      UserError: a video of another type or shape.
    """
    return self._encode(self.params, *self._checked(video, selection))

  def pooled(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """One vector a clip, float32: what a classifier's heads see, else the mean of the tokens."""
    return self._pooled(self.params, *self._checked(video, selection))

  def classify(self, video: Any, selection: Any = None) -> dict[str, Float[Array, "B C"]]:
    """Probabilities of the classes of every head, in the order of `classes`.

    Raises:
      UserError: this is not a classifier.
    """
    if self.kind != "classifier":
      raise UserError(
        f"{self.path} holds a {self.kind}, which has no classes; train a stage of kind classify."
      )
    return self._classify(self.params, *self._checked(video, selection))

  def _checked(self, video: Any, selection: Any) -> tuple[Any, Any]:
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
  def _pooled(self):
    return jax.jit(lambda params, *inputs: self._pool(params, self._tokens(params, *inputs)))

  @functools.cached_property
  def _classify(self):
    def classify(params, *inputs):
      pooled = self._pool(params, self._tokens(params, *inputs))
      heads = {name: params[f"head_{name}"] for name in self.model["heads"]}
      return {n: jax.nn.softmax(pooled @ h["kernel"] + h["bias"]) for n, h in heads.items()}

    return jax.jit(classify)

  def _tokens(self, params, video, selection):
    module = vivit.Encoder(self.config, Execution(dtype=self.dtype))
    patches = gather_tubelets(video, self.config.layout, selection)
    return module.apply({"params": params["encoder"]}, patches, selection)

  def _pool(self, params, tokens):
    if self.kind != "classifier":
      return tokens.astype(jnp.float32).mean(1)
    pool = vivit.POOLS[self.model["pool"]](self.config, self.dtype)
    return pool.apply({"params": params["pool"]}, tokens).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A trained adaptive tokenizer. Clips of any number of windows go through it one at a time.

  config  the `vfe.models.tokenizer.TokenizerConfig`; .window frames make a window
  params  of `vfe.models.tokenizer.Tokenizer`
  path    where it was loaded from
  """

  config: TokenizerConfig
  params: Any
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "Tokenizer":
    """The tokenizer in an export."""
    params = jax.device_put(export.params)
    return cls(TokenizerConfig(**export.model), params, export.path, dtype)

  def encode(self, video: Any) -> Tokens:
    """Codes, latents and importance of every token of uint8[B, T, H, W, 3].

    Raises:
      UserError: not such a video, or T is no multiple of the window.
    """
    return self._encode(self.params, _checked_video(video))

  def decode(self, codes: Any, size: int | tuple[int, int]) -> UInt8[Array, "B T H W 3"]:
    """The video that codes uint8[B, N, d] stand for.

    Args:
      codes: as `encode` gives them.
      size: pixels of a side, or (height, width).

    Raises:
      UserError: N is no whole number of windows at that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    grid = self.config.grid(self.config.window, height, width)
    per_window = grid[0] * grid[1] * grid[2]
    if codes.shape[1] % per_window or not codes.shape[1]:
      raise UserError(
        f"{codes.shape[1]} tokens are no whole number of windows: one of {height}x{width} pixels "
        f"has {per_window}; give the size that the codes were made at."
      )
    return self._decode(self.params, jnp.asarray(codes), grid)

  def reconstruct(
    self, video: Any, *, masked: bool = True
  ) -> tuple[UInt8[Array, "B T H W 3"], Float[Array, "B t h w"]]:
    """The video from its kept tokens, and one where a token was kept.

    masked=False draws from all tokens, as `decode(encode(video).codes, ...)` does.
    """
    return self._reconstruct(self.params, _checked_video(video), masked)

  @functools.cached_property
  def _encode(self):
    def encode(params, video):
      return tokenizer.tokenize_clip(self.config, params, video, self.dtype)

    return jax.jit(encode)

  @functools.cached_property
  def _reconstruct(self):
    def reconstruct(params, video, masked):
      return tokenizer.reconstruct_clip(self.config, params, video, masked, self.dtype)

    return jax.jit(reconstruct, static_argnums=2)

  @functools.cached_property
  def _decode(self):
    module = tokenizer.Tokenizer(self.config, self.dtype)

    def decode(params, codes, grid):
      latent = fsq.latents_of_codes(codes, self.config.levels)
      windows = latent.reshape(len(codes), -1, *grid, self.config.channels)
      one = lambda window: module.apply({"params": params}, window, method="decode")
      drawn = jax.lax.map(lambda w: tokenizer.to_uint8(one(w)), jnp.moveaxis(windows, 1, 0))
      video = jnp.moveaxis(drawn, 0, 1)
      return video.reshape(len(codes), -1, *video.shape[3:])

    return jax.jit(decode, static_argnums=2)


def _checked_video(video: Any) -> Array:
  if video.dtype != jnp.uint8 or video.ndim != 5 or video.shape[-1] != 3:
    raise UserError(f"the video is {video.dtype}{list(video.shape)}; give uint8[B, T, H, W, 3].")
  return jnp.asarray(video)


OPENERS = {
  "encoder": Encoder.of,
  "mae": Encoder.of,
  "classifier": Encoder.of,
  "tokenizer": Tokenizer.of,
}
