"""Words of a sentence much as the Penn Treebank tokenizer gives them, without Java.

`pycocoevalcap` counts the words of Stanford's PTBTokenizer (3.4.1, lower case) without punctuation.
This is a stand-in where there is no Java; docs/video-text.md says on how much the two agree.
"""

import re

_PLAIN = str.maketrans({"‘": "'", "’": "'", "`": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
_BRACKETS = {
  "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"
}  # fmt: skip
_PUNCTUATION = {"''", "'", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"}
_TWO = {
  "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na",
  "lemme": "lem me", "gimme": "gim me",
}  # fmt: skip
_TOKEN = re.compile(
  r"""https?://\S+
  | (?:[a-z]\.){2,}                            # u.s. p.m.
  | (?:mr|mrs|ms|dr|st|prof|jr|sr|vs|etc|mt|ft|capt|gen|col|inc|ltd|co)\.(?![a-z])
  | no\.(?=\ ?\d)
  | [-+]?\d+(?:[.,:/]\d+)*\w*(?:-\w+)*         # 1,000 1/2 3rd 2x4 10-year-old
  | @\w+
  | \w+(?:[-/.]\w+|'(?!(?:s|m|d|re|ve|ll)\b)\w+)*
  | '(?:s|m|d|re|ve|ll)\b
  | \.{2,} | -{2,} | [!?]+ | \*+
  | \S
  """,
  re.VERBOSE,
)


def words(sentence: str) -> str:
  """The words of a sentence in lower case with single blanks between them; '' for none."""
  found = _TOKEN.findall(sentence.lower().translate(_PLAIN))
  kept = (_BRACKETS.get(token, token) for token in found if token not in _PUNCTUATION)
  return " ".join(part for token in kept for part in _parts(token).split())


def _parts(token: str) -> str:
  if token.endswith("n't") and len(token) > 3:
    return f"{token[:-3]} n't"
  return _TWO.get(token, token)
