"""Joining: which variables say that there are several processes, and what does not fit."""

import jax
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn import hosts, sharding

OURS = {"VFE_COORDINATOR": "10.0.0.1:1234", "VFE_PROCESSES": "4", "VFE_PROCESS": "3"}
SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
  "SLURM_NTASKS": "2",
}


def test_our_launchers_say_everything():
  assert hosts.launched(OURS | SLURM) == {
    "coordinator_address": "10.0.0.1:1234", "num_processes": 4, "process_id": 3,
  }  # fmt: skip


@pytest.mark.parametrize(
  "environment",
  [
    {},
    OURS | {"VFE_PROCESSES": "1", "VFE_PROCESS": "0"},
    SLURM | {"SLURM_NTASKS": "1"},
    {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"},  # no srun
    {"TPU_WORKER_HOSTNAMES": "localhost"},
  ],
  ids=["nothing", "one of ours", "one task", "salloc", "one host"],
)
def test_a_process_on_its_own_joins_nobody(environment):
  assert hosts.launched(environment) is None


@pytest.mark.parametrize(
  "environment,found",
  [
    (SLURM, {}),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
    ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, {}),
    ({"VFE_CLUSTER": "gcetpu"}, {"cluster_detection_method": "gcetpu"}),
  ],
  ids=["slurm", "pod", "slices", "named"],
)
def test_the_rest_is_left_to_jax(environment, found):
  assert hosts.launched(environment) == found


@pytest.mark.parametrize(
  "changes,told",
  [
    ({"VFE_PROCESS": ""}, "VFE_PROCESS not set, but VFE_COORDINATOR"),
    ({"VFE_COORDINATOR": "host"}, "VFE_COORDINATOR=host is not the first process's host:port"),
    ({"VFE_PROCESS": "4"}, "VFE_PROCESSES=4 and VFE_PROCESS=4: processes are numbered from 0"),
    ({"VFE_PROCESSES": "two"}, "VFE_PROCESSES=two"),
  ],
)
def test_variables_that_do_not_fit_are_named(changes, told):
  with pytest.raises(UserError) as error:
    hosts.launched(OURS | changes)
  assert told in str(error.value)


def test_values_lie_where_they_are_put():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 4})
  tree = {"a": np.arange(64.0, dtype=np.float32).reshape(8, 8), "b": np.float32(3)}
  layout = sharding.shardings(tree, mesh)
  put = hosts.put(tree, layout)
  jax.tree.map(np.testing.assert_array_equal, jax.tree.map(hosts.fetch, put), tree)
  assert jax.tree.map(lambda leaf: leaf.sharding, put) == layout
  assert hosts.put(tree, sharding.replicated(mesh))["a"].is_fully_replicated


def test_alone_a_process_decides_and_adds_up_for_itself():
  assert hosts.decided(lambda: {"a": 1}) == {"a": 1}
  assert hosts.summed({"rows": 3}) == {"rows": 3}
  with hosts.joined(heartbeat_timeout_seconds=10):
    assert hosts.first() and hosts.client() is None
