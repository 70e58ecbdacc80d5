"""What is trained already, from a folder: `vfe.load`, and the exports it reads."""

import json
import os
import pathlib

from vfe.config import nearest
from vfe.errors import UserError
from vfe.interop import beit, bert, clip, language_model, resnet, siglip, videomae, vit, vivit
from vfe.learn import exports
from vfe.learn.exports import Export
from vfe.models.opened.captioner import Captioner
from vfe.models.opened.dual import DualEncoder
from vfe.models.opened.encoder import Encoder
from vfe.models.opened.language import LanguageModel
from vfe.models.opened.svitt import Svitt
from vfe.models.opened.text import TextEncoder
from vfe.models.opened.tokenizer import Tokenizer

HUGGING_FACE = {  # by model_type
  "beit": beit.read_export,
  "bert": bert.read_export,
  "clip": clip.read_export,
  "clip_vision_model": clip.read_export,
  "gemma3_text": language_model.read_export,
  "llama": language_model.read_export,
  "qwen3": language_model.read_export,
  "resnet": resnet.read_export,
  "siglip": siglip.read_export,
  "siglip_vision_model": siglip.read_export,
  "videomae": videomae.read_export,
  "vit": vit.read_export,
  "vivit": vivit.read_export,
}


def load(
  path: str | pathlib.Path, *, dtype: str = "float32"
) -> Encoder | DualEncoder | Svitt | TextEncoder | LanguageModel | Captioner | Tokenizer:
  """Opens what a stage has trained, or a Hugging Face folder.

  Args:
    path: a finished stage's folder (`runs/x/pretrain`), an export (`runs/x/pretrain/export`), or
      a local folder with config.json and model.safetensors of VideoMAE, ViT, ViViT, BEiT, CLIP or
      SigLIP (the vision tower), BERT, or a language model: Gemma 3 (text), Llama, Qwen3.
    dtype: of activations and products; parameters and results are float32.

  Raises:
    UserError: nothing to load there, or something without an encoder or tokenizer in it; of a
      captioner, that its encoder or language model is not where it was, or not what it was.
  """
  export = read(pathlib.Path(path).expanduser())
  if export.kind not in OPENERS:
    raise UserError(f"{path} holds a {export.kind}; vfe.load opens {', '.join(OPENERS)}.")
  return OPENERS[export.kind](export, dtype)


def read(folder: pathlib.Path) -> Export:
  """`find`, or an error that says what is there instead."""
  export = find(folder)
  if export is None:
    raise UserError(f"{folder}: {_what_is_there(folder)}")
  return export


def find(folder: pathlib.Path) -> Export | None:
  """The export in the folder or in its `export`, or the Hugging Face model, or None."""
  for place in (folder, folder / "export"):
    if exports.is_export(place):
      return exports.read(place)
  return read_hugging_face(folder) if (folder / "config.json").is_file() else None


def read_hugging_face(folder: pathlib.Path) -> Export:
  """A Hugging Face folder as an export, by its `model_type`.

  Raises:
    UserError: a model_type that vfe cannot read, or what the reader does not take.
  """
  try:
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
  except (ValueError, AttributeError) as error:
    raise UserError(f"{folder}/config.json is not a JSON object ({error}).") from None
  if kind not in HUGGING_FACE:
    raise UserError(
      f"{folder}/config.json: model_type={kind!r} cannot be read ({nearest(kind, HUGGING_FACE)})."
    )
  kind, model, params = HUGGING_FACE[kind](folder)
  return Export(kind, model, params, exports.digest(params), str(folder))


def parts(export: Export) -> dict[str, Export]:
  """By role, what an export was trained on top of and does not hold itself.

  Raises:
    UserError: it is not where the export says, or it is another one now.
  """
  found = {}
  for role, said in export.model["inputs"].items():
    folder = pathlib.Path(os.path.normpath(pathlib.Path(export.path) / said["path"]))
    part = find(folder)
    if part is None:
      raise UserError(
        f"{export.path} needs its {role}, which was at {folder}: {_what_is_there(folder)} Put it "
        f"there, or write where it is into model.inputs.{role}.path of "
        f"{pathlib.Path(export.path) / exports.FILE}."
      )
    if part.digest != said["digest"]:
      raise UserError(
        f"{folder} is not the {role} that {export.path} was trained with (digest {part.digest}, "
        f"then {said['digest']}); put that one there, or train anew on this one."
      )
    found[role] = part
  return found


def _captioner(export: Export, dtype: str) -> Captioner:
  return Captioner.of(export, parts(export), dtype)


def _what_is_there(folder: pathlib.Path) -> str:
  if not folder.is_dir():
    return "no such folder."
  finished = sorted(p.parent.parent.name for p in folder.glob(f"*/export/{exports.FILE}"))
  if finished:
    return f"holds the stages {', '.join(finished)}; name one, such as {folder / finished[-1]}."
  return (
    f"neither an {exports.FILE} (made when a stage finishes) nor a Hugging Face config.json in it."
  )


OPENERS = {
  "encoder": Encoder.of,
  "mae": Encoder.of,
  "classifier": Encoder.of,
  "contrast": DualEncoder.of,
  "svitt": Svitt.of,
  "caption": _captioner,
  "text": TextEncoder.of,
  "language": LanguageModel.of,
  "tokenizer": Tokenizer.of,
}
