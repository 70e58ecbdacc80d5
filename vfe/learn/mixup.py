"""Mixup, CutMix and label smoothing, on the device and on uint8 videos."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from vfe.nn.random import key

Labels = Mapping[str, Int[Array, "B"]]
Targets = dict[str, Float[Array, "B C"]]


def mix(
  rng: Key[Array, ""],
  video: UInt8[Array, "B T H W 3"],
  labels: Labels,
  classes: Mapping[str, int],
  *,
  mixup: float = 0.8,
  cutmix: float = 1.0,
  switch: float = 0.5,
  smoothing: float = 0.1,
) -> tuple[UInt8[Array, "B T H W 3"], Targets]:
  """Mixes row i with row B-1-i, the whole batch in the same way, as timm's Mixup by batch.

  Mixup blends the two videos by a share of Beta(mixup, mixup); CutMix puts a box of the other
  video, the same in all frames, into this one: the box covers a share of Beta(cutmix, cutmix)
  before it is cut at the borders. Targets are mixed by the share of pixels. VideoMAE fine-tunes
  with the defaults.

  Args:
    rng: of the step. The pairing is over the rows given: call it on the whole batch, before this
      is cut into accumulated parts.
    video: the clips; mixed in float32, rounded back.
    labels: a class a row by head; -1 for a row without one, which asks nothing of that head.
    classes: how many classes each head has.
    mixup, cutmix: the Beta's parameter, 0 to do without.
    switch: share of the batches that CutMix takes where both are on.
    smoothing: share of the target that is spread over all classes.

  Returns:
    The videos, and by head float32[B,C] targets, whose rows sum to the share that has a label.
  """
  weight = _weight(key(rng, "mix"), video.shape[2:4], mixup, cutmix, switch)
  targets = {head: soft_targets(labels[head], count, smoothing) for head, count in classes.items()}
  if weight is None:
    return video, targets
  own, other = (part.astype(jnp.float32) for part in (video, video[::-1]))
  mixed = jnp.round(other + weight[:, :, None] * (own - other)).astype(jnp.uint8)
  share = weight.mean()
  blend = lambda target: share * target + (1 - share) * target[::-1]
  return mixed, {head: blend(target) for head, target in targets.items()}


def soft_targets(
  labels: Int[Array, "B"], classes: int, smoothing: float = 0.0
) -> Float[Array, "B {classes}"]:
  """One-hot targets of which `smoothing` is spread over all classes; zeros where a label is -1."""
  hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
  return (hot * (1 - smoothing) + smoothing / classes) * (labels >= 0)[:, None]


def _weight(
  rng: Key[Array, ""], size: tuple[int, int], mixup: float, cutmix: float, switch: float
) -> Float[Array, "H W"] | None:
  """The share of its own video that each pixel keeps: one number for all, or 0 inside a box."""
  if not mixup and not cutmix:
    return None
  if not cutmix:
    return jnp.broadcast_to(_share(rng, mixup), size)
  box = _outside_box(rng, size, _share(rng, cutmix))
  if not mixup:
    return box
  cuts = jax.random.bernoulli(key(rng, "switch"), switch)
  return jnp.where(cuts, box, _share(rng, mixup))


def _share(rng: Key[Array, ""], concentration: float) -> Float[Array, ""]:
  return jax.random.beta(key(rng, "share"), concentration, concentration)


def _outside_box(
  rng: Key[Array, ""], size: tuple[int, int], share: Float[Array, ""]
) -> Float[Array, "H W"]:
  """0 in a box whose sides are sqrt(1 - share) of the picture's, centred anywhere; 1 outside."""
  inside = jnp.bool_(True)
  for axis, length in enumerate(size):
    half = jnp.floor(length * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    centre = jax.random.randint(key(rng, f"centre{axis}"), (), 0, length)
    place = jnp.arange(length)
    within = (place >= centre - half) & (place < centre + half)
    inside &= within[:, None] if axis == 0 else within[None, :]
  return jnp.where(inside, 0.0, 1.0)
