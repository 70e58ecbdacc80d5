"""What the stages with two towers share: their configs, beginnings, and what of them trains."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from vfe import config as configs
from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.learn.state import Params
from vfe.learn.trained import Trained
from vfe.models.contrastive import INITIAL
from vfe.models.dual_encoder import DualConfig
from vfe.models.inflate import fitted, inflated
from vfe.models.text import TextConfig
from vfe.models.vivit import EncoderConfig
from vfe.stages.stage import Setting
from vfe.tokens.tubes import TUBES

VISION = ("contrast", "encoder", "mae", "classifier", "svitt")
TEXT = ("contrast", "text", "svitt")
BOTH = ("contrast", "svitt")  # exports of two towers

BERTS = {"[CLS]": 101, "[MASK]": 103}  # ids of BERT's vocabulary, where a planned one is not here

# Parameters of a layer that are added in the paper's study of few: an adapter's middle is a quarter
# of the width (ours; the paper's appendix has it), and a rank of this share of the width adds as
# many: per layer an adapter has 2 D D/4, each rank 18 D.
ADAPTER, RANK = 1 / 4, 1 / 36


@dataclasses.dataclass(frozen=True)
class Words:
  """source: the path that `vfe.data.text.Text` reads; size: ids are below it."""

  source: str
  size: int

  @property
  def text(self) -> str:
    """The vocabulary as the JSON of the `tokenizers` library."""
    from vfe.data.text import to_json

    return to_json(self.source)

  def id(self, entry: str) -> int:
    """The number of one of BERT's special entries.

    Raises:
      UserError: the vocabulary has no such entry.
    """
    from vfe.data.text import Tokenizer

    if not pathlib.Path(self.source).expanduser().exists():
      return BERTS[entry]
    return Tokenizer(self.source, 3).id(entry)


def words(setting: Setting) -> Words:
  """The vocabulary of a stage: its input of that name, else its text tower's own.

  Raises:
    UserError: there is neither, or the tower was trained on other words than it is to read.
  """
  place = f"config.{setting.name}.inputs"
  given, text = setting.export("vocabulary", "vocabulary"), setting.export("text", *TEXT)
  if given is None and text is None:
    raise UserError(
      f"{place}.vocabulary and .text are both not set; name a stage of kind vocabulary, or a "
      "folder of BERT."
    )
  if given is None:
    return Words(text.model.get("vocabulary") or text.path, text_config(text).vocabulary)
  if text is not None and text_config(text).vocabulary != given.model["size"]:
    raise UserError(
      f"{place}.vocabulary={given.path} has {given.model['size']} entries, the text tower of "
      f"{text.path} {text_config(text).vocabulary}; leave inputs.vocabulary out."
    )
  return Words(given.path, given.model["size"])


def dual_config(setting: Setting, section: ml_collections.ConfigDict, size: int) -> DualConfig:
  """Both towers of a stage; `size` is the vocabulary's.

  Raises:
    UserError: an input is of another shape than the config asks for.
  """
  model = setting.config.model
  given = setting.export("text", *TEXT)
  text = TextConfig.of(model.text, size) if given is None else text_config(given)
  return DualConfig(vision_config(setting, section), text, model.joint, model.pool, section.loss)


def vision_config(setting: Setting, section: ml_collections.ConfigDict) -> EncoderConfig:
  """The video tower, or of a stage whose clips have one frame an encoder of images.

  What belongs to the weights of an input (its activation, the pixels that it takes) is the input's.
  """
  model, data = setting.config.model, section.data
  of_images = data.frames == 1
  tubelet = (1, *model.tubelet[1:]) if of_images else tuple(model.tubelet)
  frames = [configs.laid_over(data, part.data, "data").frames for part in section.mixture.values()]
  tubes = ()
  if model.tubes:
    tubes = configs.choose(TUBES, model.tubes, "config.model.tubes")(data.frames, tubelet[1])
  want = EncoderConfig.of(
    model.size, data.frames, data.size, tubelet, cls=model.cls, tubes=tubes,
    positions="sincos3d" if tubes else model.positions,
  )  # fmt: skip
  export = setting.export("encoder", *VISION)
  have = None if export is None else trained_vision(export)
  changes: dict[str, Any] = {
    "mixing": "joint" if of_images else model.mixing,
    "images": not of_images and 1 in frames,
    "adapter": have.adapter if have else 0,
    "lora": have.lora if have else 0,
  }
  if section.train == "adapters":
    changes["adapter"] = section.adapter or round(want.width * ADAPTER)
  if section.train == "lora":
    changes["lora"] = section.rank or round(want.width * RANK)
  want = dataclasses.replace(want if have is None else fitted(have, want), **changes)
  want.layout  # noqa: B018  an error of the tubelet now, not in a jitted step
  return want


def warm(setting: Setting, section: ml_collections.ConfigDict, dual: DualConfig) -> Params:
  """What both towers, their projections and the temperature begin with, by the inputs."""
  found: dict[str, Any] = {}
  vision, text = setting.export("encoder", *VISION), setting.export("text", *TEXT)
  if vision is not None:
    have, given = trained_vision(vision), tower(vision)
    found["vision"] = inflated(given, have, dual.vision, place=vision.path, how=section.inflate)
    shared = ("vision_projection", "pool", "log_scale", "bias")
    found |= _fitting(vision, dual, shared) if vision.kind == "contrast" else {}
  if text is not None:
    found["text"] = text.params["text"]
    shared = ("text_projection",)
    found |= _fitting(text, dual, shared) if text.kind == "contrast" else {}
  return found


def _fitting(export: Export, dual: DualConfig, names: tuple[str, ...]) -> Params:
  """Of a contrastive stage, what lies in the same space and was trained by the same loss."""
  have = DualConfig.from_dict(export.model["dual"])
  if have.width != dual.width:
    raise UserError(
      f"{export.path} embeds in {have.width} dimensions, config.model.joint={dual.width}; "
      "set it to that."
    )
  if have.loss != dual.loss:
    names = tuple(name for name in names if name not in INITIAL[have.loss])
  return {name: export.params[name] for name in names if name in export.params}


def text_config(export: Export) -> TextConfig:
  """That of the text tower of an export."""
  within = {"contrast": "dual", "svitt": "svitt"}.get(export.kind)
  return TextConfig.from_dict((export.model[within] if within else export.model)["text"])


def trained_vision(export: Export) -> EncoderConfig:
  """The config of the video tower of an export, as it was trained."""
  have = EncoderConfig.from_dict(export.model["encoder"])
  return dataclasses.replace(have, cls=have.cls and "cls" in tower(export))


def tower(export: Export) -> Params:
  """The parameters of the video tower of an export."""
  return export.params["vision" if export.kind in BOTH else "encoder"]


# What of the video tower trains, besides its projection. All but "last" go backward through the
# whole tower, so the embedding of tubelets is trained too, as in the paper (3.1).
PATTERNS = {
  "all": "^vision/|^pool/",
  "last": "^vision/(blocks|norm)/|^pool/",
  "adapters": "^vision/embed|^vision/blocks/adapter/|^pool/",
  "lora": "^vision/embed|^vision/blocks/.*_lora/|^pool/",
  "temporal": "^vision/embed|^vision/blocks/(temporal|temporal_norm|gate)|^pool/",
}


def subset(section: ml_collections.ConfigDict, vision: EncoderConfig) -> Trained:
  """The parameters that `train` and `freeze_text` leave to be trained.

  Raises:
    UserError: what is to be trained is not there, or there are no layers left.
  """
  pattern = configs.choose(PATTERNS, section.train, "train")
  if section.train == "temporal" and vision.mixing != "factorised":
    raise UserError(
      f"train='temporal' with model.mixing={vision.mixing!r}: only mixing='factorised' has "
      "temporal attention."
    )
  first = 0
  if section.train == "last":
    first = vision.depth - section.last_layers
    if not 0 <= first < vision.depth:
      raise UserError(
        f"last_layers={section.last_layers}: the video tower has {vision.depth}; use 1 to that."
      )
  pattern += "|^vision_projection|^log_scale|^bias"
  pattern += "" if section.freeze_text else "|^text"
  return Trained(pattern, cut="^vision/blocks/", first=first)
