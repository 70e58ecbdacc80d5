"""Narrated videos of the tabletop world as arrays: clips of their events, words, nouns, verbs."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from studies.narrations_sizes import Size
from studies.training import with_statistics
from vfe.data.scenes import numbered
from vfe.data.tabletop import lexicon
from vfe.data.tabletop.asking import CHOICES, INTER_VIDEO, INTRA_VIDEO, multiple_choice
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import FORMS, SCENE_SECONDS, narrations
from vfe.data.tabletop.workers import arrays
from vfe.data.tabletop.world import COLOURS, FPS, NOUNS, SHAPES, VERBS
from vfe.evaluate.egomcq import accuracies

APART = 3  # frames of each stretch of a clip among which one is drawn; in tests the middle one
COMMON = ("#c", "c", "the")  # words that all narrations have
CLS, MASK = 1, 2  # 0 is padding
WORDS = tuple(sorted(
  {word for text in (*NOUNS, *(form.third for form in FORMS.values()))
   for word in lexicon.words(text)} - set(COMMON)
))  # fmt: skip
VOCABULARY = len(WORDS) + MASK + 1
_NUMBER = {word: number for number, word in enumerate(WORDS, MASK + 1)}


def draw(size: Size, seed: int, split: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The videos of a seed's split, with events [n, E], of which `there` tells which there are.

  clips uint8[n, E, APART * seen, H, W, 3], and of each video mean [n, 3] and scale [n]; ids
  int32[n, E, L]; nouns bool[n, E, N] and verbs bool[n, E, V]; number int32[n]; scene int32[n, E].
  """
  world, count = size.world(seed), size.videos if split == "train" else size.tests
  told = [narrations(scenario(world, index, split)) for index in range(count)]
  rows = _rows(told, size)
  path = folder / f"clips-{split}-{seed}.npy"
  if not path.exists():
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, _cut(size, arrays(world, split, count)[0], told, rows["there"].shape[1]))
    partial.rename(path)
  clips = np.load(path)
  about = with_statistics(clips.reshape(count, -1, *clips.shape[3:]))
  return {"clips": clips, "mean": about["mean"], "scale": about["scale"], **rows}


def middle(size: Size) -> Int[np.ndarray, "T"]:
  """The frames of a clip that are tested."""
  return APART * np.arange(size.seen) + APART // 2


def _rows(told: list[list[dict]], size: Size) -> dict[str, np.ndarray]:
  """What is said, of all events."""
  shape = len(told), max(map(len, told))
  found = {
    "ids": np.zeros((*shape, size.length), np.int32),
    "nouns": np.zeros((*shape, len(NOUNS if size.shape_words else COLOURS)), bool),
    "verbs": np.zeros((*shape, len(VERBS)), bool),
    "there": np.zeros(shape, bool),
    "scene": np.full(shape, -1, np.int32),
    "number": np.arange(len(told), dtype=np.int32),
  }
  left_out = COMMON if size.shape_words else COMMON + SHAPES
  kinds = 1 if size.shape_words else len(SHAPES)
  for video, rows in enumerate(told):
    for event, row in enumerate(rows):
      ids = [CLS, *(_NUMBER[w] for w in lexicon.words(row["clip_text"]) if w not in left_out)]
      found["ids"][video, event, : len(ids)] = ids
      found["nouns"][video, event, [noun // kinds for noun in row["tag_noun"]]] = True
      found["verbs"][video, event, row["tag_verb"]] = True
    time = np.array([row["narration_time"] for row in rows])
    found["there"][video, : len(rows)] = True
    found["scene"][video, : len(rows)] = numbered(np.zeros(len(rows), int), time, SCENE_SECONDS)
  return found


def _cut(size: Size, video: UInt8[np.ndarray, "n T H W 3"], told, events: int):
  """Of every event as many frames, evenly apart."""
  parts = APART * size.seen
  found = np.zeros((len(video), events, parts, *video.shape[2:]), np.uint8)
  for number, rows in enumerate(told):
    for event, row in enumerate(rows):
      start, stop = (round(row[name] * FPS) for name in ("clip_start", "clip_end"))
      at = start + (np.arange(parts) + 0.5) * (stop - start) / parts
      found[number, event] = video[number, at.astype(int)]
    found[number, len(rows) :] = found[number, len(rows) - 1]  # no colour of its own
  return found


@dataclasses.dataclass(frozen=True)
class Questions:
  """EgoMCQ's: kinds of Q questions, choices int[Q, 5, 2], clips by (video, event), of which the one
  numbered `answer` [Q] is that which the narration asked for tells of."""

  kinds: tuple[str, ...]
  choices: np.ndarray
  answer: np.ndarray

  @property
  def asked(self) -> Int[np.ndarray, "Q 2"]:
    """The right clips."""
    return self.choices[np.arange(len(self.answer)), self.answer]

  def of(self, events: Shaped[np.ndarray, "n E *F"]) -> tuple[np.ndarray, np.ndarray]:
    """(of the narrations asked for [Q, F], of the choices [Q, 5, F])."""
    return events[tuple(self.asked.T)], events[tuple(np.moveaxis(self.choices, 2, 0))]

  def answered(
    self, video: Float[np.ndarray, "n E W"], text: Float[np.ndarray, "n E W"]
  ) -> dict[str, float]:
    """The metrics of `vfe.evaluate.egomcq`, by cosine."""
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    (words, _), (_, clips) = self.of(unit(text)), self.of(unit(video))
    scores = np.einsum("qow,qw->qo", clips, words).astype(float)
    return accuracies(scores, self.answer, self.kinds)


def questions(size: Size, seed: int, ids: Int[np.ndarray, "n E L"]) -> Questions:
  """Those between videos and those within one, on a seed's test videos.

  Without shapes two narrations may be the same words: what then has two answers is not asked.
  """
  world = size.world(seed)
  number = {scenario(world, i, "test").uid: i for i in range(size.tests)}
  place = lambda row: (number[row["video_uid"]], row["narration_ind"])
  kinds, choices, answer = [], [], []
  for name, kind in (("inter", INTER_VIDEO), ("intra", INTRA_VIDEO)):
    for row in multiple_choice(world, "test", size.tests, kind).values():
      kinds.append(name)
      choices.append([place(row["choices"][str(i)]) for i in range(CHOICES)])
      answer.append(row["answer"])
  found = Questions(tuple(kinds), np.array(choices, int), np.array(answer, int))
  own, others = found.of(ids)
  fair = (own[:, None] == others).all(-1).sum(1) == 1
  kept = tuple(kind for kind, is_fair in zip(kinds, fair, strict=True) if is_fair)
  return Questions(kept, found.choices[fair], found.answer[fair])
