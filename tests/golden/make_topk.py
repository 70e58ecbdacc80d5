"""Makes topk.npz: Sander et al.'s relaxed top-k mask and its gradient, from their own code.

    PYTHONPATH=google-research python tests/golden/make_topk.py

google-research is a checkout of github.com/google-research/google-research (commit 1cea006d), of
which sparse_soft_topk is run, by Dykstra's algorithm with enough iterations to converge.
"""

import pathlib

import jax
import numpy as np
from sparse_soft_topk._src.topk import sparse_soft_topk_mask_dykstra

if __name__ == "__main__":
  random = np.random.default_rng(0)
  scores = random.normal(size=(4, 33))
  scores = ((scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)).astype("f4")
  weight = random.normal(size=33).astype("f4")
  arrays = {"scores": scores, "weight": weight}
  for k, strength in ((5, 0.1), (16, 1.0)):
    mask = lambda row, k=k, strength=strength: sparse_soft_topk_mask_dykstra(
      row, k, strength, num_iter=20000
    )
    gradient = jax.grad(lambda row, mask=mask: mask(row) @ weight)
    arrays[f"mask_{k}_{strength}"] = np.stack([mask(row) for row in scores])
    arrays[f"gradient_{k}_{strength}"] = np.stack([gradient(row) for row in scores])
  np.savez_compressed(pathlib.Path(__file__).with_name("topk.npz"), **arrays)
