"""Drawing in other processes."""

import subprocess
import sys

import numpy as np
import pytest

from vfe.data.tabletop import workers
from vfe.data.tabletop.draw import render
from vfe.data.tabletop.story import labels, scenario
from vfe.data.tabletop.world import World

TINY = World(size=16, frames=16, rung="appearance")


@pytest.mark.parametrize("enough", [2, 100])
def test_arrays_are_the_drawn_videos_in_order(enough, monkeypatch):
  monkeypatch.setattr(workers, "ENOUGH", enough)
  monkeypatch.setattr(workers, "cores", lambda: 2)
  video, values = workers.arrays(TINY, "validation", 5)
  assert video.shape == (5, 16, 16, 16, 3) and video.dtype == np.uint8
  for index in range(5):
    scene = scenario(TINY, index, "validation")
    np.testing.assert_array_equal(video[index], render(TINY, scene))
    assert labels(scene) == {head: row[index] for head, row in values.items()}
  assert all(row.dtype == np.int32 for row in values.values())


def test_a_worker_that_fails_is_heard(monkeypatch, tmp_path):
  monkeypatch.setattr(workers, "ENOUGH", 2)
  monkeypatch.setattr(workers, "cores", lambda: 2)
  with pytest.raises(RuntimeError, match="No such file"):
    workers.share_out(workers.draw, TINY, "train", [0, 1, 2], str(tmp_path / "nothing.npy"))


def test_studies_need_neither_jax_nor_pyav():
  """Machines with a GPU and no more draw the world; Grain workers must stay light."""
  code = (
    "import sys, vfe.data.tabletop as t; t.arrays(t.World(size=16, frames=64), 'train', 2);"
    "import vfe.data.tabletop.baselines;"
    "heavy = {'jax', 'flax', 'tensorflow', 'av', 'PIL', 'scipy'} & set(sys.modules);"
    "sys.exit(str(heavy) if heavy else 0)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, env=_environment())


def test_the_light_face_lists_its_names_and_refuses_others():
  import vfe.data.tabletop as face

  assert {"World", "arrays", "scenario", "render"} <= set(dir(face))
  assert all(getattr(face, name) is not None for name in dir(face))
  with pytest.raises(AttributeError, match="nothing_of_the_kind"):
    face.nothing_of_the_kind  # noqa: B018


def _environment():
  import os

  import vfe

  return {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vfe.__file__))}
