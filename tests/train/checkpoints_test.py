import json
import logging
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vfe.errors import UserError
from vfe.learn import optimizer, sharding
from vfe.learn.trained import Trained
from vfe.train import checkpoints

META = {"config": "abc", "seed": 3, "frozen": {"tokenizer": "def"}}


def make_state(width=8):
  """A state as training has them: stacked leaves, a frozen one, scalars, empty parts."""
  params = {
    "encoder": {"blocks": {"kernel": jnp.arange(2.0 * 16 * width).reshape(2, 16, width)}},
    "head": {"kernel": jnp.ones((width, 8)), "bias": jnp.zeros(8)},
  }
  made, _ = optimizer.make_optimizer(dict(warmup=0.5), params, steps=4, batch=8)
  group = {"params": params, "opt_state": made.init(Trained("encoder|bias").of(params))}
  return {"step": jnp.int32(7), "groups": {"model": group}, "ema": {}, "extra": None}


def laid(devices, fsdp=1, width=8):
  mesh = sharding.make_mesh({"data": -1, "fsdp": fsdp}, jax.devices()[:devices])
  shapes = jax.eval_shape(lambda: make_state(width))
  return shapes, sharding.shardings(shapes, mesh)


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_saved_on_four_devices_comes_back_on_any_number(tmp_path):
  _, four = laid(4, fsdp=2)
  state = jax.device_put(make_state(), four)
  with checkpoints.Checkpoints(tmp_path / "pretrain", meta=META) as saver:
    assert saver.restore(*laid(4)) is None
    assert saver.save(7, state)
  for devices, fsdp in ((1, 1), (8, 8)):
    shapes, wanted = laid(devices, fsdp)
    with checkpoints.Checkpoints(tmp_path / "pretrain") as saver:
      restored = saver.restore(shapes, wanted)
    assert_same(restored, state)
    jax.tree.map(lambda leaf, s: leaf.sharding == s or pytest.fail(str(s)), restored, wanted)
  beside = json.loads((tmp_path / "pretrain/checkpoints/7/meta/metadata").read_text())
  assert beside["meta"] == META and beside["leaves"]["step"] == "int32[]"


def test_only_the_newest_are_kept_and_none_is_written_over(tmp_path):
  shapes, wanted = laid(1)
  with checkpoints.Checkpoints(tmp_path, keep=2) as saver:
    for step in (1, 2, 3):
      assert saver.save(step, {**make_state(), "step": jnp.int32(step)})
    assert not saver.save(3, jax.tree.map(jnp.zeros_like, make_state()))
    saver.wait()
    assert saver.steps() == [2, 3]
    assert_same(saver.restore(shapes, wanted), {**make_state(), "step": jnp.int32(3)})


def test_a_donated_state_is_saved_as_it_was(tmp_path):
  """Training goes on, in place, while the files are written."""
  make = jax.jit(lambda: {"a": jnp.zeros(300_000)})
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  shapes = jax.eval_shape(make)
  here = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
  state = make()
  with checkpoints.Checkpoints(tmp_path) as saver:
    for i in range(4):
      saver.save(i, state)
      for _ in range(5):
        state = step(state)
    saver.wait()
    restored = saver.restore(shapes, here)
  assert np.unique(restored["a"]) == 15


def test_a_half_written_checkpoint_is_ignored_and_cleared_away(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saver:
    saver.save(5, make_state())
  torn = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
  (torn / "state").mkdir(parents=True)
  with checkpoints.Checkpoints(tmp_path) as saver:
    assert saver.latest_step() == 5
    assert_same(saver.restore(*laid(1)), make_state())
    assert saver.save(6, make_state())
  assert not torn.exists()
  assert (tmp_path / "checkpoints" / "6").is_dir()


def test_a_damaged_checkpoint_is_named_with_the_one_before_it(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saver:
    saver.save(5, make_state())
    saver.save(6, make_state())
  for file in (tmp_path / "checkpoints" / "6" / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  with checkpoints.Checkpoints(tmp_path) as saver, pytest.raises(UserError) as caught:
    saver.restore(*laid(1))
  assert "checkpoints/6 cannot be read" in str(caught.value)
  assert "move it away to go on from step 5." in str(caught.value)
  assert "\n" not in str(caught.value)


def test_another_architecture_names_the_leaf_and_the_remedy(tmp_path):
  with checkpoints.Checkpoints(tmp_path / "pretrain") as saver:
    saver.save(5, make_state())
    with pytest.raises(UserError) as caught:
      saver.restore(*laid(1, width=4))
  assert (
    "groups/model/params/encoder/blocks/kernel is float32[2,16,8], "
    "the config makes it float32[2,16,4];"
  ) in str(caught.value)
  assert str(caught.value).endswith("choose another --workdir, or --redo=pretrain.")


def test_another_optimiser_is_another_architecture(tmp_path):
  shapes, wanted = laid(1)
  with checkpoints.Checkpoints(tmp_path) as saver:
    state = make_state()
    state["groups"]["model"]["opt_state"] = optax.sgd(0.1, momentum=0.9).init(
      state["groups"]["model"]["params"]
    )
    saver.save(5, state)
    with pytest.raises(UserError, match="is not in it, the config makes it"):
      saver.restore(shapes, wanted)


def test_nothing_is_said_that_a_user_need_not_read(tmp_path, caplog):
  with caplog.at_level(logging.WARNING), checkpoints.Checkpoints(tmp_path) as saver:
    saver.save(5, make_state())
    saver.wait()
    saver.restore(*laid(1))
  assert not caplog.records


KILLED = """
import os, signal, sys, threading, time
import jax, jax.numpy as jnp
from vfe.train import checkpoints
saver = checkpoints.Checkpoints(sys.argv[1])
saver.save(1, {"a": jnp.ones(10)})
saver.wait()
folder = os.path.join(sys.argv[1], "checkpoints")
def kill():
  while len(os.listdir(folder)) < 2: time.sleep(0.0005)
  os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
saver.save(2, {"a": jnp.ones(20_000_000)})
saver.wait()
"""


def test_a_process_killed_while_saving_leaves_the_checkpoint_before(tmp_path):
  done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), tmp_path], check=False)
  assert done.returncode == -signal.SIGKILL
  with checkpoints.Checkpoints(tmp_path) as saver:
    assert saver.latest_step() == 1
