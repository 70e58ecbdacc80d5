"""A vocabulary from the captions of the training videos, for a text tower that begins from none."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vfe.errors import UserError
from vfe.learn import exports, hosts
from vfe.learn.state import Params
from vfe.stages.stage import Setting, Stage


class VocabularyStage(Stage):
  """BERT's kind of word pieces, of lower case. Does not train a network."""

  trains = False

  def __init__(self, setting: Setting):
    super().__init__(setting)
    if self.config.size < 8:
      raise UserError(f"config.{self.name}.size={self.config.size} is below 8; use thousands.")

  def run(self, say: Callable[[str], None]) -> dict[str, float]:
    """Reads every caption once and exports the vocabulary."""
    from vfe.data.text import train_vocabulary

    say(f"{self.name}: word pieces of {self.source.name}")
    text = hosts.decided(lambda: train_vocabulary(self._captions(), self.config.size))
    params = {"tokenizer": np.frombuffer(text.encode(), np.uint8).copy()}
    files = {"tokenizer.json": text}
    exports.write(pathlib.Path(self.setting.folder) / "export", *self.export(params), files=files)
    return {"entries": float(self.config.size)}

  def _captions(self) -> Iterator[str]:
    from vfe.data.text import captions_of, cleaned

    tidy = cleaned if self.config.data.text.get("clean") else str
    for i in range(len(self.source)):
      record = self.source[i]
      for key in self.config.keys_of_text:
        yield from map(tidy, captions_of(record, key))

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """The vocabulary, in the parameters and as a tokenizer.json beside them."""
    return "vocabulary", {"size": self.config.size}, params
