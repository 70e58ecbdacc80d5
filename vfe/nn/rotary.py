"""Rotary positions (arXiv 2104.09864): heads turned by angles that grow with position."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int


@dataclasses.dataclass(frozen=True)
class Rope:
  """The frequencies of a layer: base^(-2i/d), stretched to texts longer than were trained on.

  kind is "default"; "linear", all frequencies divided by `factor`; or "llama3", those divided whose
  wavelength is over original/low, kept those below original/high, blended those between.
  """

  base: float = 10000.0
  kind: str = "default"
  factor: float = 1.0
  low: float = 1.0
  high: float = 4.0
  original: int = 8192

  def frequencies(self, dim: int) -> Float32[np.ndarray, "half"]:
    """Radians a position, one for each of the dim / 2 pairs of a head."""
    plain = self.base ** (-np.arange(0, dim, 2) / dim)
    if self.kind == "default":
      return np.float32(plain)
    if self.kind == "linear":
      return np.float32(plain / self.factor)
    turns = self.original * plain / (2 * np.pi)  # within the texts that were trained on
    kept = np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
    return np.float32(plain * (kept + (1 - kept) / self.factor))


def rotate(
  heads: Float[Array, "B N H d"], positions: Int[Array, "B N"], frequencies: Float[Array, "half"]
) -> Float[Array, "B N H d"]:
  """Turns channel i together with channel i + d/2 by position times frequency, in float32."""
  angle = positions[:, :, None, None].astype(jnp.float32) * frequencies
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(heads.dtype)
