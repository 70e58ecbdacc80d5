"""Videos cut into tubelets. The values of a tubelet are ordered (t, y, x, c), channels last."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped, UInt8

from vfe.tokens.layout import Layout


def tubelets(video: UInt8[Array, "B T H W 3"], layout: Layout) -> UInt8[Array, "B N P"]:
  """All tubelets of a video, in the layout's order."""
  cut = _cut(video, layout).transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return cut.reshape(len(video), layout.size, layout.channels)


def gather_tubelets(
  video: UInt8[Array, "B T H W 3"], layout: Layout, selection: Int[Array, "B K"]
) -> UInt8[Array, "B K P"]:
  """The selected tubelets, straight from the video: the others are neither moved nor converted."""

  def row(cut, selected):
    t, y, x = layout.places(selected)
    return cut.at[t, :, y, :, x].get(mode="promise_in_bounds")

  taken = jax.vmap(row)(_cut(video, layout), selection)
  return taken.reshape(*selection.shape, layout.channels)


def untubelets(patches: Shaped[Array, "B N P"], layout: Layout) -> Shaped[Array, "B T H W 3"]:
  """The video that the tubelets were cut from; any dtype."""
  (t, h, w), (dt, dh, dw) = layout.grid, layout.tubelet
  grid = jnp.reshape(patches, (len(patches), t, h, w, dt, dh, dw, 3))
  return grid.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(patches), *layout.video, 3)


def _cut(video: UInt8[Array, "B T H W 3"], layout: Layout) -> UInt8[Array, "B t dt h dh w dw 3"]:
  """A view of the video in which a tubelet is addressed by three of its dimensions."""
  (t, h, w), (dt, dh, dw) = layout.grid, layout.tubelet
  return jnp.reshape(video, (len(video), t, dt, h, dh, w, dw, 3))
