"""Writes what was trained as a folder that Hugging Face's transformers load.

    python -m vfe.tools.export --path=runs/x/pretrain --out=videomae-mine

An encoder becomes a VideoMAEModel, a pre-training on pixels a VideoMAEForPreTraining with its
decoder, a classifier with one head and mean pooling a VideoMAEForVideoClassification. Of a
pre-training on latents the encoder is written: VideoMAE's decoder predicts pixels. An encoder with
learned positions and a class token becomes a ViTModel or a VivitModel, one of images with relative
positions a BeitModel, a text model a BertModel (with a head of masked words a BertForMaskedLM)
beside its vocabulary. Of contrastive training both towers are written, into `vision` and `text`,
and beside them projections.safetensors with what transformers have no model for: embeddings are
pooled @ vision_projection and the mean of the words @ text_projection, brought to length 1.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vfe.config import choose
from vfe.errors import UserError
from vfe.interop import beit, bert, safetensors, videomae, vit, vivit
from vfe.learn.exports import Export
from vfe.learn.paths import named_leaves
from vfe.models import pretrained
from vfe.models.dual_encoder import vision_tower
from vfe.models.vivit import PIXELS
from vfe.tools import cli

PROCESSOR = "preprocessor_config.json"
PROJECTIONS = "projections.safetensors"
VITS = {"Beit": beit, "ViT": vit, "Vivit": vivit}  # by the beginning of transformers' names


def write_hugging_face(export: Export, out: pathlib.Path, encoder_only: bool) -> str:
  """Writes an export as a folder of transformers; returns what was written, for a person.

  Raises:
    UserError: the folder is not empty, or transformers has no model that can hold this one.
  """
  if "encoder" not in export.model and export.kind != "text":
    raise UserError(
      f"{export.path} holds a {export.kind}; only video encoders and text models can be written."
    )
  if export.kind == "svitt":
    raise UserError(
      f"{export.path} holds a svitt: transformers have no BEiT of clips, nor a BERT that reads "
      "them; open it with vfe.load."
    )
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"--out={out} is there already and not an empty folder; name a new one.")
  if export.kind == "contrast":
    return _write_towers(export, out)
  if export.kind == "text":
    return _write_text(export, out)
  if export.model["encoder"]["positions"] in ("learned", "relative"):
    return _write_vit(export, out, encoder_only)
  return _write_videomae(export, out, encoder_only)


def _write_towers(export: Export, out: pathlib.Path) -> str:
  vision = vision_tower(export)
  # transformers have one embedding: that of videos, where images have another.
  encoder = vision.model["encoder"] | {"images": False}
  vision = dataclasses.replace(vision, model={"encoder": encoder})
  said = [write_hugging_face(vision, out / "vision", encoder_only=True)]
  vocabulary = str(pathlib.Path(export.path) / "tokenizer.json")
  model = {"text": export.model["dual"]["text"], "vocabulary": vocabulary}
  text = dataclasses.replace(export, kind="text", model=model)
  said.append(_write_text(text, out / "text"))
  top = {name: leaf for name, leaf in export.params.items() if name not in ("vision", "text")}
  tensors = {n.removesuffix("/kernel"): np.asarray(leaf) for n, leaf in named_leaves(top).items()}
  safetensors.write_tensors(out / PROJECTIONS, tensors)
  said.append(f"{out / PROJECTIONS}: pooling {export.model['dual']['pool']}, then these.")
  if export.model["encoder"].get("images"):
    said.append("The embedding of images is left out.")
  return "\n".join(said)


def _write_videomae(export: Export, out: pathlib.Path, encoder_only: bool) -> str:
  latent = export.kind == "mae" and export.model["target"] != "pixels"
  kind, model, params = export.kind, export.model, export.params
  if encoder_only or latent:
    kind, model, params = "encoder", {"encoder": model["encoder"]}, {"encoder": params["encoder"]}
  videomae.write_export(out, kind, model, params)
  _write_processor(out, "VideoMAEImageProcessor", model["encoder"])
  said = f"{out}: transformers.{videomae.ARCHITECTURES[kind]}.from_pretrained('{out}') loads it."
  return said + (" The decoder, which predicts latents, is left out." if latent else "")


def _write_vit(export: Export, out: pathlib.Path, encoder_only: bool) -> str:
  encoder = export.model["encoder"]
  family = "ViT" if encoder["frames"] == encoder["tubelet"][0] == 1 else "Vivit"
  family = "Beit" if encoder["positions"] == "relative" else family
  if export.kind != "encoder" and not encoder_only:
    raise UserError(
      f"{export.path} holds a {export.kind}, of which transformers' {family} has the encoder only; "
      "add --encoder_only."
    )
  VITS[family].write_export(out, export.model, export.params)
  _write_processor(out, f"{family}ImageProcessor", encoder)
  if "pool_norm" in export.params:
    return f"{out}: transformers.{family}Model.from_pretrained('{out}') loads it."
  return _without_pooler(out, f"{family}Model")


def _write_text(export: Export, out: pathlib.Path) -> str:
  bert.write_export(out, export.model, export.params)
  vocabulary = export.model.get("vocabulary")
  if vocabulary and pathlib.Path(vocabulary).is_file():
    shutil.copy(vocabulary, out)
  if "head" in export.params:
    return f"{out}: transformers.{bert.HEADED}.from_pretrained('{out}') loads it."
  return _without_pooler(out, bert.BARE)


def _without_pooler(out: pathlib.Path, architecture: str) -> str:
  load = f"transformers.{architecture}.from_pretrained('{out}', add_pooling_layer=False)"
  return f"{out}: {load} loads it."


def _write_processor(out: pathlib.Path, kind: str, encoder: Mapping[str, Any]) -> None:
  """How transformers' image processor makes the frames that the encoder was trained on."""
  size = encoder["size"]
  mean, std = PIXELS[encoder.get("pixels", "imagenet")]
  crop = {"height": size, "width": size}
  resize = {"size": crop} if kind in ("ViTImageProcessor", "BeitImageProcessor") else {
    "size": {"shortest_edge": size}, "do_center_crop": True, "crop_size": crop,
  }  # fmt: skip
  said = {
    "image_processor_type": kind,
    "do_resize": True,
    **resize,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(mean),
    "image_std": list(std),
  }
  if kind == "VivitImageProcessor":
    said["offset"] = False  # its own default would take 1 from the rescaled pixels
  (out / PROCESSOR).write_text(json.dumps(said, indent=2) + "\n")


FORMATS = {"huggingface": write_hugging_face}


def main(argv: Sequence[str]) -> None:
  """The command line."""
  parser = cli.Parser(__doc__)
  add = parser.add_argument
  add("--path", required=True, help="a finished stage's folder, or an export")
  add("--to", default="huggingface", help=f"one of {', '.join(FORMATS)}")
  add("--out", required=True, help="folder to write, new or empty")
  add("--encoder_only", action="store_true", help="leave decoder, pooling and heads out")
  flags = parser.parse_args(argv)
  write = choose(FORMATS, flags.to, "--to")
  export = pretrained.read(pathlib.Path(flags.path).expanduser())
  print(write(export, pathlib.Path(flags.out).expanduser(), flags.encoder_only))


if __name__ == "__main__":
  cli.run(main)
