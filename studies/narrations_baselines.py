"""What the study of narrations stands beside: what a second tells, and what words alone would."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float32

from studies import narrations_data as data
from studies.narrations_sizes import Size
from vfe.data.tabletop.baselines import difference_tokens, standardise
from vfe.evaluate.egomcq import KINDS

RIDGE = 100.0  # added to the squares of standardised features


def rows(size: Size, seed: int, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Draws the clips of a seed; returns the rows of "difference", "nouns" and "verbs".

  difference: of a linear map, by least squares, from the mean frame difference of each token to the
  words. nouns, verbs: of one who knows those of every clip, and guesses where several have them.
  """
  train, test = (data.draw(size, seed, split, folder) for split in ("train", "test"))
  asked = data.questions(size, seed, test["ids"])
  found = {"difference": _linear(size, train, test, asked)}
  for name in ("nouns", "verbs"):
    own, others = asked.of(test[name])
    among = (own[:, None] == others).all(-1).sum(1)
    kinds = np.array(asked.kinds)
    found[name] = {f"{kind}/accuracy": float(np.mean(1 / among[kinds == kind])) for kind in KINDS}
  return [{"condition": name, "seed": seed, "scores": of} for name, of in found.items()]


def _linear(size: Size, train: dict, test: dict, asked: data.Questions) -> dict[str, float]:
  features, words = zip(*(_described(size, rows) for rows in (train, test)), strict=True)
  there, shape = train["there"].ravel(), test["there"].shape
  x, x_test = standardise(features[0][there], features[1])
  y, y_test = standardise(words[0][there], words[1])
  weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
  return asked.answered((x_test @ weights).reshape(*shape, -1), y_test.reshape(*shape, -1))


def _described(
  size: Size, rows: dict[str, np.ndarray]
) -> tuple[Float32[np.ndarray, "e N"], Float32[np.ndarray, "e V"]]:
  """Of all events the frame differences, and which words are said."""
  clips = rows["clips"][:, :, data.middle(size)]
  features = difference_tokens(clips.reshape(-1, *clips.shape[2:]), size.tubelet)
  ids = rows["ids"].reshape(-1, size.length)
  words = np.stack([(ids == word).any(1) for word in range(data.MASK + 1, data.VOCABULARY)], 1)
  return features, words.astype(np.float32)
