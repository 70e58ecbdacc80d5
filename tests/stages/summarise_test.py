"""Transcripts become summaries that a data set of summaries is read from."""

import json

import jax
import pytest

from vfe.data.captioned.howto100m import list_howto100m
from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.data.transcripts import transcripts
from vfe.errors import UserError
from vfe.learn import sharding
from vfe.models import pretrained
from vfe.stages.stage import Setting
from vfe.stages.summarise import SummariseStage


def span(video, start, said, end=None):
  text = {} if said is None else {"caption": said}
  return VideoRecord(f"{video} {start}", str(video), start=start, end=end, text=text)


def test_spans_are_joined_in_order_of_time_and_long_ones_are_cut():
  spans = [span("b", 4.0, "the ball"), span("a", 9.0, "a cup"), span("a", 1.0, "the red"),
           span("c", 0.0, None)]  # fmt: skip
  found = transcripts(ListedSource("asr", {}, spans), "caption", 3)
  said = {found[i].name: found[i].text["transcript"] for i in range(len(found))}
  assert said == {"b": "the ball", "a": "the red a"}
  assert found[0].start is None and found[0].path == "b"


def test_what_is_written_is_read_as_howto100m_summaries(tmp_path, caption_run):
  videos = tmp_path / "videos"
  videos.mkdir()
  files = [videos / "a.mp4", videos / "b.mp4"]
  for file in files:
    file.touch()
  source = ListedSource("asr", {}, [span(f, t, "red cup") for f in files for t in (0.0, 2.0)])
  config = caption_run(tmp_path / "run", tmp_path).setting.config
  with config.unlocked():
    config.summaries.update(eval_batch=2, words=5, template="answer: {transcript} the video:")
    config.summaries.data.text.length = 40
  mesh, of = sharding.make_mesh(None, jax.devices()[:1]), lambda data, split: source
  inputs = {"language": pretrained.read(tmp_path / "language")}
  setting = Setting("summaries", config, tmp_path / "summaries", inputs, mesh, of)
  setting.folder.mkdir()
  assert SummariseStage(setting).run(lambda line: None) == {"summaries": 2.0}
  lines = [json.loads(line) for line in (setting.folder / "summaries.jsonl").open()]
  prompt = "answer: red cup red cup the video:"
  said = pretrained.load(tmp_path / "language").generate([prompt], words=5)[0].strip()
  assert lines == [{"path": str(file), "summary": said} for file in files]
  (tmp_path / "summaries.jsonl").write_text((setting.folder / "summaries.jsonl").read_text())
  entries = list_howto100m(str(tmp_path), "summaries").splits["train"]
  assert [entry.text["caption"] for entry in entries] == [said, said]


def test_a_language_model_is_needed(tmp_path, caption_run):
  config = caption_run(tmp_path / "run", tmp_path).setting.config
  mesh = sharding.make_mesh(None, jax.devices()[:1])
  with pytest.raises(UserError, match=r"config\.summaries\.inputs\.language is not set"):
    SummariseStage(Setting("summaries", config, tmp_path, {}, mesh))
