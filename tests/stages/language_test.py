"""A language model is trained on texts, opens no video, and is loaded as one from elsewhere."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.errors import UserError
from vfe.learn import exports
from vfe.learn.paths import named_leaves
from vfe.learn.sharding import make_mesh
from vfe.models import flops
from vfe.stages.planned import planned
from vfe.train import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = make_mesh(None, jax.devices()[:1])
PAINTERS = {"red": "ann", "blue": "bob"}
PART = dict(share=0.5, weight=1.0)
OPTIMIZER = dict(
  kind="adamw", base_lr=2e-2, batch_reference=16, end_lr=0.0, b1=0.9, b2=0.98, weight_decay=0.0,
  warmup=0.1, schedule="cosine", clip_norm=1.0,
)  # fmt: skip


def recipe(path="/not/here.jsonl", **changes):
  """Two stages: a vocabulary, and a language model on captions and on answers to questions."""
  spec = importlib.util.spec_from_file_location("recipe", ROOT / "configs" / "longvivit_256.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("demo")
  with config.unlocked():
    config.stages = ("vocabulary", "language")
    config.model.language = "test"
    config.language = dict(
      kind="language",
      inputs=dict(vocabulary="vocabulary", language=""),
      data={},
      mixture=dict(
        captions=dict(PART, template="", data=dict(text=dict(key="captions"))),
        answers=dict(PART, template="Question: {question} Answer:", data={}),
      ),
      batch=16, eval_batch=8, accumulate=1, steps=40, ema=0.0, optimizer=OPTIMIZER,
    )  # fmt: skip
  config.update_from_flattened_dict(
    {
      "data.source": "manifest",
      "data.path": str(path),
      "data.text.key": "answer",
      "data.text.length": 16,
      "log.tensorboard": False,
      "vocabulary.size": 80,
      "vocabulary.keys_of_text": ("captions", "question", "answer"),
      **changes,
    }
  )
  return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A world in which a wall's colour says who painted it; its videos are nothing."""
  folder = tmp_path_factory.mktemp("texts")
  (folder / "nothing.mp4").touch()
  rows = []
  for i in range(16):
    colour, who = list(PAINTERS.items())[i % 2]
    rows.append({
      "path": "nothing.mp4", "split": "validation" if i > 11 else "train",
      "captions": [f"{who} paints a {colour} wall", f"a {colour} wall"],
      "question": f"who paints the {colour} wall?", "answer": who,
    })  # fmt: skip
  (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  workdir = tmp_path_factory.mktemp("run")
  config = recipe(folder / "texts.jsonl")
  return config, workdir, run.recipe(config, workdir=workdir)["stages"]["language"]["metrics"]


def test_texts_are_learned_without_their_videos(trained):
  _, workdir, metrics = trained
  assert metrics["validation/answers/perplexity"] < 2  # of a question only the colour is open
  nats = metrics["validation/captions/nats"]
  assert metrics["validation/captions/perplexity"] == np.exp(nats)
  # [CLS] is never foretold, [SEP] is: who paints a red wall [SEP]
  assert metrics["validation/captions/words"] == 4 * 6
  first = json.loads((workdir / "language" / "metrics.jsonl").read_text().splitlines()[0])
  assert {"loss", "captions/loss", "answers/loss"} <= set(first)


def test_what_was_trained_is_loaded_and_writes_on_as_it_was_trained(trained):
  _, workdir, _ = trained
  model = vfe.load(workdir / "language")
  ids, mask = model.tokens(["a red"])
  assert ids[mask].tolist()[0] == 2 and 3 not in ids and model.eos == (3,)
  asked = [f"Question: who paints the {colour} wall? Answer:" for colour in PAINTERS]
  assert model.generate(asked, words=4) == [*PAINTERS.values()]


def test_a_given_model_goes_on_with_its_own_words(trained):
  config, workdir, metrics = trained
  given = {"language.inputs.language": str(workdir / "language"), "language.inputs.vocabulary": ""}
  more = recipe(config.data.path, stages=("language",), **given, **{"language.steps": 0})
  beside = workdir.with_name("more")
  again = run.recipe(more, workdir=beside)["stages"]["language"]["metrics"]
  for name, value in metrics.items():
    np.testing.assert_allclose(again[name], value, rtol=1e-5, err_msg=name)
  old, new = (exports.read(folder / "language" / "export") for folder in (workdir, beside))
  assert new.model == old.model and new.digest == old.digest
  files = [pathlib.Path(of.path, "tokenizer.json").read_text() for of in (old, new)]
  assert json.loads(files[0]) == json.loads(files[1])


def stage(**changes):
  return planned(recipe(**changes), "language", ONE)


def test_the_loss_counts_every_word_but_the_first_of_valid_rows():
  made = stage(**{"language.mixture.answers.weight": 3.0})
  params = jax.jit(made.init)(jax.random.key(0))["model"]
  rng, batch = np.random.default_rng(0), {}
  for name, part in made.batch_shapes().items():
    shape = part["text"]["ids"].shape
    mask = np.arange(shape[1]) < rng.integers(2, shape[1] + 1, shape[0])[:, None]
    text = {"ids": rng.integers(5, 80, shape) * mask, "mask": mask, "answer": mask}
    batch[name] = jax.tree.map(jnp.asarray, {"text": text, "valid": np.arange(shape[0]) > 0})
  total, weight, metrics, _ = jax.jit(made.loss)(params, {}, None, batch, jax.random.key(1))
  by_hand = {}
  for name, part in batch.items():
    ids, mask = part["text"]["ids"], part["text"]["mask"]
    logits = np.asarray(jax.jit(made.model.apply)({"params": params}, ids, mask))[:, :-1]
    found = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(found, ids[:, 1:, None], axis=-1)[:, :, 0]
    asked = mask[:, 1:] & part["valid"][:, None]
    by_hand[name] = nats[asked].sum(), asked.sum()
    np.testing.assert_allclose(metrics[f"{name}/loss"], by_hand[name], rtol=1e-5)
  one, three = by_hand["captions"], by_hand["answers"]
  np.testing.assert_allclose(total, one[0] + 3 * three[0], rtol=1e-5)
  assert weight == one[1] + 3 * three[1]


def test_no_part_of_a_batch_is_a_video():
  made = stage()
  assert {name: set(part) for name, part in made.batch_shapes().items()} == {
    name: {"valid", "row", "label", "text"} for name in ("captions", "answers")
  }
  assert made.tokens() == 16
  assert made.model_flops() == 3 * 16 * flops.language(made.language, 16)


def test_a_model_that_is_not_here_is_a_llama_of_1b():
  made = stage(**{"language.inputs.language": "/not/here", "language.inputs.vocabulary": ""})
  shapes = jax.eval_shape(made.init, jax.random.key(0))["model"]
  assert sum(leaf.size for leaf in named_leaves(shapes).values()) == 1_235_814_400  # Meta's
  warm = named_leaves(made.warm()["model"])
  assert {name: leaf.shape for name, leaf in named_leaves(shapes).items()} == {
    name: leaf.shape for name, leaf in warm.items()
  }
  assert made.words.ends == (128_001,) and made.words.begin is None


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"language.inputs.vocabulary": ""}, r"inputs\.vocabulary and \.language are both not set"),
    ({"language.inputs.language": "/not/here"}, "are both set, and a language model has words of"),
    ({"language.mixture.answers.share": 0.4}, r"shares add up to 0\.9; make that 1"),
    ({"language.mixture.answers.template": "A: "}, "template 'A: ' ends in a space"),
    ({"model.language": "tets"}, "language model size='tets' is unknown .nearest: test"),
    ({"data.text.length": 1}, r"data\.text\.length=1 has no room"),
  ],
)
def test_what_is_wrong_is_told(changes, message):
  with pytest.raises(UserError, match=message):
    stage(**changes).check()
