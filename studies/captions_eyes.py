"""What a condition of the captions study sees: the frozen encoder's tokens of its clips."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from studies import contrast_data, contrast_jobs
from studies.captions_sizes import Condition, Size
from studies.contrast_sizes import CONDITIONS as ENCODERS
from studies.training import with_statistics
from vfe.models.video_language import POOLS, VideoLanguage
from vfe.models.vivit import Encoder
from vfe.nn.blocks import Execution
from vfe.tokens import selection
from vfe.tokens.layout import Layout

# What is seen of a long video, as clips: uint8[n, T, H, W, 3] and the frames of a short one.
VIEWS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
  "all": lambda video, frames: video,
  "spread": lambda video, frames: video[:, :: video.shape[1] // frames],
  "first": lambda video, frames: video[:, :frames],
  "parts": lambda video, frames: video.reshape(-1, frames, *video.shape[2:]),
}


class Eyes:
  """A frozen encoder of the contrastive study, and what the resampler reads of clips."""

  def __init__(self, size: Size, condition: Condition, folder: pathlib.Path, seed: int):
    self.size, self.condition, self.seed, self.folder = size, condition, seed, folder
    self.run = contrast_jobs.Run(size.world, ENCODERS[condition.encoder])
    loaded = contrast_jobs.load(folder, condition.encoder, (seed,))["vision"]
    self._params = jax.tree.map(lambda x: x[0], loaded)
    run = Execution(dtype=size.world.dtype, first_trained=size.world.depth)
    self.model = VideoLanguage(size.model(self.run.condition.stage), run, Execution(run.dtype))
    self._see = jax.jit(self._seen)

  def short(self, split: str) -> dict[str, np.ndarray]:
    """{seen, there} of short clips. In an encoder of more frames they stand at its beginning."""
    return self._features(self._video("short", split))

  def long(self, split: str) -> dict[str, np.ndarray]:
    """{seen, there} of what the condition sees of long videos."""
    video = self._video("long", split)
    return self._features(VIEWS[self.condition.view](video, self.size.world.frames))

  def _video(self, kind: str, split: str) -> np.ndarray:
    clips, _ = contrast_data.draw(self.size.world, kind, self.seed, split, self.folder)
    return clips["video"]

  def _features(self, video: np.ndarray) -> dict[str, np.ndarray]:
    see, rows = (lambda rows: self._see(self._params, rows)), with_statistics(video)
    found = by_parts(see, rows, self.size.part)
    return dict(zip(("seen", "there"), found, strict=True))

  def _seen(self, params: Any, rows: dict[str, Array]):
    config = self.model.config.encoder
    layout = Layout.of_video(rows["video"].shape[1], config.size, config.tubelet)
    chosen = selection.everything(len(rows["video"]), layout.size)
    patches = contrast_jobs.inputs(rows, layout, chosen, self.run.condition.input)
    encoder = Encoder(config, self.model.vision)
    tokens = encoder.apply({"params": params}, patches, chosen, frames=layout.grid[0])
    return POOLS[self.size.pool](tokens, chosen, layout)


def by_parts(function: Callable, rows: Any, part: int) -> Any:
  """function(rows) on `part` rows at a time, joined on the host. The last part is filled up, so
  that all are of one shape."""
  count, outs = len(jax.tree.leaves(rows)[0]), []
  for start in range(0, count, part):
    places = np.minimum(np.arange(start, start + part), count - 1)
    outs.append(jax.device_get(function(jax.tree.map(lambda x, at=places: x[at], rows))))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *outs)
