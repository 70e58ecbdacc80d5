"""Model FLOPs: the arithmetic that a model asks for, whatever a program does besides.

A multiply-add is two operations; matrix products and convolutions are counted, nothing else. What
is computed again in the backward pass to save memory, and padding, are no part of it. Transformers
are counted by the formulas below; of convolutional networks the forward pass is traced and its
convolutions are counted (`vfe.learn.flops`). Every figure is of one clip and of the forward pass;
`TRAINED` and `PASSED` say what training makes of it.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vfe.learn.flops import flops
from vfe.models.bridge import BridgeConfig
from vfe.models.discriminator import Discriminator, DiscriminatorConfig
from vfe.models.language_model import LanguageConfig
from vfe.models.mae import DecoderConfig
from vfe.models.resampler import ResamplerConfig
from vfe.models.resnet import PERCEPTUAL_SIZE, ResNet, ResNetConfig
from vfe.models.svitt import SvittConfig
from vfe.models.text import TextConfig
from vfe.models.tokenizer import Tokenizer, TokenizerConfig
from vfe.models.video_language import VideoLanguageConfig
from vfe.models.vivit import EncoderConfig
from vfe.tokens.layout import Layout
from vfe.tokens.tubes import TubeLayout

# A gradient takes as much again for the inputs of a product, and for its parameters.
TRAINED = 3  # forward, and backward to both
PASSED = 2  # forward, and backward through something frozen to what is trained before it


def attention(queries: int, keys: int, width: int) -> int:
  """Four projections, the logits, and the sum of the values."""
  projections = 2 * width * width * (2 * queries + 2 * keys)
  return projections + 4 * queries * keys * width


def mlp(tokens: int, width: int, hidden: int) -> int:
  """Up and down."""
  return 4 * tokens * width * hidden


def blocks(config: EncoderConfig | DecoderConfig, tokens: int) -> int:
  """All blocks of a stack: with an MLP four times as wide, 24 N D^2 + 4 N^2 D each."""
  each = attention(tokens, tokens, config.width) + mlp(tokens, config.width, config.mlp)
  return config.depth * each


def encoder(config: EncoderConfig, tokens: int) -> int:
  """The embedding of the selected tubelets, and the blocks, of those tokens that reach them."""
  reach = config.pruning.counts(tokens, config.depth) if config.pruning else [tokens] * config.depth
  each = (layer(config, n, config.layout) for n in reach)
  return embedding(config, tokens, config.layout) + sum(each)


def embedding(config: EncoderConfig, tokens: int, layout: Layout | TubeLayout) -> int:
  """Of the selected tubelets or tubes."""
  values = tokens * layout.channels if isinstance(layout, Layout) else sum(
    count * tube.channels for count, tube in zip(layout.shares(tokens), layout.tubes, strict=True)
  )  # fmt: skip
  return 2 * values * config.width


def layer(config: EncoderConfig, tokens: int, layout: Layout | TubeLayout) -> int:
  """One block of an encoder, of which `tokens` of the layout's were selected.

  Frame by frame a token meets those of its frame and its class token; factorised it then meets
  those of its site, tokens / sites of them; by edges those of its blocks.
  """
  if config.edges:
    return _sparse_layer(config, tokens)
  width, rows = config.width, 1 if config.mixing == "joint" else layout.grid[0]
  each = tokens // rows + config.cls
  total = rows * (attention(each, each, width) + mlp(each, width, config.mlp))
  if config.mixing == "factorised":
    total += 8 * tokens * width**2 + 4 * tokens * (tokens // layout.per_frame or 1) * width
  return total + rows * added(config, each)


def _sparse_layer(config: EncoderConfig, tokens: int) -> int:
  """By edges: a token meets the class token and so many of the blocks, which meets all."""
  width, everybody, edges = config.width, tokens + config.cls, config.edges
  blocks = edges.blocks(tokens)
  pairs = tokens * (tokens * edges.met(tokens) // blocks + config.cls) + config.cls * everybody
  projections = 8 * everybody * width**2
  return projections + 4 * pairs * width + mlp(everybody, width, config.mlp)


def added(config: EncoderConfig, tokens: int) -> int:
  """Adapters, and low-rank products beside the six of a layer."""
  low_rank = 2 * tokens * config.lora * (10 * config.width + 2 * config.mlp)
  return mlp(tokens, config.width, config.adapter) + low_rank


def tuned_encoder(
  config: EncoderConfig, tokens: int, layout: Layout | TubeLayout, *, first_trained: int, few: bool
) -> int:
  """A training step's share of the encoder: layers before `first_trained` forward only; with `few`
  trained parameters beside frozen ones, nothing is computed backward to those."""
  one = layer(config, tokens, layout)
  first = embedding(config, tokens, layout)
  if first_trained:
    return first + first_trained * one + TRAINED * (config.depth - first_trained) * one
  if few:  # what is passed is counted twice already, what is trained beside it once more
    own = config.depth * trained_beside(config, tokens)
    return TRAINED * first + PASSED * config.depth * one + own
  return TRAINED * (first + config.depth * one)


def trained_beside(config: EncoderConfig, tokens: int) -> int:
  """The products of a layer with trained parameters, where few are: adapters, low-rank ones, or
  the four of temporal attention."""
  if config.adapter or config.lora:
    return added(config, tokens)
  return 8 * tokens * config.width**2


def text(config: TextConfig, length: int) -> int:
  """All blocks over a text of that many words, padding included."""
  each = attention(length, length, config.width) + mlp(length, config.width, config.mlp)
  return config.depth * each


def svitt(config: SvittConfig, length: int, *, texts: int, read: int, words: bool) -> int:
  """A clip, its text read alone `texts` times and `read` times with a clip, and, with `words`, the
  logits of all its words once."""
  seen, width = config.vision, config.text.width
  left = seen.pruning.counts(seen.layout.size, seen.depth)[-1] if seen.pruning else seen.layout.size
  if seen.pruning and seen.depth - 1 in seen.pruning.after:
    left = seen.pruning.kept(left)
  total = encoder(seen, seen.layout.size)
  each = attention(length, length, width) + mlp(length, width, config.text.mlp)
  total += texts * (config.text.depth - config.fused) * each
  after = config.pruning.counts(left, config.fused) if config.pruning else [left] * config.fused
  for tokens in after:
    asked = 4 * width * (length * width + (tokens + 1) * seen.width + length * (tokens + 1))
    total += read * (each + asked)
  if words:
    total += 2 * length * width * (width + config.text.vocabulary)
  return total


def decoder(
  encoder: EncoderConfig, config: DecoderConfig, target_dim: int, visible: int, asked: int
) -> int:
  """The blocks see visible and asked tokens; the head the asked ones."""
  projection = 2 * visible * encoder.width * config.width
  return projection + blocks(config, visible + asked) + 2 * asked * config.width * target_dim


def pooling(config: EncoderConfig, kind: str, tokens: int) -> int:
  """A pooling of `vfe.models.classifier.POOLS`; a mean is free."""
  if kind == "mean":
    return 0
  joins = kind == "class_attention"  # then the token is one of the keys
  asks = attention(1, tokens + joins, config.width)
  return asks + mlp(1, config.width, config.mlp)


def heads(config: EncoderConfig, classes: Mapping[str, int]) -> int:
  """A linear layer a label."""
  return 2 * config.width * sum(classes.values())


@functools.cache
def tokenizer(config: TokenizerConfig, size: int) -> dict[str, int]:
  """{"encode", "importance", "decode"} of one window of `size` pixels."""
  module = Tokenizer(config)
  video = jax.ShapeDtypeStruct((1, config.window, size, size, 3), jnp.float32)
  grid = config.grid(config.window, size, size)
  latent = jax.ShapeDtypeStruct((1, *grid, config.channels), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), video)
  count = lambda method, x: flops(functools.partial(module.apply, method=method), params, x)
  return {
    "encode": count("encode", video),
    "importance": count("importance", video),
    "decode": count("decode", latent),
  }


def targets(config: TokenizerConfig, frames: int, size: int) -> int:
  """Codes and importance of a clip of some windows."""
  window = tokenizer(config, size)
  return frames // config.window * (window["encode"] + window["importance"])


@functools.cache
def discriminator(config: DiscriminatorConfig, frames: int, size: int) -> int:
  """One look at a clip."""
  return _forward(Discriminator(config), (1, frames, size, size, 3))


@functools.cache
def perceptual(config: ResNetConfig, frames: int) -> int:
  """One look at every frame, at the network's own size."""
  return frames * _forward(ResNet(config), (1, PERCEPTUAL_SIZE, PERCEPTUAL_SIZE, 3))


def _forward(module, shape: tuple[int, ...]) -> int:
  inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), inputs)
  return flops(module.apply, params, inputs)


def gan_step(config: TokenizerConfig, judge: DiscriminatorConfig, size: int) -> int:
  """A clip through MAGVIT's step without the perceptual loss: generator, discriminator and R1.

  The discriminator sees the drawn clip for the generator (passed), the same for itself (trained),
  and the real one with its slope there, which is trained as a function of its own (R1): forward
  and backward to the pixels, each with two backward passes after it.
  """
  generator = sum(tokenizer(config, size).values())
  real = TRAINED * PASSED
  return TRAINED * generator + (PASSED + TRAINED + real) * discriminator(
    judge, config.window, size
  )


def language(config: LanguageConfig, words: int) -> int:
  """All blocks over a text of that many words, padding included, and the logits of each."""
  queries, keys = config.heads * config.head_dim, config.groups * config.head_dim
  each = 4 * words * config.width * (queries + keys) + 4 * words**2 * queries
  each += 6 * words * config.width * config.mlp
  return config.depth * each + 2 * words * config.width * config.vocabulary


def video_language(
  config: VideoLanguageConfig, *, tokens: int, layout: Layout, words: int
) -> int:
  """A training step's share of a clip of which `tokens` enter, and its text: the encoder forward,
  resampler and bridge trained, the gradient passed through the language model."""
  seen = embedding(config.encoder, tokens, layout)
  seen += config.encoder.depth * layer(config.encoder, tokens, layout)
  read = layout.per_frame if config.pool == "time" else tokens
  between = resampler(config.resampler, read) + bridge(config.bridge, config.resampler, words)
  return seen + TRAINED * between + PASSED * language(config.language, words)


def resampler(config: ResamplerConfig, tokens: int) -> int:
  """All layers: latents ask the tokens and themselves."""
  inner, asked = config.heads * config.head_dim, tokens + config.queries
  each = 4 * inner * (config.width * (config.queries + asked) + config.queries * asked)
  each += mlp(config.queries, config.width, config.mlp)
  projection = 2 * tokens * config.inputs * config.width if config.inputs != config.width else 0
  return projection + config.depth * each


def bridge(config: BridgeConfig, given: ResamplerConfig, words: int) -> int:
  """All layers: words ask the latents, whose keys and values are computed once in each."""
  inner = config.heads * config.head_dim
  each = 4 * inner * (words * (config.width + given.queries) + given.queries * config.inputs)
  return config.layers * (each + mlp(words, config.width, config.mlp))
