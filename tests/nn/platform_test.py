"""Choices by platform are made for the devices of the ambient mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from vfe.nn.conv import conv3d
from vfe.nn.platform import platform


def mesh_of(kind: str, name: str) -> AbstractMesh:
  """A mesh of devices that this machine does not have."""
  device = AbstractDevice(device_kind=kind, num_cores=1, platform=name)
  return AbstractMesh((4,), ("data",), (AxisType.Auto,), abstract_device=device)


def test_platform_is_that_of_the_ambient_mesh():
  assert platform() == "cpu"
  with jax.sharding.use_abstract_mesh(mesh_of("TPU v5 lite", "tpu")):
    assert platform() == "tpu"
  with jax.sharding.use_abstract_mesh(mesh_of("NVIDIA H200", "cuda")):
    assert platform() == "gpu"


def test_convolution_is_chosen_for_the_platform_compiled_for():
  """On a CPU host, a program for a TPU holds the 3-D convolution and not the 2-D ones."""
  shapes = jnp.zeros((1, 4, 4, 4, 3)), jnp.zeros((3, 3, 3, 3, 8))
  count = lambda: str(jax.make_jaxpr(conv3d)(*shapes)).count("= conv_general_dilated")
  assert count() == 3
  with jax.sharding.use_abstract_mesh(mesh_of("TPU v5 lite", "tpu")):
    assert count() == 1
