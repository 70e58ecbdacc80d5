import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import decode


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return decode.material(tmp_path_factory.mktemp("videos"), videos=1, frames=64, height=96)


@pytest.mark.parametrize("reader", list(decode.READERS))
@pytest.mark.parametrize("source", ["originals", "shards"])
def test_all_readers_give_the_frames_that_they_are_asked_for(made, source, reader):
  """Up to the rounding of colours, which differ between builds of FFmpeg."""
  if not decode.loads(reader):
    pytest.skip(f"{reader} is not installed")
  record, indices = made[source][0], [3, 7, 20, 39]
  found = decode.READERS[reader](record, indices)
  ours = decode.with_vfe(record, indices)
  assert found.shape == ours.shape and found.dtype == np.uint8
  assert np.abs(found.astype(int) - ours).mean(axis=(1, 2, 3)).max() < 3
  one_later = decode.with_vfe(record, [4, 8, 21, 38])
  assert np.abs(found.astype(int) - one_later).mean(axis=(1, 2, 3)).min() > 3


def test_every_reader_and_the_pipeline_are_asked_for_as_much(made):
  readers = ["pyav", "vfe", "decoder"]
  found = decode.measure(
    made["shards"], decode.KINDS["strided"], readers, clips=2, length=64, rounds=2
  )
  assert list(found) == [*readers, "pipeline"]
  for account in found.values():
    assert account.frames == 2 * decode.FRAMES
    assert len(account.cpu) == len(account.wall) == 2 and account.row()["cpu_ms_a_frame"] > 0


def test_originals_shorter_than_a_clip_are_refused(tmp_path):
  with pytest.raises(decode.UserError, match=r"^--frames=60: a strided clip takes 61"):
    decode.main(["--frames=60", f"--folder={tmp_path}"])


def test_clips_that_make_no_whole_batches_are_refused(tmp_path):
  with pytest.raises(decode.UserError, match=r"^--clips=3: a batch has 2; use a multiple of it"):
    decode.main(["--clips=3", f"--folder={tmp_path}"])
