"""Videos cut into tubelets. The values of a tubelet are ordered (t, y, x, c), channels last."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped, UInt8

from vfe.nn.platform import platform
from vfe.tokens.layout import Layout
from vfe.tokens.selection import gather_tokens
from vfe.tokens.tubes import TubeLayout, gather_tubes


def tubelets(video: UInt8[Array, "B T H W 3"], layout: Layout) -> UInt8[Array, "B N P"]:
  """All tubelets of a video, in the layout's order."""
  if platform() == "tpu":
    return _by_frame(video, layout)
  cut = _cut(video, layout).transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return cut.reshape(len(video), layout.size, layout.channels)


def gather_tubelets(
  video: UInt8[Array, "B T H W 3"], layout: Layout | TubeLayout, selection: Int[Array, "B K"]
) -> UInt8[Array, "B K P"] | tuple[UInt8[Array, "B _ _"], ...]:
  """The selected tubelets, straight from the video: the others are not converted to anything.

  A TPU, which gathers whole rows only, first lays all of them out as bytes. Of a layout of tubes,
  what `vfe.tokens.tubes.gather_tubes` gives.
  """
  if isinstance(layout, TubeLayout):
    return gather_tubes(video, layout, selection)
  if platform() == "tpu":
    return gather_tokens(_by_frame(video, layout), selection)

  def row(cut, selected):
    t, y, x = layout.places(selected)
    return cut.at[t, :, y, :, x].get(mode="promise_in_bounds")

  taken = jax.vmap(row)(_cut(video, layout), selection)
  return taken.reshape(*selection.shape, layout.channels)


def _by_frame(video: UInt8[Array, "B T H W 3"], layout: Layout) -> UInt8[Array, "B N P"]:
  """All tubelets, one latent frame after another.

  The dimensions of 3 and 16 on the way are padded to 128 in a TPU's memory, seventeen bytes for
  one in all (by the compiler, v5e): that may happen to one frame at a time, not to the video.
  """
  (t, h, w), (dt, dh, dw) = layout.grid, layout.tubelet

  def frame(start):
    part = jax.lax.dynamic_slice_in_dim(video, start, dt, axis=1)
    cut = part.reshape(len(video), dt, h, dh, w, dw * 3).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(len(video), layout.per_frame, layout.channels)

  frames = jax.lax.map(frame, jnp.arange(0, t * dt, dt))
  return frames.swapaxes(0, 1).reshape(len(video), layout.size, layout.channels)


def untubelets(patches: Shaped[Array, "B N P"], layout: Layout) -> Shaped[Array, "B T H W 3"]:
  """The video that the tubelets were cut from; any dtype."""
  (t, h, w), (dt, dh, dw) = layout.grid, layout.tubelet
  grid = jnp.reshape(patches, (len(patches), t, h, w, dt, dh, dw, 3))
  return grid.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(patches), *layout.video, 3)


def _cut(video: UInt8[Array, "B T H W 3"], layout: Layout) -> UInt8[Array, "B t dt h dh w dw 3"]:
  """A view of the video in which a tubelet is addressed by three of its dimensions."""
  (t, h, w), (dt, dh, dw) = layout.grid, layout.tubelet
  return jnp.reshape(video, (len(video), t, dt, h, dh, w, dw, 3))
