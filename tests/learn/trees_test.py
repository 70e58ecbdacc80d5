"""Trees of arrays are written without a program for every small part."""

import jax
import numpy as np
import orbax.checkpoint as ocp

from vfe.learn import sharding
from vfe.learn.trees import SHARE, tree_handler


def test_only_large_arrays_are_shared_out_among_the_devices(tmp_path, monkeypatch):
  everywhere = sharding.replicated(sharding.make_mesh(None, jax.devices()))
  rows = len(jax.devices())
  tree = {"small": np.ones((rows, 8), np.float32), "large": np.ones((rows, SHARE), np.uint8)}
  tree = jax.device_put(tree, everywhere)
  cut, slice_in_dim = set(), jax.lax.slice_in_dim

  def record(array, *given, **named):
    cut.add(array.shape)
    return slice_in_dim(array, *given, **named)

  monkeypatch.setattr(jax.lax, "slice_in_dim", record)
  with ocp.AsyncCheckpointer(tree_handler()) as writer:
    writer.save(tmp_path / "tree", args=ocp.args.PyTreeSave(tree | {"host": np.arange(3)}))
  assert cut == {(rows, SHARE)}
  with ocp.StandardCheckpointer() as reader:
    found = reader.restore(tmp_path / "tree")
  np.testing.assert_array_equal(found["large"], tree["large"])
  assert found["host"].tolist() == [0, 1, 2]
