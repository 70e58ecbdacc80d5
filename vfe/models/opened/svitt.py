"""SViTT, opened: search by words, and whether a text tells of a video, both read together."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from vfe.learn.exports import Export
from vfe.models import svitt
from vfe.models.dual_encoder import vision_tower
from vfe.models.opened.encoder import Encoder
from vfe.models.opened.towers import Towers
from vfe.models.svitt import SvittConfig
from vfe.nn.blocks import Execution
from vfe.tokens.tubelets import gather_tubelets


@dataclasses.dataclass(frozen=True, eq=False)
class Svitt(Towers):
  """What training of kind sparse_video_text leaves: `Towers` of a `vfe.models.svitt.SvittConfig`,
  and what reads both.

  `encode` gives the class token and the tokens that are left. Edges are the same at every call.
  """

  @classmethod
  def of(cls, export: Export, dtype: str = "float32") -> "Svitt":
    """The networks in an export."""
    vision = Encoder.of(vision_tower(export), dtype)
    config = SvittConfig.from_dict(export.model["svitt"])
    params = jax.device_put({**export.params, "vision": vision.params["encoder"]})
    length, clean = export.model["length"], export.model["clean"]
    return cls(config, params, vision, length, export.path, dtype, clean)

  def match(self, video: Any, texts: Sequence[str]) -> Float[Array, "B M"]:
    """Log-odds that each text tells of each video, which are read together; 0 is undecided.

    A video is encoded once and a text once, but all pairs go through the fused layers: of many
    videos, take those that `similarity` finds.

    Raises:
      UserError: a video of another type or shape, or no texts, or no tokenizer.json.
    """
    shown = self.vision.checked(video, None)
    return self._match(self.params, *shown, *self._tokenized(texts))

  def kept(self, video: Any, selection: Any = None) -> tuple[Int32[Array, "B _"], ...]:
    """Which tokens of the video go on after each pruning layer: `Encoder.kept`."""
    return self.vision.kept(video, selection)

  @property
  def _model(self):
    run = Execution(dtype=self.dtype)
    return svitt.Svitt(self.config, run, run)

  def _run(self, params, *inputs, method):
    return self._model.apply({"params": params}, *inputs, method=method)

  def _tokens(self, params, video, selection):
    patches = gather_tubelets(video, self.config.vision.layout, selection)
    return self._run(params, patches, selection, method="tokens_of_video")

  def _pool(self, params, video, selection):
    return self._run(params, self._tokens(params, video, selection), method="pooled")

  def _project_video(self, params, video, selection):
    return self._run(params, self._tokens(params, video, selection), method="embed_video")

  def _project_text(self, params, ids, mask):
    words = self._run(params, ids, mask, method="tokens_of_text")
    return self._run(params, words, method="embed_text")

  @functools.cached_property
  def _match(self):
    def match(params, video, selection, ids, mask):
      run = functools.partial(self._run, params)
      tokens = self._tokens(params, video, selection)
      words = run(ids, mask, method="tokens_of_text")

      def one(text):
        shown = [jnp.broadcast_to(of, (len(tokens), *of.shape)) for of in text]
        logits = run(run(*shown, tokens, method="fuse"), method="match")
        return logits[:, 1] - logits[:, 0]

      return jax.lax.map(one, (words, mask)).T

    return jax.jit(match)
