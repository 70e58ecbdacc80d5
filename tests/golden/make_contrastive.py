"""Makes contrastive.npz: CLIP's loss as transformers computes it, and its gradients.

    python tests/golden/make_contrastive.py    # where torch and transformers are

With label smoothing the cross-entropy is torch's, in place of transformers' own, which has none.
The arrays kept here are of transformers 5.23.0 and torch 2.13.0 (CPU, float64).
"""

import pathlib

import numpy as np
import torch
from transformers.models.clip import modeling_clip as clip

PAIRS, WIDTH, SCALE = 12, 7, 14.3

if __name__ == "__main__":
  random = np.random.default_rng(0)
  arrays = {name: random.normal(size=(PAIRS, WIDTH)).astype("f4") for name in ("video", "text")}
  arrays["scale"] = np.float32(SCALE)
  for smoothing in (0.0, 0.1):
    clip.contrastive_loss = lambda logits, smoothing=smoothing: torch.nn.functional.cross_entropy(
      logits, torch.arange(len(logits)), label_smoothing=smoothing
    )
    video, text, scale = (
      torch.tensor(arrays[name].astype("f8"), requires_grad=True)
      for name in ("video", "text", "scale")
    )
    unit = lambda rows: rows / rows.norm(p=2, dim=-1, keepdim=True)
    loss = clip.image_text_contrastive_loss(unit(text) @ unit(video).T * scale)
    loss.backward()
    arrays[f"loss_{smoothing}"] = loss.detach().numpy()
    for name, leaf in (("video", video), ("text", text), ("scale", scale)):
      arrays[f"{name}_gradient_{smoothing}"] = leaf.grad.numpy()
  np.savez_compressed(pathlib.Path(__file__).with_name("contrastive.npz"), **arrays)
