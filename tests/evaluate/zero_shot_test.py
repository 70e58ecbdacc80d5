import jax.numpy as jnp
import numpy as np
import pytest

from vfe.data.record import VideoRecord
from vfe.errors import UserError
from vfe.evaluate.classification import Classification
from vfe.evaluate.zero_shot import TEMPLATES, class_embeddings, probabilities, prompts

CLASSES = ("push_left", "lift", "put  down", "shake", "cover", "swap")


def test_every_class_is_put_into_every_template():
  made = prompts(CLASSES, ("{}", "someone, {}!"))
  assert made[0] == ("push left", "someone, push left!") and made[2][0] == "put down"
  assert len(made) == len(CLASSES)
  assert all(len(set(texts)) == len(TEMPLATES) for texts in prompts(CLASSES))


@pytest.mark.parametrize("template", ["a video", "{} and {}"])
def test_a_template_has_one_place_for_the_name(template):
  with pytest.raises(UserError, match=r"needs one \{\}"):
    prompts(CLASSES, (template,))


def test_class_embeddings_are_mean_directions():
  rng = np.random.default_rng(0)
  embedded = rng.normal(size=(6, 4, 8)).astype("f4")
  found = class_embeddings(jnp.asarray(embedded))
  unit = lambda rows: rows / np.linalg.norm(rows, axis=-1, keepdims=True)
  np.testing.assert_allclose(found, unit(unit(embedded.astype("f8")).mean(1)), atol=1e-6)
  longer = embedded * rng.uniform(0.1, 9, (6, 4, 1)).astype("f4")
  np.testing.assert_allclose(class_embeddings(jnp.asarray(longer)), found, atol=1e-6)
  half = class_embeddings(jnp.asarray(embedded, jnp.bfloat16))
  assert half.dtype == jnp.float32 and abs(half - found).max() < 0.02


class Videos:
  """A source of twenty videos of one head."""

  name, heads = "videos", {"verb": CLASSES}

  def __len__(self):
    return 20

  def __getitem__(self, index):
    return VideoRecord(name=str(index), path="x")


def test_the_collector_of_classification_takes_the_probabilities():
  rng = np.random.default_rng(1)
  classes, label = rng.normal(size=(6, 8)).astype("f4"), rng.integers(0, 6, 20)
  video = (classes[label] + 1.5 * rng.normal(size=(20, 8))).astype("f4")
  cosine = video @ classes.T / np.linalg.norm(video, axis=1)[:, None]
  order = np.argsort(-cosine / np.linalg.norm(classes, axis=1), axis=1)
  given = probabilities(jnp.asarray(video), jnp.asarray(classes), jnp.float32(20))
  np.testing.assert_allclose(given.sum(1), 1, rtol=1e-5)
  collector = Classification(Videos())
  rows = np.arange(20, dtype=np.int32)
  collector.collect(
    {"verb": np.asarray(given)},
    {"valid": rows >= 0, "record": rows, "view": 0 * rows, "label": {"verb": label}},
  )
  found = collector.finish(None)
  assert found["verb/top1"] == np.mean(order[:, 0] == label)
  assert found["verb/top5"] == np.mean([label[i] in order[i, :5] for i in rows])
