"""Ego4D's files as they are published: narrations train, questions measure, pictures show."""

import csv
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

import vfe
from vfe.data.tabletop import encode
from vfe.train import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = (
  "video_uid", "video_dur", "narration_source", "narration_ind", "narration_time", "clip_start",
  "clip_end", "clip_text", "tag_verb", "tag_noun",
)  # fmt: skip
SAID = ("#C C picks a cup.", "#C C cuts an onion!", "#C C opens the fridge", "#C C washes a pan")


def moment(uid, i):
  """The columns of a narration, of a second of a video of four."""
  values = (uid, 4.0, "narration_pass_1", i, i + 0.5, float(i), i + 1.0, SAID[i], f"[{i}]",
            f"[{10 * i}]")  # fmt: skip
  return dict(zip(COLUMNS, values, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two videos, their narrations, and two questions of either kind."""
  folder = tmp_path_factory.mktemp("ego4d")
  rng = np.random.default_rng(0)
  for uid in ("aaaa", "bbbb"):
    frames = rng.integers(0, 255, (64, 16, 16, 3), dtype=np.uint8)
    encode(frames, folder / f"{uid}.mp4", fps=16)
  rows = [moment(uid, i) for uid in ("aaaa", "bbbb") for i in range(4)]
  with (folder / "egoclip.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, COLUMNS, delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
  questions = {}
  for i in range(4):
    kind, clips = (2, rows[:4]) if i < 2 else (1, [rows[i], *rows[4:7]])
    answer = i if kind == 2 else 0
    choices = {str(n): clip for n, clip in enumerate(clips)}
    questions[str(i)] = {"answer": answer, "types": kind, "query": clips[answer],
                         "choices": choices}  # fmt: skip
  (folder / "egomcq.json").write_text(json.dumps(questions))
  return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
  spec = importlib.util.spec_from_file_location("svitt_ego", ROOT / "configs" / "svitt_ego.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(f"demo,data={folder}")
  config.update_from_flattened_dict(
    {
      "model.size": "test",
      "model.text": "test",
      "model.joint": 16,
      "data.frames": 2,
      "data.size": 16,
      "data.text.length": 8,
      "log.tensorboard": False,
      "vocabulary.size": 60,
      "pretrain.batch": 8,
      "pretrain.eval_batch": 8,
      "pretrain.steps": 2,
      "pretrain.edges.size": 8,
      "pretrain.edges.random": 1,
      "pretrain.pruning.after": (0,),
      "pretrain.measures.judged.data.source": "",  # of matching, a program more to compile
    }
  )
  workdir = tmp_path_factory.mktemp("run")
  return workdir, run.recipe(config, workdir=workdir, devices=jax.devices()[:1])


def test_narrations_train_and_questions_measure(trained):
  workdir, results = trained
  metrics = results["stages"]["pretrain"]["metrics"]
  assert metrics["egomcq/inter/questions"] == metrics["egomcq/intra/questions"] == 2
  assert 0 <= metrics["egomcq/inter/accuracy"] <= 1
  assert (workdir / "pretrain" / "egomcq" / "egomcq.csv").is_file()
  assert (workdir / "pretrain" / "pictures" / "pruned_tokens.png").is_file()
  line = json.loads((workdir / "pretrain" / "metrics.jsonl").read_text().splitlines()[0])
  assert {"contrast/loss", "match/loss", "words/loss", "contrast/positives"} <= set(line)


def test_what_was_trained_reads_narrations_as_they_are_written(trained):
  ego = vfe.load(trained[0] / "pretrain")
  texts = np.asarray(ego.embed_text(["#C C picks a cup.", "c c picks a cup", "c c washes a pan"]))
  np.testing.assert_allclose(texts[0], texts[1], atol=1e-6)
  assert np.abs(texts[0] - texts[2]).max() > 1e-4
  video = np.zeros((1, 2, 16, 16, 3), np.uint8)
  assert ego.match(video, ["c c picks a cup"]).shape == (1, 1)
