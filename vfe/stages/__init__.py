"""What is done: one file a kind of stage."""

import importlib

# kind -> where its class is. A name in a config maps to a module by this table alone.
KINDS = {
  "tokenizer": "vfe.stages.tokenizer:TokenizerStage",
  "targets": "vfe.stages.targets:TargetsStage",
  "mae": "vfe.stages.mae:MAEStage",
  "classify": "vfe.stages.classify:ClassifyStage",
  "vocabulary": "vfe.stages.vocabulary:VocabularyStage",
  "contrast": "vfe.stages.contrast:ContrastStage",
  "sparse_video_text": "vfe.stages.sparse_video_text:SparseVideoTextStage",
  "language": "vfe.stages.language:LanguageStage",
  "caption": "vfe.stages.caption:CaptionStage",
  "segments": "vfe.stages.segments:SegmentsStage",
  "summarise": "vfe.stages.summarise:SummariseStage",
}


def stage_class(kind: str, place: str) -> type:
  """The class of a kind, imported when it is asked for.

  Raises:
    UserError: no such kind; `place` is the config key that holds it.
  """
  from vfe.config import choose

  module, name = choose(KINDS, kind, place).split(":")
  return getattr(importlib.import_module(module), name)
