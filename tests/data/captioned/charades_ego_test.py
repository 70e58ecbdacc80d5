"""Charades-Ego's files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import charades_ego
from vfe.errors import UserError

CLASSES = "c000 Holding some clothes\nc001 Putting clothes somewhere\nc156 Somebody is eating\n"
ROWS = """id,subject,script,actions,length
AAAAEGO,X,"A person eats, slowly.",c156 1.00 5.50;c000 0.00 3.00;c156 6.00 7.00,10.0
BBBBEGO,X,A person waits.,,10.0
CCCCEGO,X,Gone.,c000 1 2,10.0
DDDDEGO,X,What?,c999 1 2,10.0
AAAAEGO,X,What?,c000 1,10.0
"""
VIDEOS = ("CharadesEgo_v1_480/AAAAEGO.mp4", "CharadesEgo_v1_480/BBBBEGO.mp4", "DDDDEGO.mp4")


@pytest.fixture
def folder(make):
  names = charades_ego.FILES.values()
  return make({charades_ego.CLASSES: CLASSES, **dict.fromkeys(names, ROWS)}, *VIDEOS)


def texts(source):
  return [(r.start, r.end, r.text["caption"], r.text["classes"]) for r in source]


def test_in_test_videos_are_whole_with_all_their_classes(folder, config, caplog):
  assert texts(sources.open_source(config("charades_ego", folder), "validation")) == [
    (None, None, "A person eats, slowly.", (0, 2)), (None, None, "A person waits.", ())
  ]  # fmt: skip
  assert "train_only1st.csv, line 5: actions 'c999 1 2'; left out, as are 3 other" in caplog.text


def test_in_training_every_action_is_a_clip(folder, config):
  assert texts(sources.open_source(config("charades_ego", folder), "train")) == [
    (1.0, 5.5, "Somebody is eating", (2,)), (0.0, 3.0, "Holding some clothes", (0,)),
    (6.0, 7.0, "Somebody is eating", (2,)),
  ]  # fmt: skip


def test_classes_are_numbered_by_their_lines(folder, make):
  assert list(charades_ego.charades_classes(folder).items()) == [
    ("c000", "Holding some clothes"), ("c001", "Putting clothes somewhere"),
    ("c156", "Somebody is eating"),
  ]  # fmt: skip
  for text in ("c000\n", "c000 a\nc000 b\n"):
    make({charades_ego.CLASSES: text})
    with pytest.raises(UserError, match=r"classes\.txt, line \d: .* is no code and name"):
      charades_ego.charades_classes(folder)
