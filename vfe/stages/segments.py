"""The rival: a language model that reads captions of a video's segments in place of the video.

LongViViT's baseline (arXiv 2312.07395, sections 4 and 6.2): a captioner of short clips tells each
segment, any language model makes a summary of that, or answers questions.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vfe import config as configs
from vfe.data.prompt import Prompt, decoder, framed
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.segments import Retold, Segments, joined
from vfe.data.sources import ListedSource
from vfe.data.spec import clip_spec
from vfe.data.streams import Stream
from vfe.evaluate.evaluation import Evaluation
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.texts import Texts
from vfe.learn import exports, hosts, sharding
from vfe.learn.state import Params
from vfe.models import pretrained
from vfe.models.frozen import as_dtype
from vfe.models.generation import Choice
from vfe.models.language_model import LanguageConfig
from vfe.models.opened.captioner import Captioner
from vfe.models.video_language import LanguageAlone, VideoLanguage
from vfe.models.words import Words
from vfe.stages import encoder as encoders
from vfe.stages import measured_text
from vfe.stages.stage import Batch, Setting, Stage

FILE = "segments.jsonl"
Place = tuple[Any, float | None, float | None]  # a clip: file, start, end


class SegmentsStage(Stage):
  """Tells the segments of every validation video, then measures `written` and `questions` as a
  caption stage does, of a language model with {segments} in its prompts and no video.

  Does not train. What was told lies in `segments.jsonl`, a line a video.
  """

  trains = False
  roles = needed = ("captioner", "language")

  def __init__(self, setting: Setting):
    super().__init__(setting)
    captioner = setting.export("captioner", "caption")
    language = setting.export("language", "language")
    self.words = Words.of(language)
    self._frozen = {"language": as_dtype(language.params["language"], self.dtype)}
    run = encoders.execution(setting.config, self.dtype)
    self.model = LanguageAlone(LanguageConfig.from_dict(language.model["language"]), run)
    self._captioner = Captioner.of(captioner, pretrained.parts(captioner), self.dtype)
    self._tells = VideoLanguage(self._captioner.config, run, run)
    self._told: dict[Place, tuple[str, ...]] = {}  # the captions of a clip's segments

  @classmethod
  def ready(cls, section: Any) -> None:
    """Raises UserError where captions cannot be measured."""
    measured_text.ready(section)

  def check(self) -> None:
    """Raises UserError where evaluation batches do not divide evenly over the mesh."""
    sharding.check_batch(self.config.eval_batch, self.setting.mesh)

  def run(self, say: Callable[[str], None]) -> dict[str, float]:
    """Tells, measures, and exports a fingerprint of what was told."""
    metrics: dict[str, float] = {}
    frozen = self._on_mesh(self._frozen)
    say(f"{self.name}: telling segments of {self.config.seconds:g} s")
    for evaluator in measured_text.evaluators(self):
      say(f"{self.name}: evaluating {evaluator.name}")
      evaluation = Evaluation(evaluator, self.setting.mesh)
      metrics |= evaluation.run({}, frozen, self.setting.folder)
    lines = [json.dumps({"video": str(p[0]), "segments": told}) for p, told in self._told.items()]
    text = "".join(f"{line}\n" for line in lines)
    if hosts.first():
      (self.setting.folder / FILE).write_text(text, encoding="utf-8")
    told = np.frombuffer(text.encode(), np.uint8).copy()
    exports.write(self.setting.folder / "export", *self.export({"told": told}))
    return metrics | {"segments": float(sum(map(len, self._told.values())))}

  def export(self, params: Params) -> tuple[str, dict[str, Any], Params]:
    """What was told, as bytes of JSON lines."""
    return "segments", {"seconds": self.config.seconds}, params

  # What `measured_text` asks for.

  def data_of(self, place: str, changes: Any) -> Any:
    """The data config of a measure: its own keys over the stage's."""
    return configs.laid_over(self.config.data, changes, f"config.{self.name}.{place}.data")

  def prompt(self, template: str, data: Any, form: str = "answer", options: int = 0) -> Prompt:
    """What is read of a record."""
    text = data.text
    return Prompt(
      self.words.tokenizer, text.length, template, text.key, self.words.end, form, options
    )

  def source_of(self, data: Any, split: str) -> Retold:
    """The videos of a measure with what was told of their segments."""
    source = self.setting.open_source(data, split)
    records = [source[i] for i in range(len(source))]
    new = {p: r for r in records if (p := _place(r)) not in self._told}
    if new:
      self._told |= self._tell(new, data)
    texts = {i: {"segments": joined(self._told[_place(r)])} for i, r in enumerate(records)}
    return Retold(source, texts)

  def stream(self, source: Any, data: Any, text: Prompt) -> Stream:
    """Evaluation batches of texts alone."""
    return Stream.of_text(source, data, self.config.eval_batch, text)

  def looking(self, params: Params, frozen: Params, batch: Batch) -> None:
    """There is nothing to look at."""
    del params, frozen, batch

  # Telling.

  def _tell(
    self, records: Mapping[Place, VideoRecord], data: Any
  ) -> dict[Place, tuple[str, ...]]:
    """Captions of every segment of these clips; "" of one that cannot be read."""
    clips = ListedSource("segments", {}, list(records.values()))
    segments = Segments.cut(clips, self.config.seconds)
    told = Texts(decoder(self._captioner.words.tokenizer))
    evaluator = Evaluator("segments", self._clips(segments, data), self._caption, lambda: told)
    given = self._on_mesh(self._captioner.params), self._on_mesh(self._captioner.frozen)
    Evaluation(evaluator, self.setting.mesh).run(*given)
    found: dict[Place, list[str]] = {place: [] for place in records}
    places = list(records)
    for number, of in enumerate(segments.of):
      found[places[of]].append(told.by_record.get(number, ""))
    return {place: tuple(texts) for place, texts in found.items()}

  def _clips(self, segments: Segments, data: Any) -> Stream:
    """Clips of the segments as the captioner takes them."""
    asked, words = self._captioner.asked(self.config.prompt), self._captioner.words
    length = max(2, len(framed(words.tokenizer, asked.template, None, words.end)[0]))
    spec = dataclasses.replace(
      clip_spec(data),
      frames=asked.frames,
      size=self._captioner.config.encoder.size,
      sampling=Sampling(**asked.sampling),
      text=Prompt(words.tokenizer, length, asked.template, "", words.end, "prompt"),
    )
    return Stream(segments, spec, self.config.eval_batch, data.workers, data.buffer)

  def _caption(self, params: Params, frozen: Params, clip: Batch) -> dict[str, Any]:
    asked, text = self._captioner.asked(self.config.prompt), clip["text"]
    looking = self._tells.looking(params, *self._tells.shown(frozen, clip["video"], clip["row"]))
    how = self._captioner.model["generate"]
    choice = Choice(words=asked.words, eos=(self._captioner.words.end,), **how)
    found = self._tells.generate(frozen, text["ids"], text["mask"], looking, choice)
    return {"ids": found.ids, "mask": found.mask}

  def _on_mesh(self, params: Params) -> Params:
    return hosts.put(params, sharding.shardings(params, self.setting.mesh))


def _place(record: VideoRecord) -> Place:
  return record.path or record.name, record.start, record.end
