"""Makes tests/golden/language: small decoders of transformers' own making, and their logits.

    python tests/golden/make_language.py    # where torch and transformers are

One folder a model, as save_pretrained writes it, and beside it an .npz with its logits. All
parameters are stirred, so that a forgotten norm shows; the sliding windows are shorter than the
texts. The arrays kept here are of transformers 5.23.0 and torch 2.13.0 (CPU, float32).
"""

import pathlib
import shutil

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent / "language"
SHAPE = dict(
  vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
  num_key_value_heads=2, head_dim=8, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
  eos_token_id=2, attn_implementation="eager",
)  # fmt: skip
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def texts() -> tuple[np.ndarray, np.ndarray]:
  """ids int32[3, 20] and mask bool[3, 20]: whole, padded on the left, on the right."""
  place = np.arange(20)
  mask = np.stack([place >= 0, place >= 7, place < 11])
  ids = np.random.default_rng(3).integers(3, 48, mask.shape)
  return np.where(mask, ids, 0).astype(np.int32), mask


def stirred(model):
  """The model with noise on all of its parameters, large enough for uneven attention."""
  import torch

  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.3 * torch.randn(parameter.shape))
  return model.eval()


def gemma(transformers):
  """Gemma 3: two sliding layers, then a global one of another base; the final soft cap."""
  config = transformers.Gemma3TextConfig(
    **SHAPE, layer_types=[LOCAL, LOCAL, GLOBAL], sliding_window=5, query_pre_attn_scalar=6,
    final_logit_softcapping=4.0,
    rope_parameters={
      GLOBAL: dict(rope_type="linear", factor=2.0, rope_theta=500.0),
      LOCAL: dict(rope_type="default", rope_theta=20.0),
    },
  )  # fmt: skip
  return transformers.Gemma3ForCausalLM(config)


def llama(transformers):
  """Llama 3.2, its head apart, in shards: frequencies kept, divided, and between the two."""
  rope = dict(
    rope_type="llama3", rope_theta=100.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
  )  # fmt: skip
  config = transformers.LlamaConfig(**SHAPE, rope_parameters=rope, tie_word_embeddings=False)
  return transformers.LlamaForCausalLM(config)


def smollm(transformers):
  """SmolLM2: Llama with its embedding as its head."""
  config = transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True)
  return transformers.LlamaForCausalLM(config)


def qwen(transformers):
  """Qwen3: norms on queries and keys, and a sliding last layer."""
  config = transformers.Qwen3Config(
    **SHAPE, tie_word_embeddings=True, use_sliding_window=True, sliding_window=6,
    max_window_layers=2,
  )  # fmt: skip
  return transformers.Qwen3ForCausalLM(config)


def main():
  import torch
  import transformers

  shutil.rmtree(HERE, ignore_errors=True)
  ids, mask = (torch.from_numpy(of.astype(np.int64)) for of in texts())
  for make in (gemma, llama, smollm, qwen):
    name = make.__name__
    model = stirred(make(transformers))
    with torch.no_grad():
      logits = model(ids, attention_mask=mask).logits
    shards = {"max_shard_size": "40KB"} if name == "llama" else {}
    model.save_pretrained(HERE / name, **shards)
    np.savez_compressed(HERE / f"{name}.npz", logits=logits.numpy())


if __name__ == "__main__":
  main()
