"""Captions against references: CIDEr, BLEU, ROUGE-L and METEOR of `pycocoevalcap`.

They are official only with Java, which the package's tokenizer and METEOR run on. Without it words
are those of `vfe.evaluate.words`, METEOR is left out, `official` is 0 among the metrics and what is
written says so in its name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import logging
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vfe.data.record import Source
from vfe.data.text import captions_of
from vfe.errors import UserError
from vfe.evaluate.texts import Texts
from vfe.evaluate.words import words

RESULTS = "captions.json"
TABLE = "captions.csv"
TABLE_NOT_OFFICIAL = "captions.not_official.csv"
NAMES = ("CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L")

Sentences = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Scores:
  """`corpus` by name; `cider` and `rouge` of every caption, in the order of the candidates."""

  corpus: dict[str, float]
  cider: Sequence[float]
  rouge: Sequence[float]


def check() -> None:
  """Raises UserError where the package is not installed."""
  _package()


def caption_scores(
  references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]
) -> dict[str, float]:
  """CIDEr, BLEU-1 to BLEU-4, ROUGE-L, METEOR and `official` of one caption for every clip.

  Both are by the clip's name. On the package's scale: CIDEr goes from 0 to 10 and the others to 1;
  papers print 100 times that. CIDEr weighs words by how few of these clips have them, so that of a
  single clip is 0. `official` is 1.0, or 0.0 without Java, when METEOR is left out.

  Raises:
    UserError: the package is not installed, there is a Java that does not run, or no reference has
      a word.
    ValueError: a candidate without references, or the other way around.
  """
  return score(references, candidates).corpus


def score(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> Scores:
  """`caption_scores`, with those of every caption."""
  if references.keys() != candidates.keys() or not all(references.values()):
    odd = next(iter(references.keys() ^ candidates.keys()), "no references")
    raise ValueError(f"Every candidate needs references, and these need one candidate: {odd}.")
  bleu, cider, rouge, meteor, tokenizer = _package()
  official = _has_java()
  if not candidates:
    return Scores(dict.fromkeys(NAMES, float("nan")) | {"official": float(official)}, [], [])
  if not official:
    _say_not_official()
  tokenized = functools.partial(_official_words, tokenizer) if official else _our_words
  # The scorers go through both in one order.
  truth = tokenized({name: references[name] for name in candidates})
  found = tokenized({name: [said] for name, said in candidates.items()})
  if not any(sentence for said in truth.values() for sentence in said):
    raise UserError("No reference has a word to measure captions by; choose another data.text.key.")
  bleus, _ = bleu().compute_score(truth, found, verbose=0)
  ciders, each_cider = cider().compute_score(truth, found)
  rouges, each_rouge = rouge().compute_score(truth, found)
  corpus = dict(zip(NAMES, map(float, (ciders, *bleus, rouges)), strict=True))
  if official:
    corpus["METEOR"] = _meteor(meteor, truth, found)
  return Scores(corpus | {"official": float(official)}, list(each_cider), list(each_rouge))


class Captions(Texts):
  """A collector (`vfe.evaluate.evaluator`) of generated captions.

  Of a record's views the first counts; padding is left out.
  """

  def __init__(self, source: Source, key: str, decode: Callable[[Sequence[int]], str]):
    """key: of the records' texts with the references; decode: makes a caption of its tokens."""
    super().__init__(decode)
    self._source, self._key = source, key

  def finish(self, folder: pathlib.Path | None) -> dict[str, float]:
    """`caption_scores`, `clips` and, where videos could not be read, `clips_missing`.

    A folder gets `captions.json`, the results in COCO's format, [{"image_id", "caption"}], with the
    names of the files without folders and suffix where these differ and the records' names where
    not; and `captions.csv`, or `captions.not_official.csv`, a line for every caption: its record's
    name, its words, its CIDEr and ROUGE-L, and the references, separated by `|`.
    """
    records = list(self.by_record)
    said = {str(record): text for record, text in self.by_record.items()}
    references = {str(record): self._references(record) for record in records}
    scores = score(references, said)
    metrics = scores.corpus | {"clips": float(len(records))}
    if len(records) < len(self._source):
      metrics["clips_missing"] = float(len(self._source) - len(records))
    if folder is not None:
      self._write(pathlib.Path(folder), said, references, scores)
    return metrics

  def _references(self, record: int) -> Sequence[str]:
    found = captions_of(self._source[record], self._key)
    if not found:
      raise UserError(
        f"{self._source[record].name}: no {self._key!r} to measure its caption by; choose another "
        f"data.text.key."
      )
    return found

  def _write(
    self, folder: pathlib.Path, said: Mapping[str, str], references: Sentences, scores: Scores
  ) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [self._source[int(record)] for record in said]
    names = [row.name for row in rows]
    stems = [pathlib.PurePath(row.path or row.name).stem for row in rows]
    ids = names if max(Counter(stems).values(), default=1) > 1 else stems
    results = [{"image_id": i, "caption": s} for i, s in zip(ids, said.values(), strict=True)]
    (folder / RESULTS).write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    official = bool(scores.corpus["official"])
    table, other = (TABLE, TABLE_NOT_OFFICIAL)[:: 1 if official else -1]
    (folder / other).unlink(missing_ok=True)  # of an evaluation before this one
    note = "" if official else " (not official)"
    with (folder / table).open("w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["name", "caption", f"CIDEr{note}", f"ROUGE-L{note}", "references"])
      for name, (record, words_said), cider, rouge in zip(
        names, said.items(), scores.cider, scores.rouge, strict=True
      ):
        row = [name, words_said, f"{cider:.6f}", f"{rouge:.6f}", "|".join(references[record])]
        writer.writerow(row)


def _package() -> tuple[Any, Any, Any, Any, Any]:
  """The classes of pycocoevalcap: none of them needs Java to be imported."""
  try:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
  except ImportError as error:
    raise UserError(
      f"Captions are measured by pycocoevalcap, which cannot be imported ({error}); "
      f"pip install -e '.[captions]'."
    ) from error
  return Bleu, Cider, Rouge, Meteor, PTBTokenizer


def _has_java() -> bool:
  return shutil.which("java") is not None


@functools.cache
def _say_not_official() -> None:
  logging.warning(
    "There is no Java: captions are measured NOT OFFICIALLY, on words of our own tokenizer and "
    "without METEOR; install a Java runtime for figures to compare with papers."
  )


def _our_words(sentences: Sentences) -> dict[str, list[str]]:
  return {name: [words(sentence) for sentence in said] for name, said in sentences.items()}


def _official_words(tokenizer: Any, sentences: Sentences) -> dict[str, list[str]]:
  # Lines would be sentences of their own, and three bars are what METEOR's program splits at.
  plain = lambda sentence: " ".join(sentence.replace("|||", " ").split())
  rows = {name: [{"caption": plain(s)} for s in said] for name, said in sentences.items()}
  try:
    found = tokenizer().tokenize(rows)
  except OSError as error:  # it writes a file into its own folder
    raise UserError(f"pycocoevalcap's tokenizer cannot work ({error}); {_REMEDY}") from error
  if {name: len(said) for name, said in found.items()} != {n: len(s) for n, s in rows.items()}:
    raise UserError(f"pycocoevalcap's tokenizer gives no words: java does not run; {_REMEDY}")
  return found


def _meteor(meteor: Any, truth: Sentences, found: Sentences) -> float:
  try:
    return float(meteor().compute_score(truth, found)[0])
  except (OSError, ValueError) as error:
    raise UserError(f"METEOR cannot be computed: java fails ({error}); {_REMEDY}") from error


_REMEDY = "repair it, or leave java out of PATH and be told figures that are not official."
