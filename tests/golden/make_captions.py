"""Makes captions.json: words and scores of pycocoevalcap (1.2) with Java, to compare ours with.

    python3.11 -m venv cap && cap/bin/pip install pycocoevalcap==1.2
    cap/bin/python tests/golden/make_captions.py        # java on PATH
"""

import json
import pathlib

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

REFERENCES = {
  "guitar": ["A man is playing a guitar.", "Someone plays the guitar!", "a guitar is being played"],
  "dog": ["The dog's running (fast) on the beach.", "A dog runs, then it doesn't run."],
  "singing": ["Two kids can't sing...", "Children sing a 'song' -- it is a well-known one."],
  "pour": ["Add 1/2 cup of water & 1,000 grains; stir at 3.5 speed", "pour 50% of it for $5"],
  "swap": ["a red cube is swapped with a blue ball", "red and blue things change places"],
  "leave": ["He's gonna leave at 5:30 p.m. in the U.S.", "Mr. Smith cannot stay"],
}
CANDIDATES = {
  "near": {
    "guitar": "A man plays a guitar", "dog": "a dog is running on the beach",
    "singing": "Kids sing a song.", "pour": "pour 1/2 cup of water", "swap": "a ball moves",
    "leave": "He's going to leave at 5:30 p.m.",
  },
  "perfect": {name: sentences[0] for name, sentences in REFERENCES.items()},
  "no_overlap": dict.fromkeys(REFERENCES, "zebra quagga okapi tapir"),
  "empty_among_others": {
    "guitar": "", "dog": "A dog runs.", "singing": "...", "pour": "", "swap": "red", "leave": "",
  },
  "one_word": {
    "guitar": "guitar", "dog": "dog", "singing": "sing", "pour": "water", "swap": "red",
    "leave": "leave",
  },
}  # fmt: skip
SENTENCES = [
  "A man's dog doesn't run.", "He won't, they're here; I'd go, we've seen what I'll do!",
  "A t-shirt -- red - and \"blue\" 'quoted' text...", "wait...what?! no!!!", "and/or his/her",
  "John’s “quoted” – dash — em", "the dogs' bowls", "etc. and so on e.g. this", "No. 5 of 10,",
  "wanna lemme gimme gotta cannot gonna", "#1 team @home a_b", "O'Neil o'clock",
  "[brackets] (and) {braces}", "a 10-year-old boy", "3rd 2nd 20s 90's 100m 2x4 -5",
  "http://www.a.com/b is a site", "café naïve", "", "...", "word", "a dog,cat.Then it runs",
  "5\" 6' tall", "a * b + c = d", "**bold**", "he said: \"go\"", "do n't", "a\u00a0b c . d",
]  # fmt: skip


def words(captions: dict[str, list[str]]) -> dict[str, list[str]]:
  return PTBTokenizer().tokenize({k: [{"caption": c} for c in v] for k, v in captions.items()})


def scores(candidates: dict[str, str]) -> dict[str, float]:
  truth, found = words(REFERENCES), words({name: [said] for name, said in candidates.items()})
  bleus = Bleu(4).compute_score(truth, found, verbose=0)[0]
  return {
    "CIDEr": float(Cider().compute_score(truth, found)[0]),
    **{f"BLEU-{n}": float(bleu) for n, bleu in enumerate(bleus, start=1)},
    "ROUGE-L": float(Rouge().compute_score(truth, found)[0]),
    "METEOR": float(Meteor().compute_score(truth, found)[0]),
  }


if __name__ == "__main__":
  content = {
    "references": REFERENCES,
    "candidates": CANDIDATES,
    "scores": {name: scores(candidates) for name, candidates in CANDIDATES.items()},
    "words": {s: words({"": [s]})[""][0] for s in SENTENCES},
  }
  for sentences in REFERENCES.values():
    content["words"] |= {s: words({"": [s]})[""][0] for s in sentences}
  path = pathlib.Path(__file__).with_name("captions.json")
  path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
