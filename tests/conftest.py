"""Every test runs with checked shapes, on eight CPU devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("vfe", "beartype.beartype")

import pathlib  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

# Compiled programs are kept between runs of the suite, as vfe.main keeps them for its users.
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), "vfe-test-xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
  """The folder of real videos and annotations that the project's developers test with."""
  if not SHARED.is_dir():
    pytest.skip("the real videos of the developers are not on this machine")
  return SHARED
