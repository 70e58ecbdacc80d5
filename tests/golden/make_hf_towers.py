"""Makes tests/golden/hf_towers: small models of transformers' own making, and what it computes.

    python tests/golden/make_hf_towers.py           # where torch and transformers are
    python tests/golden/make_hf_towers.py beit bert # these only

One folder a model, as save_pretrained writes it, and beside it an .npz with inputs and outputs.
All parameters are stirred, so that a forgotten bias or norm shows. The arrays kept here are of
transformers 5.23.0 and torch 2.13.0 (CPU, float32).
"""

import json
import pathlib
import shutil
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent / "hf_towers"
SHAPE = dict(
  hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
)  # fmt: skip
IMAGE = dict(image_size=16, patch_size=4)
BEIT = dict(image_size=32, patch_size=8, vocab_size=20, use_relative_position_bias=True)
HALF = ([0.5] * 3, [0.5] * 3)
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def video(frames: int, size: int) -> np.ndarray:
  """uint8[2, frames, size, size, 3]"""
  return np.random.default_rng(1).integers(0, 256, (2, frames, size, size, 3), np.uint8)


def texts() -> tuple[np.ndarray, np.ndarray]:
  """ids int32[4, 12] and mask bool[4, 12], of texts of 12, 7, 3 and 1 words."""
  mask = np.arange(12) < np.array([[12], [7], [3], [1]])
  ids = np.random.default_rng(2).integers(1, 50, mask.shape)
  return np.where(mask, ids, 0).astype(np.int32), mask


def stirred(model):
  """The model with noise on all of its parameters, large enough for uneven attention."""
  import torch

  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.2 * torch.randn(parameter.shape))
  return model.eval()


def pixels(mean: list[float], std: list[float], frames: int = 1, size: int = 16):
  """The normalised video, [2, frames, 3, size, size]."""
  import torch

  normalised = (video(frames, size) / np.float32(255) - np.float32(mean)) / np.float32(std)
  return torch.from_numpy(normalised).permute(0, 1, 4, 2, 3)


def bert(transformers, torch):
  config = transformers.BertConfig(
    **SHAPE, vocab_size=50, max_position_embeddings=16, attn_implementation="eager"
  )
  model = stirred(transformers.BertForPreTraining(config))
  ids, mask = (torch.from_numpy(of.astype(np.int64)) for of in texts())
  words = model(ids, attention_mask=mask).prediction_logits
  return model, dict(tokens=model.bert(ids, attention_mask=mask).last_hidden_state, words=words)


def beit(transformers, torch):
  """Of 4 x 4 patches, 49 offsets. Beside it a token of masked patches, and a norm of the head's."""
  fields = dict(BEIT, use_mask_token=True, use_mean_pooling=False)
  config = transformers.BeitConfig(**SHAPE, **fields)
  model = stirred(transformers.BeitForMaskedImageModeling(config))
  return model, dict(tokens=model.beit(pixels(*HALF, size=32)[:, 0]).last_hidden_state)


def beit_mean(transformers, torch):
  """With a norm of the patches' mean instead of one of all tokens, and no layer scales."""
  config = transformers.BeitConfig(**SHAPE, **BEIT, layer_scale_init_value=0.0)
  model = stirred(transformers.BeitForImageClassification(config))
  found = model.beit(pixels(*HALF, size=32)[:, 0])
  return model, dict(tokens=found.last_hidden_state, pooled=found.pooler_output)


def beit_shared(transformers, torch):
  """One table of relative positions for all layers, and a table of their own."""
  fields = dict(BEIT, use_shared_relative_position_bias=True, use_mean_pooling=False)
  config = transformers.BeitConfig(**SHAPE, **fields)
  model = stirred(transformers.BeitModel(config, add_pooling_layer=False))
  return model, dict(tokens=model(pixels(*HALF, size=32)[:, 0]).last_hidden_state)


def vit(transformers, torch):
  model = stirred(transformers.ViTForImageClassification(transformers.ViTConfig(**SHAPE, **IMAGE)))
  return model, dict(tokens=model.vit(pixels(*HALF)[:, 0]).last_hidden_state)


def vit_imagenet(transformers, torch):
  """Of ImageNet's pixels, with no biases on queries and values, in several files."""
  config = transformers.ViTConfig(**SHAPE, **IMAGE, qkv_bias=False)
  model = stirred(transformers.ViTModel(config))
  return model, dict(tokens=model(pixels(*IMAGENET)[:, 0]).last_hidden_state)


def clip(transformers, torch):
  text = dict(SHAPE, vocab_size=20, max_position_embeddings=8, num_hidden_layers=1)
  config = transformers.CLIPConfig(
    text_config=text, vision_config=dict(SHAPE, **IMAGE), projection_dim=8
  )
  model = stirred(transformers.CLIPModel(config))
  vision = model.vision_model
  found = vision(pixels(*CLIP)[:, 0])
  tokens = vision.post_layernorm(found.last_hidden_state)
  return model, dict(tokens=tokens, pooled=found.pooler_output)


def siglip(transformers, torch):
  """Of 18 pixels, of which four patches of 4 cover 16."""
  config = transformers.SiglipVisionConfig(**SHAPE, image_size=18, patch_size=4)
  model = stirred(transformers.SiglipVisionModel(config))
  return model, dict(tokens=model(pixels(*HALF, size=18)[:, 0]).last_hidden_state)


def vivit(transformers, torch):
  config = transformers.VivitConfig(**SHAPE, image_size=16, num_frames=4, tubelet_size=[2, 4, 4])
  model = stirred(transformers.VivitForVideoClassification(config))
  return model, dict(tokens=model.vivit(pixels(*HALF, frames=4)).last_hidden_state)


MAKERS = (beit, beit_mean, beit_shared, bert, clip, siglip, vit, vit_imagenet, vivit)


def main():
  import torch
  import transformers

  for make in MAKERS:
    name = make.__name__
    if sys.argv[1:] and name not in sys.argv[1:]:
      continue
    shutil.rmtree(HERE / name, ignore_errors=True)
    torch.manual_seed(0)
    with torch.no_grad():
      model, outputs = make(transformers, torch)
    shards = {"max_shard_size": "20KB"} if name == "vit_imagenet" else {}
    model.save_pretrained(HERE / name, **shards)
    arrays = {key: value.numpy() for key, value in outputs.items()}
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    if name == "vit_imagenet":
      _write_processor(HERE / name)


def _write_processor(folder: pathlib.Path):
  said = dict(
    image_processor_type="ViTImageProcessor", do_rescale=True, rescale_factor=1 / 255,
    do_normalize=True, image_mean=IMAGENET[0], image_std=IMAGENET[1],
  )  # fmt: skip
  (folder / "preprocessor_config.json").write_text(json.dumps(said) + "\n")


if __name__ == "__main__":
  main()
