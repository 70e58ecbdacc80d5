"""The tabletop world: a procedural first-person world that is every recipe's built-in data.

A hand acts on objects on a table; a video's pixels, labels and texts are pure functions of
(world, split, index). docs/tabletop.md shows it.
"""

import importlib

_PLACES = {
  "world": ("HEADS", "NOUNS", "RUNGS", "SPLITS", "VERBS", "World", "heads"),
  "story": ("Event", "Scenario", "Thing", "labels", "scenario"),
  "draw": ("HAND", "masks", "render", "token_share"),
  "text": ("caption", "captions", "narrations", "objects", "order", "segments", "summary"),
  "asking": ("choices", "language_queries", "multiple_choice", "queries", "questions"),
  "lexicon": ("corpus", "vocabulary"),
  "files": ("TabletopSource", "encode", "write_cache"),
  "narrated": ("open_tabletop",),
  "workers": ("arrays",),
}
_PLACE = {name: place for place, names in _PLACES.items() for name in names}
__all__ = sorted(_PLACE)


def __getattr__(name: str):
  """Imports a public name's module on first use: PyAV only where files are written or read."""
  if name not in _PLACE:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_PLACE[name]}"), name)


def __dir__() -> list[str]:
  return __all__
