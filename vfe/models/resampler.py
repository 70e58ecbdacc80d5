"""The Perceiver resampler: many visual tokens to a fixed few (Flamingo, arXiv 2204.14198, 3.1)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vfe.errors import UserError
from vfe.nn.attention import over_rows
from vfe.nn.blocks import Execution, Stack, dense, norm
from vfe.nn.cross import cross


@dataclasses.dataclass(frozen=True)
class ResamplerConfig:
  """What a resampler is. `dataclasses.asdict` of it is JSON-able.

  inputs   width of the visual tokens, which are projected to `width` where that is another
  queries  tokens that come out, whatever number goes in
  head_dim of each of the heads, which need not add up to the width
  mlp      hidden units of a layer
  """

  inputs: int
  width: int
  queries: int = 64
  depth: int = 6
  heads: int = 16
  head_dim: int = 96
  mlp: int = 6144
  norm_eps: float = 1e-5

  def __post_init__(self):
    for field in ("width", "queries", "depth", "heads", "head_dim", "mlp"):
      if getattr(self, field) < 1:
        raise UserError(f"resampler {field}={getattr(self, field)}; use 1 or more.")


class ResamplerBlock(nn.Module):
  """Latents ask visual tokens and themselves; then squared ReLU between two products.

  Nothing has a bias but the norms. Flamingo, appendix A.1.1.
  """

  heads: int
  head_dim: int
  mlp: int
  norm_eps: float
  dtype: str

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "B R D"],
    drop: Any = None,
    keys: Any = None,
    where: tuple[Float[Array, "B N D"], Bool[Array, "B N"]] | None = None,
  ) -> Float[Array, "B R D"]:
    """tokens are the latents, `where` the visual tokens and which of them are there."""
    del drop, keys  # no layer is dropped
    latents = norm(self.norm_eps, self.dtype, "latent_norm")(tokens)
    visual, there = (tokens, jnp.ones(tokens.shape[:2], bool)) if where is None else where
    visual = norm(self.norm_eps, self.dtype, "visual_norm")(visual)
    context = jnp.concatenate([visual, latents], axis=1)
    there = jnp.concatenate([there, jnp.ones(latents.shape[:2], bool)], axis=1)

    def product(name, x):
      y = dense(self.heads * self.head_dim, self.dtype, name, use_bias=False)(x)
      return y.reshape(*y.shape[:2], self.heads, self.head_dim)

    q, k, v = product("query", latents), product("key", context), product("value", context)
    mixed = cross(q, k, v, there)
    mixed = mixed.reshape(*mixed.shape[:2], -1)
    width = tokens.shape[-1]
    tokens = tokens + dense(width, self.dtype, "out", use_bias=False)(mixed)
    hidden = norm(self.norm_eps, self.dtype, "mlp_norm")(tokens)
    hidden = jnp.square(nn.relu(dense(self.mlp, self.dtype, "up", use_bias=False)(hidden)))
    return tokens + dense(width, self.dtype, "down", use_bias=False)(hidden)


class Resampler(nn.Module):
  """Learned latents, which ask the visual tokens in every layer and are what comes out."""

  config: ResamplerConfig
  execution: Execution = Execution()

  @nn.compact
  def __call__(
    self, visual: Float[Array, "B N V"], there: Bool[Array, "B N"]
  ) -> Float[Array, "B R D"]:
    """The latents after the last layer, normed. Visual tokens count where they are `there`."""
    config, run = self.config, self.execution
    init = nn.initializers.truncated_normal(0.02)
    latents = self.param("latents", init, (config.queries, config.width))
    if config.inputs != config.width:
      visual = dense(config.width, run.dtype, "project", use_bias=False)(visual)
    latents = jnp.broadcast_to(latents.astype(run.dtype), (len(visual), *latents.shape))
    latents = over_rows(latents)
    block = ResamplerBlock(
      config.heads, config.head_dim, config.mlp, config.norm_eps, run.dtype, parent=None
    )
    stack = Stack(block, config.width, config.depth, run)
    params = self.param("blocks", stack.init)
    latents = stack.apply(params, latents, where=(visual.astype(run.dtype), there))
    return norm(config.norm_eps, run.dtype, "norm")(latents)


def init(config: ResamplerConfig, rng: jax.Array) -> Any:
  """The parameters, float32."""
  visual = jnp.zeros((1, 1, config.inputs), jnp.float32)
  return Resampler(config).init(rng, visual, jnp.ones((1, 1), bool))["params"]
