"""What a language model reads and writes: a tokenizer, and what stands around a text."""

import dataclasses
import pathlib

from vfe.data.wordpiece import SPECIAL
from vfe.errors import UserError
from vfe.interop.language_model import TOKENIZER, open_tokenizer
from vfe.learn.exports import Export

BEGIN, END = "[CLS]", "[SEP]"  # around a text, where the words are those of a vocabulary


@dataclasses.dataclass(frozen=True)
class Words:
  """What a language model reads and writes: the path of its tokenizer, the words that end a text,
  and the one before it, where the tokenizer puts none there itself."""

  tokenizer: str
  ends: tuple[int, ...]
  begin: int | None = None

  @classmethod
  def of(cls, export: Export) -> "Words":
    """Those of a language model.

    Raises:
      UserError: nothing says how its texts end.
    """
    if not export.model["eos"]:
      raise UserError(
        f"{export.path}: neither config.json nor generation_config.json has an eos_token_id; add "
        "the number of the word that ends a text."
      )
    own = export.model["tokenizer"] or str(pathlib.Path(export.path) / TOKENIZER)
    return cls(own, tuple(export.model["eos"]))

  @classmethod
  def of_vocabulary(cls, export: Export) -> "Words":
    """Those of a vocabulary stage, framed as BERT's texts."""
    return cls(export.path, (SPECIAL.index(END),), SPECIAL.index(BEGIN))

  @property
  def end(self) -> int:
    """The word that training texts end with."""
    return self.ends[0]

  @property
  def text(self) -> str:
    """As the tokenizer.json that frames a text as training did, for others to go on from."""
    file = pathlib.Path(self.tokenizer)
    tokenizer = open_tokenizer(file / TOKENIZER if file.is_dir() else file)
    if self.begin is not None:
      from tokenizers.processors import TemplateProcessing

      framed = TemplateProcessing(f"{BEGIN} $A", special_tokens=[(BEGIN, self.begin)])
      tokenizer.post_processor = framed
    return tokenizer.to_str(pretty=True)
