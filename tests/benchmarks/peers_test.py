import pathlib
import sys

import numpy as np
import pytest

from vfe.errors import UserError

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))

import peers
import peers_work


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("weights") / "export")
  device = peers_work.describe("test", 32, folder)["device"]
  return peers_work.Task("pretrain", "test", 32, 2, "float32", device, folder)


@pytest.fixture(scope="module")
def losses(task):
  """Of our first three steps."""
  run = peers_work.ours(task)
  return [run(1) for _ in range(3)]


def test_the_mask_is_a_tube_and_what_is_not_visible_is_masked(task):
  visible = np.zeros((2, task.encoder().layout.size), bool)
  visible[np.arange(2)[:, None], task.visible()] = True
  np.testing.assert_array_equal(visible, ~task.masked())
  by_frame = visible.reshape(2, task.encoder().layout.grid[0], -1)
  assert (by_frame == by_frame[:, :1]).all() and by_frame[:, 0].sum(1).tolist() == [1, 1]


def test_the_step_learns(losses):
  assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_pytorch_does_the_same_work(task, losses, name):
  """The same loss at first and after two updates: the same weights, clips, masks and optimiser."""
  pytest.importorskip("torch")
  pytest.importorskip("transformers")
  run = peers_work.theirs(task, peers_work.PEERS[name])
  np.testing.assert_allclose([run(1) for _ in range(3)], losses, rtol=1e-5)


def test_a_missing_package_is_named(monkeypatch):
  find = lambda name: None if name == "torch" else object()
  monkeypatch.setattr("importlib.util.find_spec", find)
  with pytest.raises(UserError, match=r"^torch: not installed; pip install torch transf"):
    peers._check_installed(("eager",))
  peers._check_installed(())
