"""The machinery of the study of narrations at minimal size; nothing is learned here."""

import math
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # studies/ is not installed

from studies import narrations, narrations_data, narrations_report, records
from studies.narrations_sizes import BASELINES, CONDITIONS, SIZES

TEST = SIZES["test"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  """With the baselines and a condition whose training, long to compile, does nothing."""
  folder = tmp_path_factory.mktemp("narrations")
  study = narrations.Study("test", folder, folder / "clips")
  untrained = lambda *_: lambda name, params, rows, keys: (params, np.zeros(1))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("studies.narrations_jobs.make_trainer", untrained)
    for job in (BASELINES[0], "egonce-dense"):
      study.run(job, (1,))
  return study


@pytest.fixture(scope="module")
def clips(study):
  return {split: narrations_data.draw(TEST, 1, split, study.clips) for split in ("train", "test")}


def test_a_row_that_is_there_is_not_computed_again(study):
  rows = records.read(study.path)
  assert [row["condition"] for row in rows] == [*BASELINES, "egonce-dense"]
  assert math.isfinite(rows[-1]["training_loss"])
  assert all(0 <= row["scores"][f"{k}/accuracy"] <= 1 for row in rows for k in ("inter", "intra"))
  assert study.missing("egonce-dense", (0, 1)) == study.missing(BASELINES[0], (0,)) == (0,)
  study.run("egonce-dense", (1,))
  assert records.read(study.path) == rows
  report = narrations_report.text(rows, "test", study.size)
  assert "| egonce-dense | 1 |" in report
  assert report.count("not run |") > 10


def test_every_job_waits_for_the_clips_of_its_seed(study):
  jobs = narrations.jobs(study, (0, 1))
  assert len(jobs) == 2 * (1 + len(CONDITIONS))
  names = list(jobs)
  for (name, seed), job in jobs.items():
    assert job.after == (() if name == BASELINES[0] else ((BASELINES[0], seed),))
    assert all(names.index(other) < names.index((name, seed)) for other in job.after)


def test_one_who_knows_the_words_of_every_clip_answers_all(clips):
  rows = clips["test"]
  asked = narrations_data.questions(TEST, 1, rows["ids"])
  assert set(asked.kinds) == {"inter", "intra"}
  words = (rows["ids"][..., None] == np.arange(narrations_data.VOCABULARY)).any(2)
  places = rows["ids"] * np.arange(1, TEST.length + 1)  # the order of a swap's objects, too
  known = np.concatenate([words, np.eye(1 + places.max())[places].any(2)], -1).astype(np.float32)
  scores = asked.answered(known, known)
  assert scores["inter/accuracy"] == scores["intra/accuracy"] == 1


def test_a_neighbour_is_another_event_of_the_same_eight_seconds(clips):
  import jax

  from studies.narrations_jobs import Run

  rows = clips["train"]
  events = rows["there"].shape[1]
  run, keys = Run(TEST, CONDITIONS["egonce-3"]), jax.random.split(jax.random.key(0), 8)
  batch = jax.device_get(run.batch(jax.tree.map(np.asarray, rows), keys))
  video, event = divmod(batch["clip"].reshape(8, 2), events)
  np.testing.assert_array_equal(video, np.arange(8)[:, None].repeat(2, 1))
  assert np.all(event[:, 0] != event[:, 1])
  scene = rows["scene"][video, event]
  assert np.all(scene[:, 0] == scene[:, 1])
  assert np.all(scene >= 0)
  ids = rows["ids"][video, event].reshape(16, -1)
  np.testing.assert_array_equal(batch["ids"], ids)
  assert batch["clips"].shape == (16, TEST.seen, 16, 16, 3)


def test_words_of_claims():
  scores = lambda inter, intra: {"inter/accuracy": inter, "intra/accuracy": intra}
  row = lambda name, seed, *of: {"condition": name, "seed": seed, "scores": scores(*of)}
  rows = [row("egonce-3", s, 0.9, 0.6 + s / 99) for s in range(3)]
  rows += [row("info_nce-3", s, 0.89, 0.5 + s / 99) for s in range(3)]
  said = {
    (of.worse, of.kind): narrations_report.verdict(rows, of)
    for of in narrations_report.COMPARISONS
    if of.better == "egonce-3"
  }
  assert said["info_nce-3", "intra"] == said["info_nce-3", "inter"] == "held"
  assert said["info_nce-3", narrations_report.GAIN] == "held"
  assert said["egonce-dense", "intra"] == "not run"
  blind = [row(n, s, 0.2, 0.2) for s in range(3) for n in ("egonce-3", "info_nce-3")]
  claim = narrations_report.COMPARISONS[0]
  assert narrations_report.verdict(blind, claim) == "not shown at this size"
