"""Prompts and answers become rows of words, of which it is known which are the answer's."""

import dataclasses
import pickle

import jax
import ml_collections
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from vfe.data.prompt import LENGTH, Prompt, most_options, options_of
from vfe.data.record import VideoRecord
from vfe.data.sources import ListedSource
from vfe.data.streams import Stream
from vfe.data.text import train_vocabulary
from vfe.errors import UserError

QUESTION = "Question: {question} Answer:"
SAID = [
  QUESTION.format(question="what is red?"), "the ball", "a blue ring", "Größe 3 – naïve 🙂 ball!"
]  # fmt: skip
BEGIN, END = 2, 3  # [CLS] and [SEP] of a vocabulary


def byte_pairs(**processor):
  """Byte-level pairs, as Llama 3 and Qwen have them; of characters of several bytes, too."""
  made = Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  made.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
  )
  made.train_from_iterator(SAID * 2, trainer)
  return made


def pieces():
  """One piece a space or letter after it was put in front of the text, as Llama 2 and Gemma."""
  letters = sorted({letter for text in SAID for letter in text} | {"▁"})
  words = ["<s>", "</s>", "<unk>", *letters, "▁ball", "▁the"]
  made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
  made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
  return made


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
  """By name: the path of a tokenizer.json."""
  folder = tmp_path_factory.mktemp("tokenizers")
  words = train_vocabulary(SAID * 2, 200)
  both = Tokenizer.from_str(words)
  special = [("[CLS]", BEGIN), ("[SEP]", END)]
  both.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=special)
  begun = byte_pairs()
  begun.post_processor = processors.Sequence([
    processors.ByteLevel(trim_offsets=False),
    processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)]),
  ])  # fmt: skip
  trimmed = byte_pairs()
  trimmed.post_processor = processors.ByteLevel(trim_offsets=True)
  made = {"words": Tokenizer.from_str(words), "both": both, "begun": begun, "trimmed": trimmed,
          "pieces": pieces()}  # fmt: skip
  for name, tokenizer in made.items():
    tokenizer.enable_truncation(3)  # which the file asks for, and nobody here
    tokenizer.save(str(folder / f"{name}.json"))
  return {name: str(folder / f"{name}.json") for name in made}


def record(name="a.mp4", **texts):
  return VideoRecord(name, text=texts)


def words_of(path, text):
  tokenizer = Tokenizer.from_file(path)
  tokenizer.no_truncation()
  return tokenizer.encode(text, add_special_tokens=False).ids


RED = record(question="what is red?", answers=("the ball", "a blue ring"))


@pytest.mark.parametrize("name", ["words", "both", "begun", "trimmed", "pieces"])
@pytest.mark.parametrize("answer", SAID[1:])
def test_the_answer_is_told_from_the_prompt_and_ends(tokenizers, name, answer):
  """However the tokenizer splits, frames and counts."""
  path = tokenizers[name]
  prompt = Prompt(path, 96, QUESTION, "answer", end=END, begin=BEGIN)
  row = prompt.row(record(question="what is red?", answer=answer), None)
  there = row["mask"].sum()
  assert row["mask"][:there].all() and not row["ids"][there:].any()
  first = row["answer"].argmax()
  assert row["answer"][first:there].all() and row["answer"].sum() == there - first
  begin = 0 if name == "begun" else BEGIN
  alone = words_of(path, SAID[0])
  assert row["ids"][:first].tolist() == [begin, *alone]
  assert row["ids"][:there].tolist() == [begin, *words_of(path, f"{SAID[0]} {answer}"), END]
  row = dataclasses.replace(prompt, form="prompt").row(record(question="what is red?"), None)
  assert row["ids"][row["mask"]].tolist() == [begin, *alone] and not row["answer"].any()


def test_no_prompt_and_no_first_word(tokenizers):
  row = Prompt(tokenizers["words"], 16, "", "answers", END).row(RED, None)
  said = [*words_of(tokenizers["words"], "the ball"), END]
  assert row["ids"][row["mask"]].tolist() == said and row["answer"].sum() == len(said)
  with pytest.raises(UserError, match=r"a\.mp4: its prompt has no words, template ''"):
    Prompt(tokenizers["words"], 16, "", "answers", END, form="prompt").row(RED, None)


def test_an_answer_is_drawn_in_training_and_the_first_at_evaluation(tokenizers):
  prompt = Prompt(tokenizers["both"], 32, "It is:", "answers", END)
  rows = [prompt.row(RED, np.random.default_rng(seed)) for seed in range(20)]
  drawn = {tuple(row["ids"]) for row in rows}
  assert len(drawn) == 2 and tuple(prompt.row(RED, None)["ids"]) in drawn
  silent = record(question="what?")
  assert not any(array.any() for array in prompt.row(silent, None).values())
  with pytest.raises(UserError, match=r"a\.mp4: no 'answers' to train on"):
    prompt.row(silent, np.random.default_rng(0))


def test_a_long_answer_is_cut_and_then_has_no_end(tokenizers):
  whole = Prompt(tokenizers["both"], 32, QUESTION, "answers", END).row(RED, None)
  there = int(whole["mask"].sum())
  exact = Prompt(tokenizers["both"], there, QUESTION, "answers", END).row(RED, None)
  assert exact["ids"][-1] == END
  cut = Prompt(tokenizers["both"], there - 1, QUESTION, "answers", END).row(RED, None)
  assert cut["mask"].all() and cut["answer"][-1] and cut["ids"][-1] != END
  np.testing.assert_array_equal(cut["ids"], whole["ids"][: there - 1])
  first = int(whole["answer"].argmax())
  Prompt(tokenizers["both"], first + 1, QUESTION, "answers", END).row(RED, None)
  message = rf"a\.mp4: its prompt and a word of an answer are {first + 1} words, {LENGTH}={first};"
  with pytest.raises(UserError, match=message):
    Prompt(tokenizers["both"], first, QUESTION, "answers", END).row(RED, None)
  short = Prompt(tokenizers["both"], first - 1, QUESTION, "", END, form="prompt")
  with pytest.raises(UserError, match=rf"its prompt are {first} words, {LENGTH}={first - 1}"):
    short.row(RED, None)


def test_options_are_answers_each_and_never_cut(tokenizers):
  asked = record(question="what is red?", options=["the ball", "a blue ring"])
  prompt = Prompt(tokenizers["both"], 32, QUESTION, "", END, form="options", options=3)
  row = prompt.row(asked, None)
  assert {name: array.shape for name, array in row.items()} == {
    "ids": (3, 32), "mask": (3, 32), "answer": (3, 32)
  }  # fmt: skip
  one = Prompt(tokenizers["both"], 32, QUESTION, "said", END)
  for number, said in enumerate(asked.text["options"]):
    alone = one.row(record(question="what is red?", said=said), None)
    assert all((row[name][number] == alone[name]).all() for name in row)
  assert not row["mask"][2].any() and not row["answer"][2].any()
  longest = int(row["mask"].sum(1).max())
  with pytest.raises(UserError, match=rf"its prompt and an option are {longest} words"):
    dataclasses.replace(prompt, length=longest - 1).row(asked, None)
  with pytest.raises(UserError, match=r"a\.mp4: 2 options, where 1 were the most"):
    dataclasses.replace(prompt, options=1).row(asked, None)


def test_a_question_without_options_is_told():
  two, three = record(options=("a", "b")), record(options=("a", " b ", "c"))
  assert most_options(ListedSource("some", {}, [two, three])) == 3
  assert options_of(three) == ("a", "b", "c") and most_options(ListedSource("none", {}, [])) == 0
  for wrong in ({}, {"options": ("a",)}, {"options": ("a", " ")}, {"options": "ab"}):
    with pytest.raises(UserError, match=r"b\.mp4: a question without options; choose"):
      most_options(ListedSource("some", {}, [two, record("b.mp4", **wrong)]))


@pytest.mark.parametrize(
  ("template", "message"),
  [
    ("Answer: ", r"template 'Answer: ' ends in a space"),
    ("{question", r"template '\{question': expected '\}' before end of string; write a brace"),
    ("{}", r"in braces stands the name of a text"),
    ("{question.name}", r"in braces stands the name of a text"),
    ("{question!r}", r"in braces stands the name of a text"),
  ],
)
def test_templates_that_are_none(template, message):
  with pytest.raises(UserError, match=message):
    Prompt("words", 8, template, "answer", END)


def test_what_else_can_be_wrong(tokenizers, tmp_path):
  with pytest.raises(UserError, match=r"data\.text\.length=1 has no room"):
    Prompt("words", 1, "", "answer", END)
  with pytest.raises(UserError, match=r"form of a prompt='options ' is unknown"):
    Prompt("words", 8, "", "answer", END, form="options ")
  asked = Prompt(tokenizers["both"], 8, "{qestion}", "answers", END)
  with pytest.raises(UserError, match=r"a\.mp4: no text 'qestion' .*nearest: question"):
    asked.row(RED, None)
  with pytest.raises(UserError, match=r"no text 'qestion' .*it has no texts"):
    asked.row(record(answers=["one"]), None)
  with pytest.raises(UserError, match=r"tokenizer\.json: no file of the tokenizers library"):
    Prompt(str(tmp_path), 8, "", "answer", END).open()
  assert Prompt("words", 8, "{{}} {question}", "", END).said(RED) == "{} what is red?"


# In batches.


class Unread:
  """Texts of videos that nobody may open."""

  name, heads = "unread", {"colour": ("red", "blue")}

  def __len__(self):
    return 7

  def __getitem__(self, index):
    answers = [f"the ball {word}" for word in ("red", "blue", "ring")]
    texts = {"question": "a " * index, "answers": answers, "options": answers[: 2 + index % 2]}
    return VideoRecord(f"{index}.mp4", path="/not/here", labels={"colour": index % 2}, text=texts)


DATA = ml_collections.ConfigDict(dict(workers=0, buffer=1))


def batch_of(stream, start=0, rows=4):
  return next(stream.train(0, np.arange(rows), start))


def test_a_stream_of_texts_alone_opens_no_video(tokenizers):
  prompt = Prompt(tokenizers["both"], 16, QUESTION, "answers", END)
  stream = Stream.of_text(Unread(), DATA, 4, prompt)
  assert pickle.loads(pickle.dumps(stream.spec)) == stream.spec
  batch, shapes = batch_of(stream), stream.shapes()
  assert "video" not in batch and "video" not in shapes and batch["valid"].all()
  of = lambda tree: jax.tree.map(lambda array: (array.shape, array.dtype), tree)
  for name, shape in of(shapes).items():
    assert of(batch[name]) == shape
  assert batch["label"]["colour"].tolist() == [record % 2 for record in batch["record"]]
  for row, record in enumerate(batch["record"]):
    of_record = [prompt.row(Unread()[int(record)], np.random.default_rng(n)) for n in range(30)]
    assert any((of_one["ids"] == batch["text"]["ids"][row]).all() for of_one in of_record)


def test_a_row_of_text_is_a_function_of_seed_step_and_row(tokenizers):
  stream = Stream.of_text(Unread(), DATA, 4, Prompt(tokenizers["both"], 16, "", "answers", END))
  iterator = stream.train(0, np.arange(4), 0)
  third = [next(iterator) for _ in range(3)][2]["text"]
  assert jax.tree.all(jax.tree.map(np.array_equal, third, batch_of(stream, start=2)["text"]))
  half = next(stream.train(0, np.array([2, 3]), 2))["text"]
  assert jax.tree.all(jax.tree.map(lambda all, own: np.array_equal(all[2:], own), third, half))


def test_evaluation_has_every_question_once(tokenizers):
  prompt = Prompt(tokenizers["both"], 24, QUESTION, "", END, form="options", options=3)
  stream = Stream.of_text(Unread(), DATA, 4, prompt)
  batches = list(stream.evaluate(np.arange(4)))
  valid = np.concatenate([batch["valid"] for batch in batches])
  assert valid.tolist() == [True] * 7 + [False]
  options = np.concatenate([batch["text"]["mask"].any(-1).sum(-1) for batch in batches])
  assert options.tolist() == [2, 3, 2, 3, 2, 3, 2, 0]
