"""3-D convolutions, by the route that the platform is good at.

XLA:CPU runs a 3-D convolution several times slower than the same kernel as 2-D convolutions summed
over its time taps; TPU and GPU want the native one. The parameters are those of `flax.linen.Conv`
whichever way is taken, and the numbers agree to float32 rounding.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vfe.nn.attention import over_rows
from vfe.nn.platform import platform

Triple = tuple[int, int, int]
Pads = list[tuple[int, int]]


def conv3d(
  video: Float[Array, "B T H W C"],
  kernel: Float[Array, "kt kh kw C D"],
  strides: Triple = (1, 1, 1),
  implementation: str = "auto",
) -> Float[Array, "B T2 H2 W2 D"]:
  """Convolution with SAME padding (zeros): T2 = ceil(T / strides[0]), likewise H2 and W2.

  implementation is a key of `IMPLEMENTATIONS`; "auto" asks `vfe.nn.platform`.
  """
  if implementation == "auto":
    implementation = "taps" if platform() == "cpu" else "native"
  pads = lax.padtype_to_pads(video.shape[1:4], kernel.shape[:3], strides, "SAME")
  return IMPLEMENTATIONS[implementation](video, kernel, strides, pads)


def _native(video: Array, kernel: Array, strides: Triple, pads: Pads) -> Array:
  return lax.conv_general_dilated(
    video, kernel, strides, pads, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
  )


def _taps(video: Array, kernel: Array, strides: Triple, pads: Pads) -> Array:
  """Each tap of the kernel in time is a 2-D convolution of the frames that it falls on."""
  batch = len(video)
  video = jnp.pad(video, [(0, 0), pads[0], (0, 0), (0, 0), (0, 0)])
  frames = (video.shape[1] - len(kernel)) // strides[0] + 1
  total = None
  for tap, plane in enumerate(kernel):
    seen = lax.slice_in_dim(video, tap, tap + (frames - 1) * strides[0] + 1, strides[0], axis=1)
    flat = lax.conv_general_dilated(
      seen.reshape(batch * frames, *seen.shape[2:]),
      plane,
      strides[1:],
      pads[1:],
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    total = flat if total is None else total + flat
  return total.reshape(batch, frames, *total.shape[1:])


IMPLEMENTATIONS: dict[str, Callable[[Array, Array, Triple, Pads], Array]] = {
  "native": _native,
  "taps": _taps,
}


class Conv3D(nn.Module):
  """A 3-D convolution layer, SAME padding. Parameters float32; computes in `dtype`."""

  features: int
  kernel_size: Triple = (3, 3, 3)
  strides: Triple = (1, 1, 1)
  use_bias: bool = True
  kernel_init: Callable = nn.initializers.lecun_normal()
  dtype: jax.typing.DTypeLike = jnp.float32
  implementation: str = "auto"

  @nn.compact
  def __call__(self, video: Float[Array, "B T H W C"]) -> Float[Array, "B T2 H2 W2 D"]:
    shape = (*self.kernel_size, video.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    out = conv3d(
      video.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.implementation
    )
    # A cut kernel is gathered: it is small beside the video, which would be cut along with it.
    out = over_rows(out)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
      out = out + bias.astype(self.dtype)
    return out
