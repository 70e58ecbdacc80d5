"""The rival tells a video's segments, and a language model goes on from what was told."""

import csv
import json

import jax
import pytest

from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.data.tabletop import World, encode, render, scenario
from vfe.errors import UserError
from vfe.learn import sharding
from vfe.models import pretrained
from vfe.stages.segments import SegmentsStage
from vfe.stages.stage import Setting

FRAMES = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory, caption_run):
  """The stage, run on three questions about two videos, and its metrics."""
  folder = tmp_path_factory.mktemp("segments")
  world = World(rung="verb", frames=FRAMES, size=32)
  records = []
  for i in range(2):
    path = folder / f"{i}.mp4"
    encode(render(world, scenario(world, i, "train")), path)
    for number in range(2 - i):
      text = {
        "summary": "a red cup", "question": "which ball", "options": ("red", "blue"), "answer": i,
        "segments": "never read",
      }  # fmt: skip
      name = f"{i}, question {number}"
      records.append(VideoRecord(name, str(path), labels={"verb": 1}, text=text))
  source = ListedSource("clips", {"verb": ("lift", "tap")}, records)
  caption = caption_run(folder / "run", folder, source)
  config = caption.setting.config
  inputs = {
    "captioner": pretrained.read(folder / "run" / "caption"),
    "language": pretrained.read(folder / "language"),
  }
  mesh = sharding.make_mesh(None, jax.devices()[:1])
  of = lambda data, split: source
  setting = Setting("segments", config, folder / "run" / "segments", inputs, mesh, of)
  with config.unlocked():
    config.segments.update(eval_batch=2, seconds=1.0)
    config.segments.data.text.length = 128
    config.segments.written.summary.words = 4
    config.segments.generate.beams = 1
    config.segments.questions.validation.data.source = "manifest"
  setting.folder.mkdir()
  stage = SegmentsStage(setting)
  return stage, stage.run(lambda line: None), folder


def test_each_second_of_each_video_is_told_once(made):
  stage, metrics, _ = made
  lines = [json.loads(line) for line in (stage.setting.folder / "segments.jsonl").open()]
  assert [len(line["segments"]) for line in lines] == [3, 3]
  assert metrics["segments"] == 6.0


def test_a_segment_is_told_as_the_captioner_tells_that_part_of_the_video(made):
  stage, _, folder = made
  lines = [json.loads(line) for line in (stage.setting.folder / "segments.jsonl").open()]
  captioner = pretrained.load(folder / "run" / "caption")
  row = 4  # the second video's second segment, after three of the first one
  clip = captioner.read(lines[1]["video"], "caption", start=1.0, end=2.0)
  assert lines[1]["segments"][1] == captioner.describe(clip, "caption", rows=[row])[0]


def test_the_language_model_reads_what_was_told_and_no_truth(made):
  stage, _, folder = made
  data = stage.data_of("written.summary", stage.config.written.summary.data)
  source = stage.source_of(data, "validation")
  prompt = stage.prompt(stage.config.written.summary.template, data).said(source[0])
  told = json.loads((stage.setting.folder / "segments.jsonl").open().readline())["segments"]
  assert prompt.startswith("Part 1: ") and "never read" not in prompt and told[2] in prompt
  language = pretrained.load(folder / "language")
  with (stage.setting.folder / "summary" / "captions.csv").open() as file:
    found = next(csv.DictReader(file))["caption"]
  assert found == language.generate([prompt], words=4)[0].strip()


def test_there_is_nothing_to_be_blind_to(made):
  _, metrics, _ = made
  assert metrics["validation/questions"] == 3
  assert metrics["validation/sum/accuracy"] == metrics["validation/blind_sum/accuracy"]


def test_a_captioner_is_needed(made):
  stage, _, _ = made
  setting = stage.setting
  inputs = {"language": setting.inputs["language"]}
  other = Setting("segments", setting.config, setting.folder, inputs, setting.mesh)
  with pytest.raises(UserError, match=r"config\.segments\.inputs\.captioner is not set"):
    SegmentsStage(other)


