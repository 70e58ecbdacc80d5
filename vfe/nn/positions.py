"""Fixed sine-cosine positions, computed at the selected tokens only."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def sincos1d(
  index: Int[Array, "*B"], width: int, count: int, unit: float = 1.0
) -> Float[Array, "*B {width}"]:
  """VideoMAE's table at `index` in [0, count): sine and cosine of unit index / 10000^(2i/width).

  Sines stand at even channels, cosines at odd ones; `width` is even. The angle of a token of a
  long clip is too large for float32 (12,543 rad: 1e-3 off), so it is the sum of two angles that
  are tabulated in float64, about sqrt(count) rows each.
  """
  base = max(1, int(np.ceil(np.sqrt(count))))
  frequency = unit * 10000.0 ** (-2.0 * np.arange(width // 2) / width)
  fine = np.arange(base)[:, None] * frequency
  coarse = np.arange(-(-count // base))[:, None] * base * frequency
  sin_a, cos_a, sin_b, cos_b = (
    jnp.asarray(f(angle), jnp.float32)[at]
    for angle, at in ((coarse, index // base), (fine, index % base))
    for f in (np.sin, np.cos)
  )
  sine, cosine = sin_a * cos_b + cos_a * sin_b, cos_a * cos_b - sin_a * sin_b
  return jnp.stack([sine, cosine], axis=-1).reshape(*index.shape, width)


def sincos3d(
  places: tuple[Int[Array, "*B"], ...],
  grid: tuple[int, int, int],
  width: int,
  unit: float = 1.0,
) -> Float[Array, "*B {width}"]:
  """`sincos1d` of t, y and x side by side.

  y and x take a third of the channels each, rounded down to even; t takes the rest.
  """
  third = width // 6 * 2
  widths = (width - 2 * third, third, third)
  parts = map(sincos1d, places, widths, grid, (unit,) * 3)
  return jnp.concatenate(list(parts), axis=-1)
