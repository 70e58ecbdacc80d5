"""A video and a text encoder of one space, opened: search by words, and by videos."""

import dataclasses
import functools
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
from vfe.models.opened.towers import Towers
from vfe.nn.blocks import Execution
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets


@dataclasses.dataclass(frozen=True, eq=False)
class DualEncoder(Towers):
  """What contrastive training leaves: `Towers` of a `vfe.models.dual_encoder.DualConfig`, and of
  images."""

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "DualEncoder":
    """Both encoders in an export."""
    vision = Encoder.of(vision_tower(export), dtype)
    config = DualConfig.from_dict(export.model["dual"])
    params = jax.device_put({**export.params, "vision": vision.params["encoder"]})
    return cls(config, params, vision, export.model["length"], export.path, dtype)

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

  @property
  def _model(self):
    run = Execution(dtype=self.dtype)
    return dual_encoder.DualEncoder(self.config, run, run)

  def _video(self, params, video, selection, layout, method):
    patches = gather_tubelets(video, layout, selection)
    return self._model.apply({"params": params}, patches, selection, method=method)

  def _pool(self, params, video, selection):
    return self._video(params, video, selection, self.config.vision.layout, "pool_video")

  def _project_video(self, params, video, selection):
    return self._video(params, video, selection, self.config.vision.layout, "embed_video")

  def _project_text(self, params, ids, mask):
    return self._model.apply({"params": params}, ids, mask, method="embed_text")

  @functools.cached_property
  def _embed_image(self):
    layout = self.config.vision.image_layout
    return jax.jit(lambda *inputs: normalised(self._video(*inputs, layout, "embed_video")))
