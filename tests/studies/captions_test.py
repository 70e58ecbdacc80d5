"""The captions study's machinery at minimal size; nothing is learned here."""

import math
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # studies/ is not installed

from studies import captions, captions_report, captions_texts, records
from studies.captions_sizes import ENCODERS, SIZES
from vfe.data.segments import joined
from vfe.data.tabletop import story, text
from vfe.data.tabletop.world import World

pytest.importorskip("pycocoevalcap")
TEST = SIZES["test"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  """A language model that is not trained, and the rival, of encoders drawn at random."""
  import jax

  from studies import contrast_jobs
  from studies.contrast_sizes import CONDITIONS

  folder = tmp_path_factory.mktemp("captions")
  study = captions.Study("test", folder, folder / "encoders", folder / "parameters")
  for name in ENCODERS:
    run = contrast_jobs.Run(TEST.world, CONDITIONS[name])
    params = jax.jit(run.init)(jax.random.key(0))
    drawn = jax.tree.map(lambda x: np.asarray(x)[None], params)
    contrast_jobs.save(study.before.encoders, name, (1,), drawn)
  untrained = lambda name, loss, schedule, params, data, seed, trained=None: (params, 0.0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("shutil.which", lambda name: None)  # no Java, which is slow
    with patch.context() as language:
      language.setattr("studies.captions_jobs.fitted", untrained)  # its program is long to compile
      study.run("language", (1,))
    study.run("segments", (1,))
  return study


def test_a_row_that_is_there_is_not_computed_again(study):
  rows = records.read(study.path)
  assert [row["condition"] for row in rows] == ["language", "oracle", "truth", "segments"]
  assert all(math.isfinite(row["training_loss"]) for row in rows if "training_loss" in row)
  assert study.missing("segments", (0, 1)) == study.blind((0, 1)) == (0,)
  study.run("segments", (1,))
  assert records.read(study.path) == rows
  report = captions_report.text(rows, "test", study.size)
  assert "not official" in report
  assert report.count("not run |") > 20


def test_the_truth_is_best_and_everything_is_measured(study):
  rows = {row["condition"]: row for row in records.read(study.path)}
  assert rows["truth"]["written"]["summary"]["right"]["exact"] == 1
  assert set(rows["segments"]["written"]) == {"caption", "part", "summary"}
  for name in ("segments", "oracle"):
    for answered in rows[name]["answered"].values():
      asked = {kind: (of["n"], of["options"]) for kind, of in answered.items()}
      assert asked == {"whole": (6, 5), "order": (6, 2)}
      assert all(0 <= of["hits"] <= of["n"] for of in answered.values())


def test_what_is_seen_of_a_long_video():
  from studies.captions_eyes import VIEWS

  video = np.arange(2 * 8).reshape(2, 8, 1, 1, 1)
  seen = {name: view(video, 4)[..., 0, 0, 0].tolist() for name, view in VIEWS.items()}
  assert seen["all"][1] == list(range(8, 16))
  assert seen["spread"][1] == [8, 10, 12, 14]
  assert seen["first"][1] == [8, 9, 10, 11]
  assert seen["parts"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_only_what_lies_between_is_trained(study):
  from studies.captions_jobs import load
  from vfe.learn.paths import named_leaves

  leaves = named_leaves(load(study.parameters, "segments", 1))
  assert {name.split("/")[0] for name in leaves} == {"resampler", "bridge"}
  assert np.any(leaves["bridge/blocks/gate"] != 0)


def test_the_encoders_are_made_first_where_they_are_not_there(study):
  jobs = captions.jobs(study, (0, 1))
  assert jobs["long", 1].after == (("language", 1),)
  made = [name for name in jobs if name[0] == "encoder"]
  assert made == [("encoder", name, 0) for name in ("image", "joint-0", "long-full")]
  assert jobs["encoder", "joint-0", 0].after == (("encoder", "image", 0),)
  assert set(made) < set(jobs["long", 0].after)


def test_texts_name_no_object_and_tell_both_orders_apart():
  world = World(frames=128, rung="order", objects=(2, 2), seed=3)
  for index in range(12):
    scene = story.scenario(world, index)
    said = captions_texts.said(scene, 16)
    own = text.segments(scene)
    for thing in scene.things:
      own = own.replace(f"the {thing.name}", "something")
    plain = captions_texts.plain
    assert plain(joined(said["part"])) == plain(own)
    assert all(len(of) == 1 for kind, of in said.items() if kind != "part")
    asked = captions_texts.questions(world, scene)
    for question in asked.values():
      assert plain(question.options[question.answer]) == plain(said["answer"][0])
    first, second = (sorted(plain(option).split()) for option in asked["order"].options)
    assert [w for w in first if w != ","] == [w for w in second if w != ","]


def test_rows_are_prompts_and_answers():
  rows = captions_texts.rows([("Caption.", "C shakes something"), ("Part.", None)])
  assert rows["ids"].shape == (2, 8)
  assert captions_texts.spoken(rows["ids"][0]) == "caption . c shakes something"
  assert captions_texts.spoken(rows["ids"][0][rows["answer"][0]]) == "c shakes something"
  assert rows["ids"][0, 6] == captions_texts.END
  assert not rows["answer"][1].any()
  assert rows["ids"][1].tolist()[3:] == [0] * 5


def test_words_of_claims():
  written = lambda own, other: {"summary": {"right": {"CIDEr": own}, "wrong": {"CIDEr": other}}}
  row = lambda name, seed, own, other: {
    "condition": name, "seed": seed, "written": written(own + seed / 100, other),
  }  # fmt: skip
  rows = [row("truth", s, 10.0, 3.0) for s in range(3)]
  rows += [row("long", s, 8.0, 3.0) for s in range(3)]
  rows += [row("spread", s, 3.0, 3.1) for s in range(3)]
  share = captions_report.share(rows, "long", "summary")
  assert share[0] == pytest.approx(5 / 7)
  assert captions_report.word(share, captions_report.LARGE) == "held"
  claim = captions_report.Comparison("", "summary", "long", "spread")
  assert captions_report.verdict(rows, claim) == "held"
  assert captions_report.verdict(rows[:-2], claim) == "not run"
  tie = captions_report.Comparison("", "summary", "long", "spread", ties=True)
  assert captions_report.verdict(rows, tie) == "not held"
  blind = captions_report.Comparison("", "summary", "spread", "spread")
  assert captions_report.verdict(rows, blind) == "not shown at this size"
