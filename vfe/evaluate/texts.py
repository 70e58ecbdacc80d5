"""Generated texts as they are, for what goes on with them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Texts:
  """A collector (`vfe.evaluate.evaluator`) that measures nothing: `by_record` is what it is for.

  Of a record's views the first counts; padding is left out, and a record whose video cannot be read
  has no text.
  """

  def __init__(self, decode: Callable[[Any], str]):
    """decode: makes a text of its tokens."""
    self._decode = decode
    self._texts: dict[int, tuple[int, str]] = {}  # record -> view, text

  @property
  def by_record(self) -> dict[int, str]:
    """The texts, in the order of the records."""
    return {record: text for record, (_, text) in sorted(self._texts.items())}

  def collect(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
    """Takes a batch.

    Args:
      outputs: ids int[B,L], of a vocabulary; mask bool[B,L], which of them are the text's.
      batch: valid bool[B]; record and view int32[B].
    """
    ids, mask = np.asarray(outputs["ids"]), np.asarray(outputs["mask"])
    for row in np.flatnonzero(np.asarray(batch["valid"])):
      record, view = int(batch["record"][row]), int(batch["view"][row])
      if view <= self._texts.get(record, (view,))[0]:
        self._texts[record] = (view, self._decode(ids[row][mask[row]].tolist()))

  def finish(self, folder: Any) -> dict[str, float]:
    """No metrics and no files."""
    del folder
    return {}
