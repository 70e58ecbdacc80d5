"""Stored targets: what is written is found again by video and first frame."""

import pickle

import numpy as np
import pytest

from vfe.data import stored
from vfe.errors import UserError

TOKENS, CHANNELS, WINDOW = 5, 3, 16
WINDOWS = (4, 1, 0, 2)  # of each video; the third could not be read


@pytest.fixture
def items():
  rng = np.random.default_rng(0)
  return [
    (
      rng.integers(0, 8, (windows, TOKENS, CHANNELS)).astype(np.uint8),
      rng.random((windows, TOKENS), np.float32),
    )
    for windows in WINDOWS
  ]


@pytest.fixture
def path(items, tmp_path):
  stored.write(tmp_path / "targets", iter(items), {"window": WINDOW, "levels": [8, 8, 8]})
  return tmp_path / "targets"


def test_a_clip_gets_the_windows_that_it_shows(path, items):
  targets = pickle.loads(pickle.dumps(stored.Stored(path)))
  assert len(targets) == 4 and targets.shape(48) == (3 * TOKENS, CHANNELS)
  assert targets.meta["levels"] == [8, 8, 8]
  for video, (codes, importance) in enumerate(items):
    for first in range(len(codes)):
      for last in range(first + 1, len(codes) + 1):
        found = targets.lookup(video, first * WINDOW, (last - first) * WINDOW)
        np.testing.assert_array_equal(found[0], codes[first:last].reshape(-1, CHANNELS))
        np.testing.assert_array_equal(found[1], importance[first:last].reshape(-1))
        assert found[0].dtype == np.uint8 and found[1].dtype == np.float32


def test_windows_that_are_not_there(path, tmp_path):
  targets = stored.Stored(path)
  with pytest.raises(UserError, match=r"video 1 has 1 windows of 16 frames.*frames 0 to 32; "):
    targets.lookup(1, 0, 32)
  with pytest.raises(UserError, match="holds no stored targets; run the targets stage first"):
    stored.Stored(tmp_path)
  with pytest.raises(ValueError, match="no whole windows of 16"):
    targets.lookup(0, 8, 16)


def test_writing_replaces_only_when_done(path, items):
  def breaks():
    yield items[1]
    raise RuntimeError("stopped")

  with pytest.raises(RuntimeError):
    stored.write(path, breaks(), {"window": WINDOW})
  assert len(stored.Stored(path)) == 4
  stored.write(path, items[:2], {"window": WINDOW})
  assert len(stored.Stored(path)) == 2
  assert [file.name for file in path.parent.iterdir()] == ["targets"]


def test_blocks_are_joined_by_record(items):
  blocks = [
    (0, items[0][0][:2].reshape(-1, CHANNELS), items[0][1][:2].reshape(-1), True),
    (0, items[0][0][2:].reshape(-1, CHANNELS), items[0][1][2:].reshape(-1), True),
    (1, items[1][0].reshape(-1, CHANNELS), items[1][1].reshape(-1), True),
    (2, np.zeros((2 * TOKENS, CHANNELS), np.uint8), np.zeros(2 * TOKENS, np.float32), False),
    (3, items[3][0].reshape(-1, CHANNELS), items[3][1].reshape(-1), True),
  ]
  for joined, item in zip(stored.by_record(blocks, TOKENS), items, strict=True):
    np.testing.assert_array_equal(joined[0], item[0])
    np.testing.assert_array_equal(joined[1], item[1])
