"""EgoMCQ from its file: clips of many questions are one record, and what is wrong is refused."""

import json
import logging

import pytest

from vfe import config as configs
from vfe.data import sources
from vfe.data.ego4d import egoclip, egomcq
from vfe.errors import UserError

VIDEOS = (*(f"v{i}.mp4" for i in range(5)), "w/0.mp4", "w/1.mp4")
INTER = [(f"v{i}", 1.0, 2.0) for i in range(5)]
INTRA = [("w", 598.0 + i, 599.5 + i) for i in range(5)]


@pytest.fixture
def opened(make, config):
  """The records of these questions."""

  def of(*questions, videos=VIDEOS):
    file = {egomcq.FILE: {str(i): row for i, row in enumerate(questions)}}
    source = sources.open_source(config("egoclip", make(file, *videos)), "validation")
    return [source[i] for i in range(len(source))]

  return of


def test_a_clip_is_one_record_that_says_of_which_questions_it_is_a_choice(opened, question):
  records = opened(
    question(2, "inter", INTER, "#C C lifts"),
    question(2, "inter", INTER[::-1], "#C C drops"),
    question(4, "intra", INTRA, "#C C cuts"),
  )
  assert len(records) == 10
  middle = records[2]
  assert middle.name == "v2 [1, 2) s" and middle.text["caption"] == ("#C C lifts", "#C C drops")
  assert middle.text["choices"] == (
    {"question": "0", "option": 2, "options": 5, "answer": 2, "kind": "inter", "caption": 0},
    {"question": "1", "option": 2, "options": 5, "answer": 2, "kind": "inter", "caption": 1},
  )
  assert records[0].text["asked"] == middle.text["asked"] == ("#C C lifts", "#C C drops")
  assert records[0].text["caption"] == () and records[0].text["choices"][1]["option"] == 4
  assert records[0].text["choices"][0]["caption"] == -1
  crossing = [record for record in records if record.then]
  assert [record.name for record in crossing] == ["w [599, 600.5) s"]
  assert records[-1].text["choices"][0]["kind"] == "intra"


def test_questions_without_all_their_clips_are_counted(opened, question, caplog):
  with caplog.at_level(logging.WARNING):
    records = opened(
      question(0, "inter", INTER),
      question(0, "inter", [("gone", 1.0, 2.0), *INTER[1:]]),
      question(0, "intra", [("w", 1199.0, 1201.0 + i) for i in range(5)]),
    )
  assert len(records) == 5
  said = [record.getMessage() for record in caplog.records]
  assert [line.partition(", question")[2] for line in said] == [
    " 1: gone is not there; left out: 1 questions of videos that are not there, 1 are used.",
    " 2: w, chunk 2 of 600 s is not there; left out: 1 questions of chunks that are not there, 1 "
    "are used.",
  ]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(answer=5), "answer 5 is not one of its 5 choices, numbered 0 to 4"),
    (dict(answer=-1), "answer -1 is not one of its 5"),
    (dict(answer="2"), "answer '2' is not one of its 5"),
    (dict(answer=True), "answer True is not one of its 5"),
    (dict(types=0), r"types 0 is neither 1 \(inter-video\) nor 2 \(intra-video\)"),
    (dict(types=3), "types 3 is neither"),
    (dict(query={}), "a query without clip_text"),
    (dict(choices={}), "choices are not clips numbered from 0"),
    (dict(choices={"0": {}, "2": {}}), "choices are not clips"),
  ],
)
def test_what_cannot_be_a_question_is_refused(opened, question, changes, message):
  with pytest.raises(UserError, match=rf"egomcq\.json, question 0: {message}"):
    opened({**question(0, "inter", INTER), **changes})


def test_a_file_cut_short_is_refused_with_its_line(make, config, question):
  whole = json.dumps({str(i): question(0, "inter", INTER) for i in range(2)}, indent=1)
  folder = make({egomcq.FILE: whole[: len(whole) // 2]}, *VIDEOS)
  with pytest.raises(UserError, match=r"egomcq\.json, line \d+: not JSON from here on"):
    sources.open_source(config("egoclip", folder), "validation")


def test_a_choice_whose_clip_ends_before_it_begins_is_refused(opened, question):
  with pytest.raises(UserError, match=r"question 0: choices are not clips .* before clip_end"):
    opened(question(0, "inter", [("v0", 2.0, 1.0), *INTER[1:]]))
  with pytest.raises(UserError, match=r"question 0: types None is neither"):
    opened([])


def test_intra_video_questions_of_several_videos_are_told(opened, question, caplog):
  with caplog.at_level(logging.WARNING):
    opened(question(0, "intra", INTER), question(0, "intra", INTRA))
  assert "question 0: called intra-video (types 2), but" in caplog.text
  assert "as those of 1 of 2 questions are" in caplog.text


def test_the_folder_is_known_by_either_file(make, config, question):
  folder = make({egomcq.FILE: {"0": question(0, "inter", INTER)}}, *VIDEOS)
  assert configs.data_source(str(folder)) == ("egoclip", str(folder))
  assert configs.data_source("egoclip") == ("egoclip", None)
  with pytest.raises(UserError, match="holds no train split"):
    sources.open_source(config("egoclip", folder), "train")
  (folder / egomcq.FILE).rename(folder / egoclip.FILE)
  assert configs.data_source(str(folder)) == ("egoclip", str(folder))


def test_a_folder_without_the_files_and_a_variant_are_told(make, config):
  folder = make({})
  with pytest.raises(UserError, match=rf"{folder}: holds no egoclip\.csv or egomcq\.json .*video"):
    sources.open_source(config("egoclip", folder), "train")
  with pytest.raises(UserError, match=r"gone does not exist; data\.source='egoclip' wants a fold"):
    sources.open_source(config("egoclip", folder / "gone"), "train")
  with pytest.raises(UserError, match=r"data\.variant='x' is unknown to data\.source='egoclip'"):
    sources.open_source(config("egoclip", folder, "x"), "train")


def test_the_example_in_the_official_layout_is_read(real_data, make, config):
  """Made up, in the layout that the official loader reads; question 1 crosses a chunk border."""
  file = real_data / "annotations/egoclip_egomcq_format/egomcq_SYNTHETIC.json"
  uid = "00000000-0000-0000-0000-00000000000{}"
  videos = [f"{uid.format(i)}/{k}.mp4" for i in range(6) for k in (0, 1)]
  folder = make({egomcq.FILE: json.loads(file.read_text())}, *videos)
  source = sources.open_source(config("egoclip", folder), "validation")
  records = [source[i] for i in range(len(source))]
  assert len(records) == 10
  kinds = [record.text["choices"][0]["kind"] for record in records]
  assert kinds == ["inter"] * 5 + ["intra"] * 5
  answers = [record.text["caption"] for record in records if record.text["caption"]]
  assert answers == [("#C C cuts an onion",), ("#C C washes a plate",)]
  crossing = [record for record in records if record.then]
  assert [record.name[37:] for record in crossing] == ["[598.3, 600.3) s", "[599.6, 601.6) s"]
