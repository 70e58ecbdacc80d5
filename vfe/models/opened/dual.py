"""A video and a text encoder of one space, opened: search by words, and by videos."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models import dual_encoder
from vfe.models.contrastive import normalised
from vfe.models.dual_encoder import DualConfig, vision_tower
from vfe.models.opened.encoder import Encoder
from vfe.models.opened.text import tokenized
from vfe.nn.blocks import Execution
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets


@dataclasses.dataclass(frozen=True, eq=False)
class DualEncoder:
  """What contrastive training leaves. Embeddings are float32 of length 1: products are cosines.

  config  the `vfe.models.dual_encoder.DualConfig`
  params  of `vfe.models.dual_encoder.DualEncoder`
  vision  the video tower alone, an opened `Encoder`
  length  tokens of a text with [CLS] and [SEP]: longer ones are cut
  path    where it was loaded from; its tokenizer.json reads the texts
  """

  config: DualConfig
  params: Any
  vision: Encoder
  length: int
  path: str
  dtype: str = "float32"

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "DualEncoder":
    """Both encoders in an export."""
    vision = Encoder.of(vision_tower(export), dtype)
    config = DualConfig.from_dict(export.model["dual"])
    params = jax.device_put({**export.params, "vision": vision.params["encoder"]})
    return cls(config, params, vision, export.model["length"], export.path, dtype)

  def resized(self, frames: int | None = None, size: int | None = None) -> "DualEncoder":
    """The same for clips of another length or another number of pixels: `Encoder.resized`."""
    vision = self.vision.resized(frames, size)
    params = self.params | {"vision": vision.params["encoder"]}
    config = dataclasses.replace(self.config, vision=vision.config)
    return dataclasses.replace(self, config=config, params=params, vision=vision)

  def encode(self, video: Any, selection: Any = None) -> Float[Array, "B K D"]:
    """Tokens of the video tower: `Encoder.encode`."""
    return self.vision.encode(video, selection)

  def pooled(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """One vector a clip, of the video tower and not normalised: what its projection sees."""
    return self._pooled(self.params, *self.vision.checked(video, selection))

  def embed_video(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """A vector a clip of uint8[B, frames, size, size, 3]; arguments and errors as `encode`'s."""
    return self._embed_video(self.params, *self.vision.checked(video, selection))

  def embed_image(self, image: Any) -> Float[Array, "B D"]:
    """A vector an image of uint8[B, size, size, 3]. Without training on images, a still clip's.

    Raises:
      UserError: images of another type or shape.
    """
    vision = self.config.vision
    if image.dtype != jnp.uint8 or image.ndim != 4 or image.shape[1:] != (*[vision.size] * 2, 3):
      raise UserError(
        f"the images are {image.dtype}{list(image.shape)}; this encoder takes "
        f"uint8[B, {vision.size}, {vision.size}, 3] (others: encoder.resized(size=...))."
      )
    video = jnp.asarray(image)[:, None]
    if not vision.images:
      return self.embed_video(jnp.repeat(video, vision.frames, axis=1))
    chosen = everything(len(video), vision.image_layout.size)
    return self._embed_image(self.params, video, chosen)

  def embed_text(self, texts: Sequence[str]) -> Float[Array, "B D"]:
    """A vector a text.

    Raises:
      UserError: not a list of texts, or the export's tokenizer.json is not there.
    """
    vocabulary = str(pathlib.Path(self.path) / "tokenizer.json")
    return self._embed_text(self.params, *tokenized(vocabulary, self.length, self.path, texts))

  def similarity(self, video: Any, texts: Sequence[str]) -> Float[Array, "B M"]:
    """Cosines of each video with each text. Of much that is searched often, keep embeddings."""
    return self.embed_video(video) @ self.embed_text(texts).T

  # Parameters are arguments of the programs: as constants they would be copied into each.

  @property
  def _model(self):
    run = Execution(dtype=self.dtype)
    return dual_encoder.DualEncoder(self.config, run, run)

  def _video(self, params, video, selection, *, layout, method):
    patches = gather_tubelets(video, layout, selection)
    return self._model.apply({"params": params}, patches, selection, method=method)

  @functools.cached_property
  def _pooled(self):
    layout = self.config.vision.layout
    return jax.jit(functools.partial(self._video, layout=layout, method="pool_video"))

  @functools.cached_property
  def _embed_video(self):
    run = functools.partial(
      self._video, layout=self.config.vision.layout, method="embed_video"
    )
    return jax.jit(lambda *inputs: normalised(run(*inputs)))

  @functools.cached_property
  def _embed_image(self):
    layout = self.config.vision.image_layout
    run = functools.partial(self._video, layout=layout, method="embed_video")
    return jax.jit(lambda *inputs: normalised(run(*inputs)))

  @functools.cached_property
  def _embed_text(self):
    def run(params, ids, mask):
      return self._model.apply({"params": params}, ids, mask, method="embed_text")

    return jax.jit(lambda *inputs: normalised(run(*inputs)))
