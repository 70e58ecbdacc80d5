"""Sparse tubes: tokens of several kernels over one video (TubeViT, arXiv 2212.03229), no grid.

Tubes of one kernel may overlap in time; in space they do not touch. The tokens of a kernel are
ordered as a grid's, those of all kernels stand one after another.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key, UInt8

from vfe.errors import UserError
from vfe.nn.platform import platform
from vfe.tokens import selection as selections
from vfe.tokens.selection import gather_tokens

Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Tube:
  """A kernel of (frames, rows, columns) RGB pixels, at every stride from the offset on."""

  kernel: Triple
  stride: Triple
  offset: Triple = (0, 0, 0)

  @property
  def channels(self) -> int:
    """P, the number of values in one."""
    return 3 * self.kernel[0] * self.kernel[1] * self.kernel[2]

  def grid(self, video: Triple) -> Triple:
    """How many lie in a video (frames, height, width), all of them whole, none padded.

    Raises:
      UserError: not one does, or they overlap in space.
    """
    room = np.subtract(video, np.add(self.kernel, self.offset))
    if room.min() < 0:
      raise UserError(
        f"tubes of {self.kernel} from {self.offset} on do not fit into {video[0]} frames of "
        f"{video[1]}x{video[2]} pixels; set data.frames or data.size to more."
      )
    if self.stride[1] < self.kernel[1] or self.stride[2] < self.kernel[2]:
      raise UserError(f"tubes of {self.kernel} overlap in space by strides {self.stride}.")
    return tuple((room // self.stride + 1).tolist())


def tubevit(frames: int, side: int = 16) -> tuple[Tube, ...]:
  """TubeViT's four kernels (its section 4.1); of a single image, the one of one frame.

  At 32 frames of 224 pixels they make 539 tokens; the paper, with the same strides, counts 559.
  Shorter clips, ours: no offset in time that leaves the long tubes no room, and the fourth kernel
  at every 16th frame. side is that of the fourth kernel, by which all are scaled in space.
  """
  scaled = lambda t, y, x: (t, y * side // 16, x * side // 16)
  flat = Tube(scaled(1, 16, 16), scaled(min(32, max(frames, 16)), 16, 16))
  if frames == 1:
    return (flat,)
  return (
    Tube(scaled(8, 8, 8), scaled(16, 32, 32)),
    Tube(scaled(16, 4, 4), scaled(6, 32, 32), scaled(min(4, max(frames - 16, 0)), 8, 8)),
    Tube(scaled(4, 12, 12), scaled(16, 32, 32), scaled(0, 16, 16)),
    flat,
  )


TUBES = {"tubevit": tubevit}  # by name in config.model.tubes: (frames, side) -> kernels


@dataclasses.dataclass(frozen=True)
class TubeLayout:
  """The tokens of all `tubes` in a video of (frames, height, width) pixels."""

  video: Triple
  tubes: tuple[Tube, ...]

  @classmethod
  def of_video(cls, frames: int, size: int, tubes: tuple[Tube, ...]) -> "TubeLayout":
    """The layout of a video of square frames of `size` pixels.

    Raises:
      UserError: a tube does not fit.
    """
    layout = cls((frames, size, size), tubes)
    layout.sizes  # noqa: B018  an error now, not in a jitted step
    return layout

  @property
  def sizes(self) -> tuple[int, ...]:
    """Tokens of every kernel."""
    return tuple(int(np.prod(tube.grid(self.video))) for tube in self.tubes)

  @property
  def size(self) -> int:
    """N, the number of tokens."""
    return sum(self.sizes)

  @property
  def starts(self) -> tuple[int, ...]:
    """The first token of every kernel."""
    return tuple(np.cumsum((0, *self.sizes[:-1])).tolist())

  def shares(self, keep: int) -> tuple[int, ...]:
    """How many of `keep` tokens are of each kernel: the same share of all, to within one."""
    exact = np.array(self.sizes) * keep / self.size
    counts = np.floor(exact).astype(int)
    most = np.argsort(counts - exact, kind="stable")[: keep - counts.sum()]
    counts[most] += 1
    return tuple(counts.tolist())

  def centres(self) -> Int32[np.ndarray, "N 3"]:
    """(t, y, x) of the middle of every token, in half pixels from the middle of the first."""
    return np.concatenate([
      2 * (np.indices(tube.grid(self.video)).reshape(3, -1).T * tube.stride + tube.offset)
      + np.subtract(tube.kernel, 1)
      for tube in self.tubes
    ]).astype(np.int32)  # fmt: skip

  def coordinates(self) -> Float[np.ndarray, "N 3"]:
    """(t, y, x) of the middle of every token, in frames and pixels."""
    return self.centres() / 2


def random_of_tubes(keys: Key[Array, "B"], layout: TubeLayout, keep: int) -> Int32[Array, "B K"]:
  """`keep` random tokens, the same share of each kernel's (`TubeLayout.shares`)."""
  if not 0 < keep <= layout.size:
    raise UserError(f"{keep} of {layout.size} tokens were asked for; ask for at least 1.")
  found = []
  for i, (start, n, of) in enumerate(
    zip(layout.starts, layout.sizes, layout.shares(keep), strict=True)
  ):
    own = jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys)
    found += [start + selections.random(own, n, of)] if of else []
  return jnp.concatenate(found, axis=1)


def gather_tubes(
  video: UInt8[Array, "B T H W 3"], layout: TubeLayout, selection: Int[Array, "B K"] | None = None
) -> tuple[UInt8[Array, "B _ _"], ...]:
  """The selected tubes of every kernel, [B, K_i, P_i], straight from the video.

  selection is all tokens (the default) or has `layout.shares(K)` of each kernel. The values of a
  tube are ordered (t, y, x, c).
  """
  keep = layout.size if selection is None else selection.shape[1]
  counts, found, first = layout.shares(keep), [], 0
  for tube, start, n, count in zip(layout.tubes, layout.starts, layout.sizes, counts, strict=True):
    if count == n:
      found.append(_all(video, tube))
    else:
      own = selection[:, first : first + count] - start
      by_rows = platform() == "tpu"  # which gathers whole rows only
      found.append(gather_tokens(_all(video, tube), own) if by_rows else _some(video, tube, own))
    first += count
  return tuple(found)


def _some(
  video: UInt8[Array, "B T H W 3"], tube: Tube, selection: Int[Array, "B K"]
) -> UInt8[Array, "B K P"]:
  """Windows of the video."""
  t, h, w = tube.grid(video.shape[1:4])
  del t
  places = jnp.stack([selection // (h * w), selection // w % h, selection % w], axis=-1)
  corners = places * jnp.asarray(tube.stride) + jnp.asarray(tube.offset)
  window = lambda clip, at: jax.lax.dynamic_slice(clip, (*at, 0), (*tube.kernel, 3))
  found = jax.vmap(jax.vmap(window, (None, 0)))(video, corners)
  return found.reshape(*selection.shape, tube.channels)


def _all(video: UInt8[Array, "B T H W 3"], tube: Tube) -> UInt8[Array, "B N P"]:
  """All tubes of a kernel, those that begin with the same frame at a time."""
  (t, h, w), (kt, kh, kw) = tube.grid(video.shape[1:4]), tube.kernel
  (st, sh, sw), (ot, oh, ow) = tube.stride, tube.offset
  short = [max(0, at + n * s - had) for at, n, s, had in zip(
    (oh, ow), (h, w), (sh, sw), video.shape[2:4], strict=True
  )]  # fmt: skip

  def begun(start):
    part = jax.lax.dynamic_slice_in_dim(video, start, kt, axis=1)
    part = part[:, :, oh : oh + h * sh, ow : ow + w * sw]
    # After the last tubes there may be less than a stride.
    part = jnp.pad(part, ((0, 0), (0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    cut = part.reshape(len(video), kt, h, sh, w, sw, 3)[:, :, :, :kh, :, :kw]
    return cut.transpose(0, 2, 4, 1, 3, 5, 6).reshape(len(video), h * w, tube.channels)

  found = jax.lax.map(begun, ot + st * jnp.arange(t))
  return found.swapaxes(0, 1).reshape(len(video), t * h * w, tube.channels)
