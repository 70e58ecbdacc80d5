"""The world's narrations as records, with scenes, and EgoMCQ's questions on them."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from vfe.data import decode, sources
from vfe.data.narration import Narration
from vfe.data.sampling import Sampling
from vfe.data.tabletop.lexicon import corpus
from vfe.data.tabletop.story import scenario
from vfe.data.tabletop.text import narrations
from vfe.data.tabletop.world import FPS, NOUNS, VERBS, World
from vfe.data.text import train_vocabulary
from vfe.errors import UserError
from vfe.evaluate.egomcq import questions_of
from vfe.tools.tabletop import annotations

DATA = ConfigDict(dict(
  source="tabletop", variant="narrations", frames=256, size=32,
  tabletop=dict(rung="routine", videos=4, eval_videos=5, frames=256, size=32, seed=0),
))  # fmt: skip


@pytest.fixture(scope="module")
def opened():
  return {split: sources.open_split(DATA, split) for split in ("train", "validation")}


def rows(index, split):
  world = World(rung="routine", size=32, frames=256)
  return narrations(scenario(world, index, split))


def test_every_event_is_a_record_with_its_tags(opened):
  train = opened["train"]
  expected = [row for index in range(4) for row in rows(index, "train")]
  assert len(train) == len(expected) and train.heads == {}
  for record, row in zip((train[i] for i in range(len(train))), expected, strict=True):
    assert (record.start, record.end) == (row["clip_start"], row["clip_end"])
    assert record.text == {
      "caption": row["clip_text"], "nouns": tuple(row["tag_noun"]), "verbs": tuple(row["tag_verb"])
    }  # fmt: skip
  record, row = train[1], expected[1]
  frames = round((row["clip_end"] - row["clip_start"]) * FPS)
  clip = decode.read_clip(record, 4, Sampling("segment"), None)
  assert decode.probe(record).frames == frames and clip.frames.shape == (4, 32, 32, 3)


def test_scenes_are_those_of_the_narrations(opened):
  train = opened["train"]
  scene = [row["scene_id"] for index in range(4) for row in rows(index, "train")]
  for i in range(len(train)):
    assert train.scenes.members(i).tolist() == [j for j, of in enumerate(scene) if of == scene[i]]
  assert any(len(train.scenes.members(i)) > 1 for i in range(len(train)))


def test_its_rows_are_multi_hot_over_its_own_taxonomy(opened, tmp_path):
  world = World(rung="routine", size=32, frames=256)
  (tmp_path / "tokenizer.json").write_text(train_vocabulary(corpus(world, "train", 4), 200))
  spec = Narration(str(tmp_path), length=16, **opened["train"].taxonomy)
  row = spec.row(opened["train"][0], np.random.default_rng(0))
  assert row["nouns"].shape == (len(NOUNS),) and row["verbs"].shape == (len(VERBS),)
  assert np.flatnonzero(row["verbs"]).tolist() == rows(0, "train")[0]["tag_verb"]


def test_at_evaluation_records_are_the_clips_of_questions(opened):
  source = opened["validation"]
  asked = questions_of(source)
  kinds = [q.kind for q in asked]
  assert kinds.count("inter") > 2 and kinds.count("intra") > 0
  for q in asked:
    files = {source[clip].path for clip in q.clips}
    assert len(q.clips) == 5 and len(files) == (5 if q.kind == "inter" else 1)
    right = source[q.clips[q.answer]]
    said = [
      row["clip_text"] for index in range(5) for row in rows(index, "validation")
      if right.name.startswith(f"{row['video_uid']} ") and row["clip_start"] == right.start
    ]  # fmt: skip
    assert right.text["caption"][q.caption] in said


def test_too_few_videos_for_five_clips_are_told():
  small = ConfigDict(DATA)
  small.tabletop.update(eval_videos=2, frames=32, rung="verb")
  with pytest.raises(UserError, match=r"data\.tabletop\.eval_videos=2 gives no questions of five"):
    sources.open_split(small, "validation")


def test_another_variant_is_told():
  with pytest.raises(UserError, match=r"data\.variant='narration' is unknown \(nearest: narr"):
    sources.open_split(ConfigDict({**DATA, "variant": "narration"}), "train")


def test_what_is_written_in_the_official_layouts_is_read_as_the_same(tmp_path, opened):
  """Across egoclip.csv and egomcq.json: the world's own readers and the official files' agree."""
  train = opened["train"]
  world = World(rung="routine", size=32, frames=256)
  for split in ("train", "validation"):
    annotations(world, split, 4 if split == "train" else 5, tmp_path / split)
    for i in range(5):
      (tmp_path / split / f"tabletop-{split}-{i:06d}.mp4").touch()
  data = ConfigDict(dict(
    source="egoclip", path=str(tmp_path / "train"), eval_path=str(tmp_path / "validation"),
    variant=None,
  ))  # fmt: skip
  narrated, asked = (sources.open_source(data, split) for split in ("train", "validation"))
  parts = lambda source: [(r.start, r.end, r.text) for r in (source[i] for i in range(len(source)))]
  assert parts(narrated) == parts(train)
  ours, theirs = questions_of(opened["validation"]), questions_of(asked)
  assert [(q.kind, q.answer, q.clips, q.places, q.caption) for q in ours] == [
    (q.kind, q.answer, q.clips, q.places, q.caption) for q in theirs
  ]  # fmt: skip
