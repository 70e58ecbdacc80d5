"""Makes tests/golden/videomae: what transformers' VideoMAE computes on weights that it wrote, and
on weights that vfe wrote.

    python tests/golden/make_videomae.py write FOLDER    # where vfe is installed
    python tests/golden/make_videomae.py run FOLDER      # where torch and transformers are

The first writes models of seeded weights to FOLDER with vfe. The second lets transformers load
them, makes a model of its own, and stores that model and the outputs of all. The arrays kept here
are of transformers 5.23.0 and torch 2.13.0 (CPU, float32).
"""

import pathlib
import sys
import zlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent / "videomae"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
ENCODER = dict(
  frames=4, size=16, tubelet=(2, 4, 4), width=24, depth=2, heads=2, mlp=40,
  norm_eps=1e-6, final_norm=True, positions="sincos1d",
)  # fmt: skip
DECODER = dict(width=16, depth=2, heads=4, mlp=28, norm_eps=1e-6)
CLASSES = ["jump", "sit", "wave"]
TOKENS, VISIBLE = 32, 10


def video() -> np.ndarray:
  """uint8[2, 4, 16, 16, 3]"""
  return np.random.default_rng(1).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


def visible() -> np.ndarray:
  """int32[2, 10], sorted: what the encoder sees. The decoder is asked for all the others."""
  rng = np.random.default_rng(2)
  return np.sort([rng.permutation(TOKENS)[:VISIBLE] for _ in range(2)]).astype(np.int32)


def masked() -> np.ndarray:
  """bool[2, 32]: transformers' bool_masked_pos."""
  mask = np.ones((2, TOKENS), bool)
  mask[np.arange(2)[:, None], visible()] = False
  return mask


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The parameter of this name: large enough for attention to be far from uniform."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  noise = rng.standard_normal(shape, np.float32)
  if name.endswith("scale"):
    return 1 + np.float32(0.2) * noise
  fan_in = shape[-2] if name.endswith("kernel") else 16
  return noise * np.float32(1.5 / np.sqrt(fan_in))


def models() -> dict:
  """(kind, model, parameters) by name, as vfe's exports have them."""
  import jax

  from vfe.models.classifier import Classifier
  from vfe.models.mae import MAE, DecoderConfig
  from vfe.models.vivit import EncoderConfig

  encoder = EncoderConfig(**ENCODER)
  ones = np.zeros((1, 1), np.int32)
  patches = np.zeros((1, 1, encoder.layout.channels), np.uint8)

  def params(module, *args):
    shapes = jax.eval_shape(module.init, jax.random.key(0), patches, *args)["params"]
    name = lambda path: "/".join(str(key.key) for key in path)
    return jax.tree.map_with_path(lambda path, leaf: seeded(name(path), leaf.shape), shapes)

  mae = MAE(encoder, DecoderConfig(**DECODER), encoder.layout.channels)
  about = dict(decoder=DECODER, target_dim=encoder.layout.channels, target="pixels")
  heads = dict(heads={"label": len(CLASSES)}, classes={"label": CLASSES}, pool="mean")
  classifier = Classifier(encoder, heads["heads"])
  return {
    "mae": ("mae", dict(encoder=ENCODER) | about, params(mae, ones, ones)),
    "classifier": ("classifier", dict(encoder=ENCODER) | heads, params(classifier, ones)),
  }


def write(folder: pathlib.Path):
  from vfe.interop import videomae

  for name, export in models().items():
    videomae.write_export(folder / name, *export)


def run(folder: pathlib.Path):
  import torch
  import transformers

  def load(kind, path):
    model, info = getattr(transformers, kind).from_pretrained(path, output_loading_info=True)
    assert not any(info[of] for of in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()

  def outputs(mae):
    pixels = torch.from_numpy((video() / np.float32(255) - MEAN) / STD).permute(0, 1, 4, 2, 3)
    mask = torch.from_numpy(masked())
    with torch.no_grad():
      encoded, everything = mae.videomae(pixels, mask), mae.videomae(pixels)
      predicted = mae(pixels, mask)
    return dict(
      encoded=encoded.last_hidden_state.numpy(),
      everything=everything.last_hidden_state.numpy(),
      predicted=predicted.logits.numpy(),
      loss=predicted.loss.numpy(),
    ), pixels

  theirs = _theirs(torch, transformers)
  theirs.save_pretrained(HERE / "theirs")
  np.savez_compressed(
    HERE / "theirs.npz", **outputs(load("VideoMAEForPreTraining", HERE / "theirs"))[0]
  )
  ours, pixels = outputs(load("VideoMAEForPreTraining", folder / "mae"))
  classifier = load("VideoMAEForVideoClassification", folder / "classifier")
  assert list(classifier.config.id2label.values()) == CLASSES
  with torch.no_grad():
    ours["logits"] = classifier(pixels).logits.numpy()
  np.savez_compressed(HERE / "ours.npz", **ours)


def _theirs(torch, transformers):
  """A model of transformers' own making, all of its parameters stirred."""
  torch.manual_seed(0)
  config = transformers.VideoMAEConfig(
    image_size=16, patch_size=4, num_frames=4, tubelet_size=2, hidden_size=24,
    num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, use_mean_pooling=False,
    decoder_num_attention_heads=4, decoder_hidden_size=16, decoder_num_hidden_layers=2,
    decoder_intermediate_size=28, norm_pix_loss=True,
  )  # fmt: skip
  model = transformers.VideoMAEForPreTraining(config)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.25 * torch.randn(parameter.shape))
  return model


if __name__ == "__main__":
  {"write": write, "run": run}[sys.argv[1]](pathlib.Path(sys.argv[2]))
