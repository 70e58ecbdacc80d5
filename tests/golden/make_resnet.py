"""Makes resnet.npz: logits of Hugging Face's ResNet with random weights, bottleneck and basic.

python tests/golden/make_resnet.py        # needs torch and transformers
"""

import pathlib

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

CONFIGS = {
  "bottleneck": dict(embedding_size=8, hidden_sizes=[16, 32, 64], depths=[2, 1, 2]),
  "basic": dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
}


def make(name: str, fields: dict) -> dict[str, np.ndarray]:
  """Tensors, images [2, 3, 45, 38] (odd sizes show padding mistakes) and logits of one model."""
  torch.manual_seed(0)
  model = ResNetForImageClassification(ResNetConfig(num_labels=10, **fields)).eval()
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):  # as initialised they would be the identity
      for tensor in (module.weight, module.running_var):
        torch.nn.init.uniform_(tensor, 0.5, 1.5)
      for tensor in (module.bias, module.running_mean):
        torch.nn.init.normal_(tensor, std=0.2)
  images = torch.randn(2, 3, 45, 38)
  with torch.no_grad():
    logits = model(images).logits
  arrays = {f"{name}/tensors/{k}": v.numpy() for k, v in model.state_dict().items()}
  return arrays | {f"{name}/images": images.numpy(), f"{name}/logits": logits.numpy()}


if __name__ == "__main__":
  arrays = {}
  for name, fields in CONFIGS.items():
    arrays |= make(name, fields)
  np.savez_compressed(pathlib.Path(__file__).with_name("resnet.npz"), **arrays)
