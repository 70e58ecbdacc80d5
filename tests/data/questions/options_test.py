"""Open-ended questions as a choice among the training split's answers."""

import dataclasses
import pickle

import numpy as np
import pytest

from vfe.data.questions.options import frequent_answers, with_options
from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.errors import UserError
from vfe.evaluate.multiple_choice import MultipleChoice


def source(*answers, name="asked"):
  texts = [{"question": f"what is {i}?", "answers": of} for i, of in enumerate(answers)]
  records = [VideoRecord(name=f"{i}.mp4", path=f"{i}.mp4", text=t) for i, t in enumerate(texts)]
  return ListedSource(name, {"verb": ("push",)}, records)


TRAINING = source(("man",), ("dog", "cat"), ("man",), ("cat", "cat"), ("dog",), ("eel",), ("bee",))


def test_options_are_the_most_frequent_answers_and_equals_go_by_the_alphabet():
  assert frequent_answers(TRAINING, 4) == ("cat", "dog", "man", "bee")
  assert frequent_answers(TRAINING, 9) == ("cat", "dog", "man", "bee", "eel")


def test_a_question_gains_options_and_the_number_of_its_answer():
  asked = source(("dog",), ("ant", "man", "cat"), ("ant",), ())
  chosen = with_options(asked, TRAINING, 3)
  texts = [chosen[i].text for i in range(len(chosen))]
  assert {text["options"] for text in texts} == {("cat", "dog", "man")}
  assert [text["answer"] for text in texts] == [1, 2, 3, -1]
  assert [text["answers"] for text in texts] == [asked[i].text["answers"] for i in range(4)]
  assert (chosen.name, chosen.heads, chosen[2].path) == ("asked", {"verb": ("push",)}, "2.mp4")
  assert asked[0].text.keys() == {"question", "answers"}


def test_what_is_not_among_the_options_is_known_and_wrong():
  """Whether the batch has more room for options, or none."""
  asked = with_options(source(("cat",), ("ant",)), TRAINING, 3)
  for room in (3, 4):
    collector = MultipleChoice(asked)
    shape = (2, room)
    mask = np.broadcast_to(np.arange(room) < 3, shape)
    outputs = {name: np.where(mask, -np.arange(room), 0.0) for name in ("sum", "blind")}
    outputs |= {"tokens": mask.astype(int), "mask": mask}
    collector.collect(
      outputs, {"valid": np.ones(2, bool), "record": np.arange(2), "view": np.zeros(2, int)}
    )
    metrics = collector.finish(None)
    assert metrics["questions"] == 2 and metrics["sum/accuracy"] == 0.5


def test_decoding_processes_are_given_it():
  chosen = pickle.loads(pickle.dumps(with_options(source(("dog",)), TRAINING, 2)))
  assert chosen[0].text["answer"] == 1


@pytest.mark.parametrize(
  "training, count, match",
  [
    (TRAINING, 1, "options=1: a choice is among two or more"),
    (source((), ("yes",), name="train"), 5, "train: its questions have 1 different answers"),
    (ListedSource("captions", {}, [VideoRecord("a")]), 5, "captions: .* have 0 different answers"),
  ],
)
def test_what_is_no_choice_is_refused(training, count, match):
  with pytest.raises(UserError, match=match):
    with_options(source(("dog",)), training, count)


def test_records_stay_what_they_are():
  asked = source(("dog",))
  record = with_options(asked, TRAINING, 2)[0]
  assert dataclasses.replace(record, text=asked[0].text) == asked[0]
