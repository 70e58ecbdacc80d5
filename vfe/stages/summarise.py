"""Summaries of transcripts by a language model, to train on: LongViViT's HowTo100M Summary (3.1).

The paper's prompts and language model are not public: template and folder are yours to choose.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vfe.data.prompt import Prompt, decoder
from vfe.data.streams import Stream
from vfe.data.transcripts import transcripts
from vfe.evaluate.evaluation import Evaluation
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.texts import Texts
from vfe.learn import exports, hosts, sharding
from vfe.learn.state import Params
from vfe.models.frozen import as_dtype
from vfe.models.generation import Choice
from vfe.models.language_model import LanguageConfig
from vfe.models.video_language import LanguageAlone
from vfe.models.words import Words
from vfe.stages import encoder as encoders
from vfe.stages.stage import Batch, Setting, Stage

FILE = "summaries.jsonl"


class SummariseStage(Stage):
  """Joins what is said in each training video, and writes `summaries.jsonl`, a line a video:
  {"path", "summary"}, as the HowTo100M reader and manifests take it. Does not train.
  """

  trains = False
  roles = needed = ("language",)

  def __init__(self, setting: Setting):
    super().__init__(setting)
    language = setting.export("language", "language")
    self.words = Words.of(language)
    self._frozen = {"language": as_dtype(language.params["language"], self.dtype)}
    run = encoders.execution(setting.config, self.dtype)
    self.model = LanguageAlone(LanguageConfig.from_dict(language.model["language"]), run)

  def check(self) -> None:
    """Raises UserError where batches do not divide evenly over the mesh."""
    sharding.check_batch(self.config.eval_batch, self.setting.mesh)

  def run(self, say: Callable[[str], None]) -> dict[str, float]:
    """Writes a summary of every video in which something is said."""
    config, data = self.config, self.config.data
    source = transcripts(self.source, data.text.key, config.most)
    say(f"{self.name}: summarising {len(source)} transcripts of {self.source.name}")
    text = Prompt(
      self.words.tokenizer, data.text.length, config.template, "", self.words.end, "prompt"
    )
    stream = Stream.of_text(source, data, config.eval_batch, text)
    texts = Texts(decoder(self.words.tokenizer))
    evaluator = Evaluator("summaries", stream, self._write, lambda: texts)
    mesh = self.setting.mesh
    frozen = hosts.put(self._frozen, sharding.shardings(self._frozen, mesh))
    Evaluation(evaluator, mesh).run({}, frozen)
    found = texts.by_record.items()
    lines = [json.dumps({"path": source[i].name, "summary": said}) for i, said in found]
    whole = "".join(f"{line}\n" for line in lines)
    if hosts.first():
      (self.setting.folder / FILE).write_text(whole, encoding="utf-8")
    digest = np.frombuffer(hashlib.sha256(whole.encode()).digest(), np.uint8).copy()
    exports.write(self.setting.folder / "export", *self.export({"contents": digest}))
    return {"summaries": float(len(lines))}

  def _write(self, params: Params, frozen: Params, batch: Batch) -> dict[str, Any]:
    how, text = self.config.generate, batch["text"]
    choice = Choice(
      self.config.words, (self.words.end,), how.temperature, how.top_p, how.beams
    )
    rng = jax.random.key(self.setting.config.seed)
    found = self.model.generate(frozen, text["ids"], text["mask"], None, choice, rng)
    return {"ids": found.ids, "mask": found.mask}

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """A fingerprint of what was written."""
    return "summaries", {"file": FILE}, params
