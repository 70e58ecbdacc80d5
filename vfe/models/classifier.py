"""Poolings of an encoder's tokens, and a classifier on top of one."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vfe.models.vivit import HEAD_EPS, Encoder, EncoderConfig, Patches, lookup
from vfe.nn.blocks import Attention, Execution, Mlp, norm


class MeanPool(nn.Module):
  """The mean of the tokens, then a norm (VideoMAE's fine-tuning, LVMAE's ViT-B).

  classes: how many class tokens stand before the others, and are left out.
  """

  classes: int = 0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: Float[Array, "B K D"]) -> Float[Array, "B D"]:
    return norm(HEAD_EPS, self.dtype, "norm")(tokens[:, self.classes :].mean(1))


class TokenPool(nn.Module):
  """A learned token asks the others, which stay as they are, then goes through an MLP.

  With `joins` it also attends to itself: one class-attention layer (CaiT, without LayerScale), as
  for LVMAE's ViT-L (A.5.3). Without, it is the attentive probe for frozen encoders (V-JEPA's).
  """

  heads: int
  mlp: int
  joins: bool
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: Float[Array, "B K D"]) -> Float[Array, "B D"]:
    token = self.param("token", nn.initializers.truncated_normal(0.02), tokens.shape[-1:])
    token = jnp.broadcast_to(token.astype(tokens.dtype), (len(tokens), 1, tokens.shape[-1]))
    context = jnp.concatenate([token, tokens], axis=1) if self.joins else tokens
    context = norm(HEAD_EPS, self.dtype, "attention_norm")(context)
    query = context[:, :1] if self.joins else token
    token += Attention(self.heads, self.dtype, name="attention")(query, context)
    token += Mlp(self.mlp, self.dtype, name="mlp")(norm(HEAD_EPS, self.dtype, "mlp_norm")(token))
    return norm(HEAD_EPS, self.dtype, "norm")(token)[:, 0]


# (config, dtype, number of class tokens before the others) -> a pooling
POOLS = {
  "mean": lambda config, dtype, classes: MeanPool(classes, dtype, name="pool"),
  "class_attention": lambda config, dtype, classes: TokenPool(
    config.heads, config.mlp, True, dtype, name="pool"
  ),
  "attentive": lambda config, dtype, classes: TokenPool(
    config.heads, config.mlp, False, dtype, name="pool"
  ),
}


class Classifier(nn.Module):
  """An encoder, one pooling, and a linear head a task, e.g. {"verb": 97, "noun": 300}.

  Token drop in fine-tuning is a selection that leaves tokens out. With mean pooling the encoder
  has no final norm: the norm comes after the mean.
  """

  encoder: EncoderConfig
  heads: Mapping[str, int]
  pool: str = "mean"
  execution: Execution = Execution()

  @nn.compact
  def __call__(
    self,
    patches: Patches,
    selection: Int[Array, "B K"],
    keys: Key[Array, "B"] | None = None,
    rng: Key[Array, ""] | None = None,
  ) -> dict[str, Float[Array, "B C"]]:
    """float32 logits of every head; arguments as the encoder's."""
    pool = lookup(POOLS, self.pool, "pool")
    final_norm = self.encoder.final_norm and self.pool != "mean"
    config = dataclasses.replace(self.encoder, final_norm=final_norm)
    encoder = Encoder(config, self.execution, name="encoder")
    tokens = encoder(patches, selection, keys, None, rng)
    pooled = pool(config, self.execution.dtype, config.classes())(tokens)
    init = nn.initializers.truncated_normal(0.02 * 0.001)  # VideoMAE's init_scale
    return {
      name: nn.Dense(classes, kernel_init=init, name=f"head_{name}")(pooled.astype(jnp.float32))
      for name, classes in self.heads.items()
    }
