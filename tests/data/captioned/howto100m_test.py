"""HowTo100M from its official files, and from summaries of one's own."""

import json

from vfe.data import sources
from vfe.data.captioned import howto100m

SPEECH = {
  "aaaaaaaaaaa": {
    "start": [0.5, 4, 9], "end": [4.25, 4, 12], "text": ["so we", "cut", float("nan")]
  },
  "bbbbbbbbbbb": {"start": [1], "end": [2], "text": ["now  boil\nit"]},
  "ccccccccccc": {"start": [1], "end": [2, 3], "text": ["x"]},
  "ddddddddddd": [1],
  "gone": {"start": [1], "end": [2], "text": ["x"]},
}
VIDEOS = [f"videos/{letter * 11}.mp4" for letter in "abcd"]


def clips(source):
  return [(r.start, r.end, r.text["caption"]) for r in (source[i] for i in range(len(source)))]


def test_every_narrated_span_is_a_clip(make, config, caplog):
  data = config("howto100m", make({"caption.json": SPEECH}, *VIDEOS))
  assert clips(sources.open_source(data, "train")) == [
    (0.5, 4.25, "so we"), (1.0, 2.0, "now boil it")
  ]
  assert "train 1 of 5; such as gone with .mp4" in caplog.text
  assert "video aaaaaaaaaaa, clip 2: start 4 is not before end 4; left out, as are 3" in caplog.text
  assert len(sources.open_source(data, "validation")) == 2  # said, as for any source


def test_the_list_of_videos_chooses_and_the_raw_speech_comes_first(make, config):
  raw = {"bbbbbbbbbbb": {"start": [1], "end": [2], "text": ["and now boil it"]}}
  videos = "video_id,category_1,rank,task_id\nbbbbbbbbbbb,Food,1,2\n"
  files = {"caption.json": SPEECH, "raw_caption.json.gz": SPEECH | raw, howto100m.VIDEOS: videos}
  data = config("howto100m", make(files, *VIDEOS))
  assert clips(sources.open_source(data, "train")) == [(1.0, 2.0, "and now boil it")]


def test_summaries_are_of_whole_videos(make, config, caplog):
  lines = [
    {"video_id": "aaaaaaaaaaa", "summary": " Bread is\n made."},
    {"path": "videos/bbbbbbbbbbb.mp4", "summary": "Water boils.", "split": "val"},
    {"path": "videos/gone.mp4", "summary": "Gone."},
    {"video_id": "ccccccccccc"},
    {"summary": "Of what?"},
    {"video_id": "ddddddddddd", "summary": "x", "split": "other"},
  ]
  text = "\n".join([*map(json.dumps, lines), "", "not json"])
  data = config("howto100m", make({howto100m.SUMMARIES: text}, *VIDEOS), "summaries")
  train = sources.open_source(data, "train")
  assert clips(train) == [(None, None, "Bread is made.")]
  assert train[0].text["summary"] == "Bread is made."
  assert clips(sources.open_source(data, "validation")) == [(None, None, "Water boils.")]
  assert "such as videos/gone.mp4." in caplog.text
  assert "line 4: no text (None); left out, as are 3 other rows" in caplog.text
