import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vfe.evaluate.reconstruction import CodebookUse, Reconstructions, psnr
from vfe.models import fsq

LEVELS = (4, 3, 2)


def test_psnr_of_a_known_error():
  video = np.full((3, 2, 4, 4, 3), 100, np.uint8)
  drawn = video.copy()
  drawn[0] += 1
  drawn[1, 0] += 10  # half of the frames
  expected = [20 * math.log10(255), 20 * math.log10(255 / math.sqrt(50)), 100.0]
  np.testing.assert_allclose(psnr(video, drawn), expected, rtol=1e-6)


def test_an_even_use_of_all_codes_has_full_perplexity():
  use = CodebookUse(LEVELS)
  use.add(np.arange(24).reshape(2, 12))
  found = use.measures()
  assert found["codebook/used"] == 1 and found["codebook/tokens"] == 24
  assert found["codebook/perplexity"] == pytest.approx(24)
  for channel, levels in enumerate(LEVELS):
    assert found[f"codebook/perplexity_{channel}"] == pytest.approx(levels)


def test_channels_are_counted_as_fsq_numbers_them():
  codes = np.zeros((100, 3), np.uint8)
  codes[:, 0] = np.arange(100) % 2  # two of four levels
  codes[:50, 1] = 2
  use = CodebookUse(LEVELS)
  use.add(np.asarray(fsq.indices_of_codes(jnp.asarray(codes), LEVELS)))
  found = use.measures()
  assert [found[f"codebook/perplexity_{i}"] for i in range(3)] == pytest.approx([2, 2, 1])
  assert found["codebook/used"] == 4 / 24


def outputs(count, seed=0):
  rng = np.random.default_rng(seed)
  video = rng.integers(0, 250, (count, 4, 8, 8, 3)).astype(np.uint8)
  mask = np.zeros((count, 2, 4, 4), np.float32)
  mask[:, 0] = 1
  return {
    "video": video,
    "drawn": video + np.uint8(5),
    "drawn_from_all": video + np.uint8(1),
    "mask": mask,
    "codes": rng.integers(0, 24, (count, 8)).astype(np.int32),
  }


def rows(count, valid):
  return {
    "valid": np.arange(count) < valid,
    "record": np.arange(count, dtype=np.int32),
    "view": np.zeros(count, np.int32),
  }


def test_a_pass_over_the_data_with_padding(tmp_path):
  collector = Reconstructions(LEVELS, clips=2)
  collector.collect(outputs(3), rows(3, 3))
  padded = outputs(3, seed=1)
  padded["drawn"][1:] = 0
  collector.collect(padded, {**rows(3, 1), "record": np.array([7, 0, 0], np.int32)})
  found = collector.finish(tmp_path)
  assert found["psnr"] == pytest.approx(20 * math.log10(255 / 5), rel=1e-6)
  assert found["psnr_from_all"] == pytest.approx(20 * math.log10(255), rel=1e-6)
  assert found["kept"] == 0.5 and found["codebook/tokens"] == 4 * 8
  sheet = np.asarray(Image.open(tmp_path / "reconstructions.png"))
  # two clips of four rows of four frames, each pixel 12 x 12, with 2 px to the right and below
  assert sheet.shape == (2 * 4 * 98, 4 * 98, 3)
  shown = lambda row, column: sheet[98 * row :, 98 * column :][:96:12, :96:12]
  first = outputs(3)
  np.testing.assert_array_equal(shown(0, 0), first["video"][0, 0])
  np.testing.assert_array_equal(shown(1, 0), first["drawn"][0, 0])
  np.testing.assert_array_equal(shown(3, 0), first["video"][0, 0])  # kept
  np.testing.assert_array_equal(shown(3, 3), (first["video"][0, 3] * 0.2).astype(np.uint8))


def test_only_padding_is_nan_not_an_error(tmp_path):
  collector = Reconstructions(LEVELS)
  collector.collect(outputs(2), rows(2, 0))
  found = collector.finish(tmp_path)
  assert math.isnan(found["psnr"]) and found["codebook/used"] == 0
  assert not list(tmp_path.iterdir())
