"""The loop on several devices, and what it does with a loss that is not finite."""

import json
import pathlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn import sharding
from vfe.learn.step import gradients
from vfe.stages import stage_class
from vfe.stages.stage import Setting
from vfe.train import loop
from vfe.train.checkpoints import Checkpoints
from vfe.train.clock import Clock
from vfe.train.feed import Feed
from vfe.train.log import Log
from vfe.train.writers import read_scalars


def make(config, name, folder, devices):
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
  kind = stage_class(config[name].kind, "kind")
  return kind(Setting(name, config, pathlib.Path(folder), {}, mesh))


def losses(stage):
  loop.train(stage, meta={}, clock=Clock(), yes=True)
  lines = read_scalars(stage.setting.folder / "metrics.jsonl")
  return np.asarray([line["loss"] for line in lines if "loss" in line])


STEPS = 5  # wherever it does not matter: the schedule is in the program, which is compiled once


@pytest.fixture
def five_steps(tiny_pixels):
  return tiny_pixels({"pretrain.steps": STEPS, "checkpoint.every": 100})


@pytest.fixture(scope="module")
def folder_of_one(tmp_path_factory):
  return tmp_path_factory.mktemp("one")


@pytest.fixture(scope="module")
def on_one(folder_of_one, tiny_pixels):
  config = tiny_pixels({"pretrain.steps": STEPS, "checkpoint.every": 100})
  return losses(make(config, "pretrain", folder_of_one, 1))


# Each axis alone is program_test's, and with -m slow the loop's too.
ALONE = ({"data": 4}, {"data": 1, "fsdp": 4})


@pytest.mark.parametrize(
  "mesh", [{"data": 2, "fsdp": 2}, *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in ALONE)]
)
def test_four_devices_give_the_losses_of_one(mesh, five_steps, on_one, tmp_path):
  five_steps.mesh.update(mesh)
  found = losses(make(five_steps, "pretrain", tmp_path, 4))
  assert len(on_one) == 5 and len(set(on_one)) == 5
  np.testing.assert_allclose(found, on_one, rtol=2e-5)


def test_accumulation_gives_the_losses_of_one_part(five_steps, on_one, tmp_path):
  five_steps.pretrain.accumulate = 4
  found = losses(make(five_steps, "pretrain", tmp_path, 1))
  np.testing.assert_allclose(found, on_one, rtol=2e-5)


@pytest.mark.slow  # two compilations of the GAN
def test_the_first_gradients_of_the_gan_are_the_same_on_four_devices(tiny, tmp_path):
  found = []
  for devices in (1, 4):
    stage = make(tiny(), "tokenizer", tmp_path, devices)
    mesh, rng = stage.setting.mesh, jax.random.key(0)
    shapes = jax.eval_shape(stage.init, rng)
    where = sharding.shardings(shapes, mesh)
    params = jax.jit(stage.init, out_shardings=where)(rng)
    feed = Feed(stage.inputs(), mesh, seed=0, start=0, max_fault_share=1.0, say=print)
    batch = next(feed)
    feed.close()
    grads = jax.jit(
      lambda params, batch, stage=stage: gradients(
        lambda p, extra, part: stage.loss(p, {}, extra, part, None), params, {}, batch
      ).grads
    )(params, batch)
    found.append(jax.tree.map(np.asarray, grads))
  leaves = list(zip(*map(jax.tree.leaves, found), strict=True))
  # A gradient is a sum of terms as large as the largest of all, which may cancel to nothing (a bias
  # before a normalisation), so float32's 1e-7 is of that, times the root of some thousand terms.
  largest = max(np.abs(one).max() for one, _ in leaves)
  for one, four in leaves:
    np.testing.assert_allclose(four, one, rtol=1e-3, atol=5e-6 * largest)


def test_a_run_that_is_never_finite_ends_with_the_step_and_the_remedy(tiny_pixels, tmp_path, capfd):
  config = tiny_pixels({"pretrain.optimizer.base_lr": 1e30, "guard.steps_in_a_row": 3})
  config.pretrain.optimizer.warmup = 0.0
  with pytest.raises(UserError, match=r"updates in a row were not finite.*base_lr"):
    loop.train(make(config, "pretrain", tmp_path, 1), meta={}, clock=Clock(), yes=True)
  assert "updates skipped so far" in capfd.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused(
  five_steps, on_one, folder_of_one, tmp_path
):
  shutil.copytree(folder_of_one, tmp_path, dirs_exist_ok=True)
  five_steps.model.decoder_depth = 2
  with pytest.raises(UserError, match=r"another architecture.*--redo="):
    loop.train(make(five_steps, "pretrain", tmp_path, 1), meta={}, clock=Clock(), yes=True)


def test_memory_of_the_step_and_its_parameters_are_written_down(on_one, folder_of_one):
  memory = json.loads((folder_of_one / "texts" / "memory.txt").read_text())
  assert memory["temp_bytes"] > 0
  assert "mask_token" in (folder_of_one / "texts" / "parameters_model.txt").read_text()


class Reads:
  """Makes every way from an array to the host raise in the loop's thread, unless it may."""

  def __init__(self, monkeypatch):
    self.allowed = True
    array = type(jnp.zeros(()))
    for name in ("_value", "__array__", "__float__", "__int__", "__bool__", "__index__", "tolist"):
      monkeypatch.setattr(array, name, self._guarded(array, name))
    for module, name in ((jax, "device_get"), (np, "asarray"), (np, "array"), (np, "copyto")):
      monkeypatch.setattr(module, name, self._checked(getattr(module, name)))

  def _guarded(self, array, name):
    attribute = getattr(array, name)
    if isinstance(attribute, property):
      return property(self._checked(attribute.fget))
    return self._checked(attribute)

  def _checked(self, read):
    def checked(value, *rest, **named):
      if threading.current_thread() is threading.main_thread() and not self.allowed:
        held = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
        assert not held, "the device was read between two lines of the log"
      return read(value, *rest, **named)

    return checked

  def between(self, function, *, before, after):
    """`function`, with reading allowed or not from before it, and from after it."""

    def call(*given, **named):
      self.allowed = before
      try:
        return function(*given, **named)
      finally:
        self.allowed = after

    return call


@pytest.fixture
def reads(monkeypatch):
  """Reading is an error from the first step to the last, but for log lines and checkpoints."""
  found = Reads(monkeypatch)
  monkeypatch.setattr(Clock, "start", found.between(Clock.start, before=True, after=False))
  monkeypatch.setattr(Clock, "finish", found.between(Clock.finish, before=True, after=True))
  for kind, name in ((Log, "line"), (Checkpoints, "save")):
    allowed = found.between(getattr(kind, name), before=True, after=False)
    monkeypatch.setattr(kind, name, allowed)
  return found


READING = {
  "float": float,
  "int": int,
  "bool": bool,
  "item": lambda x: x.item(),
  "tolist": lambda x: x.tolist(),
  "asarray": np.asarray,
  "array": np.array,
  "device_get": jax.device_get,
  "format": "{:.1f}".format,
}


@pytest.mark.parametrize("how", READING)
def test_every_way_of_reading_an_array_is_seen(how, reads):
  value = jnp.ones(())
  reads.allowed = False
  read = {"asarray": np.asarray, "array": np.array, "device_get": jax.device_get}  # as they are now
  with pytest.raises(AssertionError, match="between two lines"):
    read.get(how, READING[how])(value)
  reads.allowed = True


def test_nothing_is_read_from_the_device_between_two_lines_of_the_log(tiny_pixels, tmp_path, reads):
  config = tiny_pixels({"pretrain.steps": STEPS, "log.every": 2, "checkpoint.every": 2})
  found = losses(make(config, "pretrain", tmp_path, 1))
  assert len(found) == 3 and reads.allowed  # lines at steps 2, 4 and 5


def test_the_profiler_switch_leaves_a_trace_of_its_steps(tiny_pixels, tmp_path):
  config = tiny_pixels({"pretrain.steps": STEPS, "profile.start": 1, "profile.steps": 1})
  loop.train(make(config, "pretrain", tmp_path, 1), meta={}, clock=Clock(), yes=True)
  assert any(file.suffix == ".pb" for file in (tmp_path / "profile").rglob("*"))


def test_each_group_of_the_gan_has_its_own_optimiser(tiny, tmp_path):
  config = tiny({"tokenizer.discriminator_optimizer.base_lr": 5e-4})
  stage = make(config, "tokenizer", tmp_path, 1)
  rates = {name: float(update.schedule(0)) for name, update in stage.updates.items()}
  assert rates["discriminator"] == pytest.approx(rates["generator"] / 2)
