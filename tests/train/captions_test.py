"""Your own videos and pictures with captions: a vocabulary, two towers, their measures."""

import csv
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import vfe
from vfe.data.tabletop import encode
from vfe.learn import exports
from vfe.train import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Four clips and two pictures, captions and a label, in one list."""
  folder = tmp_path_factory.mktemp("captions")
  rng = np.random.default_rng(0)
  rows = []
  for i, colour in enumerate(("red", "blue", "red", "blue")):
    video = rng.integers(0, 60, (24, 32, 32, 3), dtype=np.uint8)
    video[..., 0 if colour == "red" else 2] += 150
    encode(video, folder / f"{i}.mp4")
    said = [f"a {colour} wall", f"someone films a {colour} wall"]
    split = "validation" if i > 1 else "train"
    labels = {"label_colour": colour, "label_size": "small"}  # of which one is asked for
    rows.append({"path": f"{i}.mp4", "captions": said, "split": split, **labels})
  for i in range(2):
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
  pictures = [{"path": f"p{i}.png", "captions": ["noise"]} for i in range(2)]
  for name, lines in (("clips", rows), ("pictures", pictures)):
    text = "".join(json.dumps(row) + "\n" for row in lines)
    (folder / f"{name}.jsonl").write_text(text)
  return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
  path = ROOT / "configs" / "longvivit_256.py"
  spec = importlib.util.spec_from_file_location("longvivit_256", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("demo")
  clips, pictures = str(folder / "clips.jsonl"), str(folder / "pictures.jsonl")
  config.update_from_flattened_dict(
    {
      "stages": ("vocabulary", "short"),
      "model.size": "test",
      "model.text": "test",
      "model.joint": 16,
      "data.source": "manifest",
      "data.path": clips,
      "data.text.key": "captions",
      "data.text.length": 12,
      "log.tensorboard": False,
      "vocabulary.size": 40,
      "vocabulary.keys_of_text": ("captions",),
      "short.inputs.encoder": "",
      "short.inputs.text": "",
      "short.inputs.vocabulary": "vocabulary",
      "short.mixture.images.data.path": pictures,
      "short.mixture.images.data.text.key": "captions",
      "short.zero_shot.head": "colour",
      "short.zero_shot.templates": ("a {} wall",),
      "short.batch": 16,
      "short.eval_batch": 8,
      "short.steps": 2,
    }
  )
  workdir = tmp_path_factory.mktemp("run")
  return workdir, run.recipe(config, workdir=workdir, devices=jax.devices()[:1])


def test_a_list_of_captions_trains_two_towers_and_measures_them(trained, folder):
  workdir, results = trained
  metrics = results["stages"]["short"]["metrics"]
  assert metrics["validation/clips"] == 2 and metrics["validation/captions"] == 4
  assert {"validation/text_to_video/R@1", "validation/video_to_text/median_rank"} <= set(metrics)
  assert metrics["zero_shot/clips"] == 2 and 0 <= metrics["zero_shot/colour/top1"] <= 1
  with (workdir / "short" / "retrieval.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["words"] for row in rows[:2]] == ["a red wall", "someone films a red wall"]
  line = json.loads((workdir / "short" / "metrics.jsonl").read_text().splitlines()[0])
  assert {"videos/loss", "images/loss", "images/top1/text_to_video"} <= set(line)


def test_the_export_reads_texts_by_its_own_vocabulary(trained):
  workdir, _ = trained
  export = exports.read(workdir / "short" / "export")
  words = (workdir / "vocabulary" / "export" / "tokenizer.json").read_text()
  assert json.loads((pathlib.Path(export.path) / "tokenizer.json").read_text()) == json.loads(words)
  towers = vfe.load(workdir / "short")
  texts = np.asarray(towers.embed_text(["a red wall", "someone films a red wall"]))
  np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
  assert abs(texts[0] @ texts[1]) < 1 - 1e-4
