"""Which platform a program is made for: not always the one that it is traced on."""

import jax


def platform() -> str:
  """`cpu`, `gpu` or `tpu`: of the ambient mesh (`jax.set_mesh`), else of JAX's default backend.

  A planner compiles for devices that this machine does not have; asking the default backend, it
  would choose the host's implementations for them.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  found = device.platform if device is not None else jax.default_backend()
  return {"cuda": "gpu", "rocm": "gpu"}.get(found, found)
