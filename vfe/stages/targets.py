"""Stored targets: latents and importance of every window of every video, computed once.

The paper allows it (A.5.2). A clip finds its targets by (video, first frame), so crops are the
centre's and first frames are multiples of the tokenizer's window.
"""

import functools
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vfe.data.record import Source
from vfe.data.spec import clip_spec
from vfe.errors import UserError
from vfe.learn import exports, hosts, sharding
from vfe.learn.state import Params
from vfe.models.tokenizer import TokenizerConfig, tokenize_clip
from vfe.stages.stage import Setting, Stage
from vfe.stages.stored import stored_data

Block = tuple[int, np.ndarray, np.ndarray, bool]  # record, codes, importance, valid


class TargetsStage(Stage):
  """Runs the frozen tokenizer over both splits. Does not train."""

  trains = False
  roles = ("tokenizer",)

  def __init__(self, setting: Setting):
    super().__init__(setting)
    export = setting.export("tokenizer", "tokenizer")
    if export is None:
      raise UserError(f"config.{self.name}.inputs.tokenizer is not set.")
    self.tokenizer, self.params = TokenizerConfig(**export.model), export.params
    data = self.config.data
    self.tokenizer.grid(data.frames, data.size, data.size)

  def check(self) -> None:
    """Raises UserError where the blocks do not divide evenly over the mesh."""
    sharding.check_batch(self.config.batch, self.setting.mesh)

  def run(self, say: Callable[[str], None]) -> dict[str, float]:
    """Stores the targets of both splits and exports where they are."""
    from vfe.data import stored

    folder = self.setting.folder / "export"
    metrics = {}
    for split, source in (("train", self.source), ("validation", self.eval_source)):
      say(f"{self.name}: storing targets of {source.name}")
      metrics[f"{split}/videos"] = float(len(source))
      blocks = self._blocks(source)
      if hosts.first():
        meta = {"window": self.tokenizer.window}
        items = stored.by_record(blocks, self._tokens)
        stored.write(self.setting.folder / split, items, meta)
      else:
        for _ in blocks:  # take part in the computation; the first process writes
          pass
    # The digest of the export is to change with what is stored.
    contents = hosts.decided(lambda: list(_fingerprint(self.setting.folder)))
    exports.write(folder, *self.export({"contents": np.asarray(contents, np.uint8)}))
    return metrics

  @property
  def _tokens(self) -> int:
    """Tokens of one window."""
    size = self.config.data.size
    return math.prod(self.tokenizer.grid(self.tokenizer.window, size, size))

  def _blocks(self, source: Source) -> Iterator[Block]:
    """Codes and importance of every block of frames, in record order."""
    from vfe.data import pipeline

    mesh, data = self.setting.mesh, self.config.data
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    dataset = pipeline.block_dataset(
      source,
      clip_spec(data),
      batch=self.config.batch,
      rows=pipeline.local_rows(rows, self.config.batch),
    )
    params = hosts.put(self.params, everywhere)

    @functools.partial(jax.jit, out_shardings=everywhere)
    def tokenize(params, batch):
      tokens = tokenize_clip(self.tokenizer, params, batch["video"], self.dtype)
      return batch["record"], tokens.codes, tokens.importance, batch["valid"]

    program = None
    with pipeline.iterate(dataset, workers=data.workers, buffer=data.buffer) as batches:
      for batch in batches:
        used = {name: batch[name] for name in ("video", "record", "valid")}
        given = params, sharding.to_global(used, rows)
        program = program or hosts.compiled(tokenize, *given)
        found = jax.tree.map(np.asarray, program(*given))
        for record, codes, importance, valid in zip(*found, strict=True):
          if record >= 0:
            yield int(record), codes, importance, bool(valid)

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """What the targets are of; the targets themselves lie beside the export."""
    model = {
      "levels": list(self.tokenizer.levels),
      "tubelet": list(self.tokenizer.tubelet),
      "window": self.tokenizer.window,
      "data": stored_data(self.config.data),
    }
    return "targets", model, params


def _fingerprint(folder: pathlib.Path) -> bytes:
  sha = hashlib.sha256()
  for file in sorted(folder.glob("*/targets.array_record")):
    with file.open("rb") as opened:
      sha.update(hashlib.file_digest(opened, "sha256").digest())
  return sha.digest()
