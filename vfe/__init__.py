"""vfe: train long-video encoders, and use what was trained.

    encoder = vfe.load("runs/lvmae_128-demo/pretrain")
    features = encoder.encode(video)  # uint8[B, T, H, W, 3] -> float32[B, N, D]

    both = vfe.load("runs/longvivit_256-demo/long")
    both.similarity(video, ["a hand lifts a cup"])  # cosines, float32[B, 1]

    reader = vfe.load("runs/svitt_ego-demo/pretrain")
    reader.match(video, ["#C C lifts a cup."])  # log-odds of whether it tells of it, float32[B, 1]

    captioner = vfe.load("runs/longvivit_256-demo/caption")
    captioner.describe(captioner.read("a.mp4"))  # ["c lifts the cup ..."]

Importing vfe imports nothing heavy; JAX comes with the first of these names that is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from vfe.models.pretrained import (
    Captioner,
    DualEncoder,
    Encoder,
    LanguageModel,
    Svitt,
    TextEncoder,
    Tokenizer,
    load,
  )

__version__ = "0.1.0"
__all__ = [
  "Captioner", "DualEncoder", "Encoder", "LanguageModel", "Svitt", "TextEncoder", "Tokenizer",
  "__version__", "load",
]


def __getattr__(name: str) -> Any:
  if name in __all__:
    return getattr(importlib.import_module("vfe.models.pretrained"), name)
  raise AttributeError(f"module 'vfe' has no attribute {name!r}")
