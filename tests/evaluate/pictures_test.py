"""Pictures of what is kept, and of which blocks meet."""

import numpy as np
import pytest
from PIL import Image

from vfe.evaluate.pictures import LEAST_HEIGHT, PrunedTokens, edges
from vfe.models.vivit import EncoderConfig
from vfe.stages.pictured import met
from vfe.tokens.edges import Edges
from vfe.tokens.layout import Layout
from vfe.tokens.pruning import Pruning

LAYOUT = Layout.of_video(2, 16, (1, 8, 8))


def test_a_clip_and_what_is_left_of_it_stand_below_each_other(tmp_path):
  kept = np.zeros((2, 3, 8), bool)
  kept[0, 0, :4], kept[0, 1, 0] = True, True
  collector = PrunedTokens(LAYOUT)
  frames = np.full((2, 2, 16, 16, 3), 240, np.uint8)
  collector.collect({"frames": frames, "kept": kept}, {"valid": np.array([True, False])})
  assert collector.finish(tmp_path) == {}
  picture = np.asarray(Image.open(tmp_path / "pictures" / "pruned_tokens.png"))
  rows = picture.reshape(4, -1, *picture.shape[1:])  # one clip, three choices of its tokens
  bright = [(row == 240).all(-1).mean() for row in rows]
  np.testing.assert_allclose(bright, np.array([1, 0.5, 0.125, 0]) * bright[0], atol=1e-3)
  assert not (tmp_path / "pictures" / "edges.png").exists()


def test_a_square_a_layer_however_many_blocks_it_has():
  config = EncoderConfig.of(
    "test", 2, 16, (1, 4, 4), cls=True, edges=Edges(1, 1, 4), pruning=Pruning((0,), 0.5)
  )
  patterns = met(config)
  assert [len(pattern) for pattern in patterns] == [8, 4, 4]
  assert all((pattern.sum(1) == 2).all() and pattern.diagonal().all() for pattern in patterns)
  picture = edges(patterns)
  assert picture.shape == (LEAST_HEIGHT + 2, 3 * (LEAST_HEIGHT + 2), 3)
  assert (picture[:LEAST_HEIGHT, :LEAST_HEIGHT] == 160).mean() == pytest.approx(1 / 8)
  assert met(EncoderConfig.of("test", 2, 16, (1, 4, 4))) == []
