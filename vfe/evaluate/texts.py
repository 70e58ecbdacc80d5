"""Generated texts as they are, for what goes on with them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Texts:
  """A collector (`vfe.evaluate.evaluator`) that measures nothing: `by_record` is what it is for.

  A record whose video cannot be read has no text.
  """

  def __init__(self, decode: Callable[[Any], str]):
    """decode: makes a text of its tokens."""
    self.by_record: dict[int, str] = {}
    self._decode = decode

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: ids int[B,L], of a vocabulary; mask bool[B,L], which of them are the text's.
      batch: valid bool[B]; record int32[B].
    """
    ids, mask = np.asarray(outputs["ids"]), np.asarray(outputs["mask"])
    for row in np.flatnonzero(np.asarray(batch["valid"])):
      self.by_record[int(batch["record"][row])] = self._decode(ids[row][mask[row]].tolist())

  def finish(self, folder: Any) -> dict[str, float]:
    """No metrics and no files."""
    del folder
    return {}
