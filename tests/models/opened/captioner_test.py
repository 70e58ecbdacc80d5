"""A finished caption stage, opened, does what the stage's own evaluation does."""

import jax
import numpy as np
import pytest

import vfe
from vfe.data.record import VideoRecord
from vfe.data.tabletop import encode
from vfe.errors import UserError
from vfe.learn import exports
from vfe.models.opened.captioner import Asked

QUESTIONS = ["which cup", "which ball"]
OPTIONS = [["red cup", "blue cup", "a ball"], ["red", "the blue ball"]]


class Videos:
  """Two files, each with a caption and a question."""

  name, heads = "two videos", {}

  def __init__(self, folder):
    self.records = []
    for i, (question, options) in enumerate(zip(QUESTIONS, OPTIONS, strict=True)):
      video = np.random.default_rng(i).integers(0, 256, (20 + i, 24, 32, 3), np.uint8)
      encode(video, folder / f"{i}.mp4")
      text = {"caption": "a red cup", "question": question, "options": options, "answer": 0}
      self.records.append(VideoRecord(f"{i}.mp4", path=str(folder / f"{i}.mp4"), text=text))

  def __len__(self):
    return len(self.records)

  def __getitem__(self, index):
    return self.records[index]


@pytest.fixture(scope="module")
def run(tmp_path_factory, caption_run):
  """The stage, and its workdir, which has been moved since."""
  folder = tmp_path_factory.mktemp("captioner")
  stage = caption_run(folder / "run", folder, Videos(folder))
  return stage, (folder / "run").rename(folder / "moved")


@pytest.fixture(scope="module")
def captioner(run):
  return vfe.load(run[1] / "caption")


@pytest.fixture(scope="module")
def params(run):
  return exports.read(run[1] / "caption" / "export").params


def evaluated(stage, params, name):
  """What an evaluator of the stage finds of both videos."""
  evaluator = next(of for of in stage.evaluators() if of.name == name)
  batch = next(iter(evaluator.stream.evaluate(np.arange(2))))
  found = jax.jit(evaluator.predict)(params, stage.frozen, batch)
  return jax.tree.map(np.asarray, found), batch, evaluator


def clips(captioner, stage, prompt):
  """Both videos, as the captioner reads them."""
  records = stage.setting.open_source(None, "validation").records
  return np.concatenate([captioner.read(record.path, prompt) for record in records])


def test_it_writes_what_the_stages_evaluation_wrote(run, captioner, params):
  """From the files on: the same frames, dropped tokens, prompt, beams and words."""
  stage = run[0]
  found, batch, _ = evaluated(stage, params, "caption")
  video = clips(captioner, stage, "caption")
  np.testing.assert_array_equal(video, batch["video"])
  texts = captioner.describe(video, "caption")
  decode = vfe.load(run[1].parent / "language")._words.decode
  wanted = [decode(ids[there].tolist()) for ids, there in zip(*found.values(), strict=True)]
  assert texts == wanted and all(texts)


def test_it_finds_the_options_as_likely_as_the_stages_evaluation(run, captioner, params):
  stage = run[0]
  found, batch, _ = evaluated(stage, params, "validation")
  video = clips(captioner, stage, "validation")
  np.testing.assert_array_equal(video, batch["video"])
  there = found["mask"]
  for shown, wanted in ((video, found["sum"]), (None, found["blind"])):
    chosen = captioner.choose(shown, QUESTIONS, OPTIONS)
    np.testing.assert_allclose(chosen.log_likelihood[there], wanted[there], rtol=1e-4)
    assert chosen.log_likelihood[1, 2] == -np.inf  # it has two options
    np.testing.assert_array_equal(chosen.words, found["tokens"])
    np.testing.assert_array_equal(chosen.option, np.where(there, wanted, -np.inf).argmax(1))


def test_which_tokens_are_dropped_is_a_matter_of_the_rows_number(run, captioner):
  """Not of the batch, and a text's likelihood is that of the option which says it."""
  video = clips(captioner, run[0], "validation")
  asked = captioner.asked(f"Question: {QUESTIONS[1]} Answer:")
  both = captioner.log_likelihood(video, ["red", "red"], asked)
  other, same = (captioner.log_likelihood(video[1:], ["red"], asked, rows=[i]) for i in (0, 1))
  np.testing.assert_allclose(same, both[1:], rtol=1e-4)
  assert not np.allclose(same, other, rtol=1e-4)
  chosen = captioner.choose(video, [QUESTIONS[1]] * 2, [["red", "a cup"]] * 2)
  np.testing.assert_allclose(chosen.log_likelihood[:, 0], both, rtol=1e-4)


def test_several_questions_about_a_clip_are_answered_beside_each_other(run, captioner):
  """Drawn words: what is given of how they are chosen replaces the evaluation's beams."""
  video = clips(captioner, run[0], "validation")[:1]
  answers = [captioner.answer(video, QUESTIONS, temperature=1.0, words=4) for _ in range(2)]
  assert len(answers[0]) == 2 and answers[0] == answers[1]


def test_what_is_asked_for(captioner):
  """Without a prompt, what was written of the longest clips; a text is asked of them, too."""
  assert captioner.asked() == captioner.prompts["summary"]
  assert captioner.asked().frames == 8 and captioner.asked().sampling["kind"] == "uniform"
  assert captioner.asked("caption").frames == 4
  own = captioner.asked("What is it?")
  assert (own.template, own.frames) == ("What is it?", 8) and captioner.asked(own) is own
  assert captioner.asked_question() == captioner.prompts["validation"]


def test_inputs_of_the_same_workdir_are_named_from_the_export(run):
  inputs = exports.read(run[1] / "caption" / "export").model["inputs"]
  assert inputs["encoder"]["path"] == "../../long/export"
  assert inputs["language"]["path"] == str(run[1].parent / "language" / "export")


def test_an_input_that_is_gone_or_another_one_is_named(tmp_path, caption_run, contrast_export):
  caption_run(tmp_path / "run", tmp_path)
  contrast_export(tmp_path / "run" / "long", cls=True)
  with pytest.raises(UserError, match=r"run/long/export is not the encoder that .* train anew"):
    vfe.load(tmp_path / "run" / "caption")
  (tmp_path / "run" / "long").rename(tmp_path / "run" / "other")
  with pytest.raises(UserError, match=r"run/long/export: no such folder.*inputs\.encoder\.path of"):
    vfe.load(tmp_path / "run" / "caption")


@pytest.mark.parametrize("call, message", [
  (lambda c, v: c.describe(v, "sumary"), "prompt='sumary' is unknown .*summary"),
  (lambda c, v: c.describe(v, "validation"), "the prompt: no text 'question'"),
  (lambda c, v: c.describe(v, words=0), "words=0"),
  (lambda c, v: c.describe(v, Asked("", 4, 8, {})), "no words"),
  (lambda c, v: c.describe(v[:, :3]), "frames=3 is not divisible by"),
  (lambda c, v: c.describe(v[:, :, :8]), r"takes uint8\[B, T, 16, 16, 3\] of up to 8 frames"),
  (lambda c, v: c.describe(v, rows=[1]), r"rows has the shape \(1,\)"),
  (lambda c, v: c.answer(v, "which cup"), "give a list"),
  (lambda c, v: c.answer(v, []), "there are no texts"),
  (lambda c, v: c.answer(v, QUESTIONS * 2 + ["x"]), "5 texts about 2 clips"),
  (lambda c, v: c.answer(v, QUESTIONS, "summary"), "has no place for a question"),
  (lambda c, v: c.choose(v, QUESTIONS, [["a"], ["a", "b"]]), "question 0 has the options"),
  (lambda c, v: c.choose(v, QUESTIONS, [["a", "b"]]), "2 questions and options of 1"),
])  # fmt: skip
def test_what_cannot_be_asked_is_said(captioner, call, message):
  with pytest.raises(UserError, match=message):
    call(captioner, np.zeros((2, 8, 16, 16, 3), np.uint8))
