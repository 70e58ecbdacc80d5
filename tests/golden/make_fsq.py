"""Makes fsq.npz: fixed vectors through the published FSQ.

    python tests/golden/make_fsq.py fsq.ipynb

The notebook is fsq/fsq.ipynb of github.com/google-research/google-research (commit 5e786838); the
code in it that defines the quantiser is run as it stands, on the CPU.
"""

import json
import pathlib
import sys

import numpy as np

LEVELS = ([8] * 6, [8, 8, 8, 5, 5, 5], [3, 4, 2])


def published_quantiser(notebook: str) -> type:
  """The class FSQ, from the cells up to the one that defines it."""
  scope = {}
  for cell in json.loads(pathlib.Path(notebook).read_text())["cells"]:
    if cell["cell_type"] == "code" and "FSQ" not in scope:
      exec("".join(cell["source"]), scope)
  return scope["FSQ"]


if __name__ == "__main__":
  quantiser = published_quantiser(sys.argv[1])
  arrays = {}
  for i, levels in enumerate(LEVELS):
    fsq = quantiser(levels)
    soft = np.random.default_rng(i).normal(scale=2, size=(500, len(levels))).astype(np.float32)
    soft[:2] = [[0.0], [-50.0]]
    latent = fsq.quantize(soft)
    arrays[f"{i}/levels"] = np.asarray(levels)
    arrays[f"{i}/soft"] = soft
    arrays[f"{i}/bound"] = np.asarray(fsq.bound(soft))
    arrays[f"{i}/latent"] = np.asarray(latent)
    arrays[f"{i}/index"] = np.asarray(fsq.codes_to_indexes(latent))
  np.savez_compressed(pathlib.Path(__file__).with_name("fsq.npz"), **arrays)
