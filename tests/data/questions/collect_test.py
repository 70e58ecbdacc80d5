"""What all readers of questions share: checking, counting, choosing."""

import pytest

from vfe import config as configs
from vfe.data import sources
from vfe.data.questions import READERS
from vfe.data.questions.collect import Question, Questions
from vfe.errors import UserError


@pytest.fixture
def questions(make):
  return Questions("set", str(make({}, "a.mp4")))


def asked(words="who?", place="list, line 7"):
  return Question(place, "q1", "a", words, "W")


def test_a_question_is_a_record_with_its_text(questions):
  video = questions.video("test", "a")
  questions.add_choice("test", video, asked(" who \n is it"), [" she", "he "], "1", (1.0, 2.5))
  questions.add_open("test", video, asked(), ["yes", None, " yes ", "it is"])
  choice, unbound = questions.listing().splits["test"]
  same = {"id": "q1", "video": "a", "type": "W"}
  assert choice.text == same | {
    "question": "who is it", "options": ("she", "he"), "answer": 1, "answers": ("he",)
  }  # fmt: skip
  assert unbound.text == same | {"question": "who?", "answers": ("yes", "it is")}
  assert (choice.path, choice.start, choice.end) == (video, 1.0, 2.5)


@pytest.mark.parametrize("unknown", [None, -1, "-1"])
def test_an_answer_that_is_not_published_is_minus_one(questions, unknown):
  questions.add_choice("test", "a.mp4", asked(), ["she", "he"], unknown)
  text = questions.listing().splits["test"][0].text
  assert text["answer"] == -1 and text["answers"] == ()


@pytest.mark.parametrize("options", [[], ["one"], ["one", " "], ["one", None, "two"]])
def test_a_question_without_options_is_an_error(questions, options):
  with pytest.raises(UserError, match="list, line 7: a question without options, or with an empty"):
    questions.add_choice("test", "a.mp4", asked(), options, 0)


@pytest.mark.parametrize("answer", [2, "2", -2, 0.5, "he", float("nan"), float("inf"), [0]])
def test_an_answer_that_is_no_option_is_an_error(questions, answer):
  with pytest.raises(UserError, match=r"list, line 7: answer .* is not one of its 2 options.*to 1"):
    questions.add_choice("test", "a.mp4", asked(), ["she", "he"], answer)


def test_what_says_nothing_is_counted(questions, caplog):
  questions.add_choice("test", "a.mp4", asked(None), ["she", "he"], 0)
  questions.add_open("test", "a.mp4", asked(" "), ["yes"])
  questions.add_open("test", "a.mp4", asked(), [None, ""])
  questions.add_open("test", "a.mp4", asked(), ["yes"])
  assert len(questions.listing().splits["test"]) == 1
  assert "list, line 7: no question; left out, as are 2 other rows" in caplog.text


@pytest.mark.parametrize("source", READERS)
def test_every_data_set_is_a_source_that_tells_a_stranger_what_it_wants(source, make, config):
  folder = make({})
  with pytest.raises(UserError, match=rf"{folder}: holds no .*docs/video-text\.md"):
    sources.open_source(config(source, folder), "validation")
  with pytest.raises(UserError, match=rf"gone does not exist; data\.source='{source}' wants a fol"):
    sources.open_source(config(source, folder / "gone"), "validation")
  with pytest.raises(UserError, match=rf"data\.variant='3k' is unknown to data\.source='{source}'"):
    sources.open_source(config(source, folder, "3k"), "validation")
  assert configs.data_source(source) == (source, None)


@pytest.mark.parametrize(
  ("file", "source"),
  [
    ("subset_answers.json", "egoschema"),
    ("uid_to_ego4d.json.gz", "egoschema"),
    ("map_vid_vidorID.json", "nextqa"),
    ("mc_question_valid.json", "perception_test"),
    ("train_q.json.gz", "activitynet_qa"),
    ("test_qa.json", "msrvtt_qa"),
  ],
)
def test_a_folder_is_known_by_its_official_files(make, file, source):
  folder = make({file: ""})
  assert configs.data_source(str(folder)) == (source, str(folder))
