"""What is measured of two towers, on official files, with towers that know the answers."""

import types

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from vfe.config import captioned_data
from vfe.data import sources
from vfe.data.tabletop import encode
from vfe.data.text import Text, train_vocabulary
from vfe.errors import UserError
from vfe.stages import measured

CLASSES = "c000 Holding clothes\nc001 Eating\n"
TEST = """id,subject,script,actions,length
DARK,X,Somebody eats.,c001 0.10 0.50,1.0
BRIGHT,X,Somebody holds clothes.,c000 0.10 0.50,1.0
"""
EPIC = """narration_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,all_noun_classes
P1_0,DARK,00:00:00.00,00:00:00.50,take spoon,0,"[1]"
P1_1,BRIGHT,00:00:00.00,00:00:00.50,open door,3,"[2]"
"""


class Towers:
  """A clip is embedded by whether it is bright, a text by whether it has a word of `bright`."""

  name = "pretrain"
  bright = ("holding", "door")

  def __init__(self, folder, source, kind):
    data = dict(
      source=source, path=str(folder), eval_path=None, variant=None, heads=None, frames=2, size=16,
      sampling=dict(kind="uniform", stride=1, fps=0.0), augment=dict(kind="center", flip=False),
      views=1, eval_clips=1, eval_crops=1, workers=0, buffer=1, max_pixels=10**6,
      text=dict(key="caption", length=8), tabletop=dict(rung="order"),
    )  # fmt: skip
    templates = ("{}", "someone is {}.")
    section = dict(kind=kind, templates=templates, data=captioned_data(source=source))
    other = dict(kind=kind, templates=("{}",), data=captioned_data())
    self.config = ml_collections.ConfigDict(
      dict(data=data, eval_batch=4, measures=dict(asked=section, not_asked=other))
    )
    self.setting = types.SimpleNamespace(open_source=sources.open_source)
    texts = ("holding clothes eating someone is take spoon open door",) * 2
    self.vocabulary = folder / "tokenizer.json"
    self.vocabulary.write_text(train_vocabulary(texts, 80))

  def text_of(self, data, key, captions=1):
    return Text(str(self.vocabulary), data.text.length, key, captions)

  def embed_clips(self, params, video):
    shown = (video.astype(jnp.float32).mean((1, 2, 3, 4)) > 100).astype(jnp.float32)
    return jnp.stack([shown, 1 - shown], 1)

  def embed_texts(self, params, ids, mask):
    words = Text(str(self.vocabulary), 8).tokenizer
    numbers = jnp.asarray([words.id(word) for word in self.bright])
    said = jnp.isin(ids, numbers).any(1).astype(jnp.float32)
    return jnp.stack([said, 1 - said], 1)


def results(towers):
  """The metrics of the one measure whose data are named."""
  (evaluator,) = measured.measures(towers)
  collector = evaluator.collector()
  for batch in evaluator.stream.evaluate(np.arange(4)):
    collector.collect(evaluator.predict({}, {}, batch), batch)
  return collector.finish(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("official")
  for name, colour in (("DARK", 20), ("BRIGHT", 230)):
    encode(np.full((16, 16, 16, 3), colour, np.uint8), folder / f"{name}.mp4")
  (folder / "Charades_v1_classes.txt").write_text(CLASSES)
  (folder / "CharadesEgo_v1_test_only1st.csv").write_text(TEST)
  (folder / "EPIC_100_retrieval_test.csv").write_text(EPIC)
  return folder


def test_charades_ego_by_the_names_of_its_classes(folder):
  found = results(Towers(folder, "charades_ego", "multi_label"))
  assert found["mAP"] == 1.0 and found["classes"] == found["clips"] == 2


def test_epic_kitchens_by_what_captions_share(folder):
  found = results(Towers(folder, "epic_kitchens", "multi_instance"))
  assert found["mean/mAP"] == found["mean/nDCG"] == 1.0 and found["clips"] == 2


def test_text_to_video(folder):
  found = results(Towers(folder, "epic_kitchens", "retrieval"))
  assert found["text_to_video/R@1"] == 1.0 and found["captions"] == 2


def test_a_measure_that_there_is_not_is_said_by_its_key(folder):
  with pytest.raises(UserError, match=r"config\.pretrain\.measures\.asked\.kind='recall'"):
    results(Towers(folder, "epic_kitchens", "recall"))
