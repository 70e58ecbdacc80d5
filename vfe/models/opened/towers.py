"""What opened models of two towers share: videos and texts are vectors of one space."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from vfe.models.contrastive import normalised
from vfe.models.opened.encoder import Encoder
from vfe.models.opened.text import tokenized


@dataclasses.dataclass(frozen=True, eq=False)
class Towers:
  """Embeddings are float32 of length 1: products are cosines.

  config  of the whole; config.vision is the video tower's
  params  of the whole; params["vision"] are the video tower's
  vision  the video tower alone, an opened `Encoder`
  length  tokens of a text with [CLS] and [SEP]: longer ones are cut
  path    where it was loaded from; its tokenizer.json reads the texts
  clean   trained on texts in lower case and without punctuation: any text is made so here
  """

  config: Any
  params: Any
  vision: Encoder
  length: int
  path: str
  dtype: str = "float32"
  clean: bool = False

  def resized(self, frames: int | None = None, size: int | None = None) -> "Towers":
    """The same for clips of another length or another number of pixels: `Encoder.resized`."""
    vision = self.vision.resized(frames, size)
    params = self.params | {"vision": vision.params["encoder"]}
    config = dataclasses.replace(self.config, vision=vision.config)
    return dataclasses.replace(self, config=config, params=params, vision=vision)

  def encode(self, video: Any, selection: Any = None) -> Float[Array, "B N D"]:
    """Tokens of the video tower: `Encoder.encode`."""
    return self.vision.encode(video, selection)

  def pooled(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """One vector a clip, of the video tower and not normalised: what its projection sees."""
    return self._pooled(self.params, *self.vision.checked(video, selection))

  def embed_video(self, video: Any, selection: Any = None) -> Float[Array, "B D"]:
    """A vector a clip of uint8[B, frames, size, size, 3]; arguments and errors as `encode`'s."""
    return self._embed_video(self.params, *self.vision.checked(video, selection))

  def embed_text(self, texts: Sequence[str]) -> Float[Array, "B D"]:
    """A vector a text.

    Raises:
      UserError: not a list of texts, or the export's tokenizer.json is not there.
    """
    return self._embed_text(self.params, *self._tokenized(texts))

  def similarity(self, video: Any, texts: Sequence[str]) -> Float[Array, "B M"]:
    """Cosines of each video with each text. Of much that is searched often, keep embeddings."""
    return self.embed_video(video) @ self.embed_text(texts).T

  def _tokenized(self, texts: Sequence[str]):
    vocabulary = str(pathlib.Path(self.path) / "tokenizer.json")
    return tokenized(vocabulary, self.length, self.path, texts, self.clean)

  # What a kind computes: a clip's vector before its projection, and both sides' after theirs.

  def _pool(self, params, video, selection):
    raise NotImplementedError

  def _project_video(self, params, video, selection):
    raise NotImplementedError

  def _project_text(self, params, ids, mask):
    raise NotImplementedError

  # Parameters are arguments of the programs: as constants they would be copied into each.

  @functools.cached_property
  def _pooled(self):
    return jax.jit(self._pool)

  @functools.cached_property
  def _embed_video(self):
    return jax.jit(lambda *inputs: normalised(self._project_video(*inputs)))

  @functools.cached_property
  def _embed_text(self):
    return jax.jit(lambda *inputs: normalised(self._project_text(*inputs)))
