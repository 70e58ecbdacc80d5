"""What a step takes on some devices, and how the largest that fits is found."""

import dataclasses

import jax
import pytest

from vfe.errors import UserError
from vfe.train import devices, planning

GIB = 2**30


@pytest.fixture(scope="module")
def sharded(tiny):
  config = tiny({"mesh.data": 2, "mesh.fsdp": 4})
  return planning.plan(config, "pretrain", jax.devices())


def test_a_plan_names_every_byte(sharded, tiny):
  alone = planning.plan(tiny({"mesh.data": 1}), "pretrain", jax.devices()[:1])
  assert sharded.devices == 8 and sharded.mesh["fsdp"] == 4
  assert alone.memory.batch == 8 * sharded.memory.batch
  assert 3 * alone.memory.parameters > sharded.memory.parameters * 8
  assert alone.memory.optimizer == pytest.approx(2 * alone.memory.parameters, rel=0.01)
  assert alone.memory.temporaries > 0 and alone.memory.averages == alone.memory.frozen == 0
  assert not alone.traffic.collectives and sharded.traffic.exact
  assert "all-gather" in {one.kind for one in sharded.traffic.collectives}
  assert alone.model_flops == sharded.model_flops > 0
  assert alone.needs == alone.memory.peak and alone.fits and alone.capacity is None


def test_what_does_not_fit_is_told_with_what_it_needs():
  assert planning.needed(
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
    "required for HLO temporaries (85.48G) exceeds available HBM (15.75G). HLO module: jit_step."
  ) == int(85.48 * GIB)
  older = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 16.18G of 15.75G hbm."
  assert planning.needed(older) == int(16.18 * GIB)
  assert planning.needed("RESOURCE_EXHAUSTED: no figure") == 0


@pytest.mark.parametrize(
  "fixed,each,capacity", [(1.0, 0.1, 15.75), (0.5, 3.0, 16.0), (2.0, 0.002, 95)]
)
def test_the_largest_is_found_to_one_part_in_sixteen(sharded, fixed, each, capacity):
  probed = []

  def probe(index):
    probed.append(index)
    needs = int((fixed + each * (index + 1)) * GIB)
    memory = sharded.memory if needs <= capacity * GIB * 1.5 else None
    return dataclasses.replace(
      sharded, batch=index + 1, memory=memory, needs=needs, capacity=int(capacity * GIB)
    )

  best = planning.largest(probe, 1 << 20)
  true = int((capacity - fixed) / each)
  assert true * 15 / 16 - 1 <= best.batch <= true and best.fits
  assert len(probed) <= 12 and len(set(probed)) == len(probed)


def test_where_nothing_fits_the_least_is_told(sharded):
  none = dataclasses.replace(sharded, memory=None, needs=GIB, capacity=1)
  assert planning.largest(lambda index: none, 100) is none and not none.fits


def test_what_is_changed_is_one_stages(tiny):
  config = tiny()
  other = planning.changed(config, "pretrain", {"batch": 64, "frames": 48, "size": "s"})
  assert other.pretrain.batch == 64 and other.finetune.batch == config.finetune.batch
  assert other.pretrain.data.frames == 48 and other.data.frames == config.data.frames == 32
  assert other.model.size == "s" and config.model.size == "test"


REFUSED = [
  ("v9:2x2", "--topology=v9:2x2 is unknown"),
  ("v5e", "v5e has 2 sides, as in v5e:4x4"),
  ("v5p:2x2", "v5p has 3 sides, as in v5p:2x2x4"),
]


@pytest.mark.parametrize("name,told", REFUSED)
def test_an_unknown_topology_is_told_with_those_that_exist(name, told):
  with pytest.raises(UserError) as error:
    devices.named(name)
  assert told in str(error.value)


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[plan\]'.*--topology=local"):
    devices.named("v5e:2x2")


def test_a_device_at_hand_needs_no_table():
  assert devices.named("local") == jax.devices()
  assert devices.known(jax.devices()[0]) is None and devices.capacity(jax.devices()[0]) is None


def test_a_program_that_cannot_be_read_back_has_no_traffic():
  class Unreadable:
    def as_text(self):
      raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure: async-update instruction")

  assert planning.traffic_of(Unreadable()) is None
