"""Writes what was trained as a folder that Hugging Face's transformers load.

    python -m vfe.tools.export --path=runs/x/pretrain --out=videomae-mine

An encoder becomes a VideoMAEModel, a pre-training on pixels a VideoMAEForPreTraining with its
decoder, a classifier with one head and mean pooling a VideoMAEForVideoClassification. Of a
pre-training on latents the encoder is written: VideoMAE's decoder predicts pixels.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from vfe.config import choose
from vfe.errors import UserError
from vfe.interop import videomae
from vfe.learn.exports import Export
from vfe.models import pretrained
from vfe.models.vivit import IMAGENET_MEAN, IMAGENET_STD
from vfe.tools import cli

PROCESSOR = "preprocessor_config.json"


def write_hugging_face(export: Export, out: pathlib.Path, encoder_only: bool) -> str:
  """Writes an export as a VideoMAE folder; returns what was written, for a person.

  Raises:
    UserError: the folder is not empty, or transformers' VideoMAE cannot hold this model.
  """
  if "encoder" not in export.model:
    raise UserError(f"{export.path} holds a {export.kind}; only video encoders can be written.")
  latent = export.kind == "mae" and export.model["target"] != "pixels"
  kind, model, params = export.kind, export.model, export.params
  if encoder_only or latent:
    kind, model, params = "encoder", {"encoder": model["encoder"]}, {"encoder": params["encoder"]}
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"--out={out} is there already and not an empty folder; name a new one.")
  videomae.write_export(out, kind, model, params)
  processor = _processor(model["encoder"]["size"])
  (out / PROCESSOR).write_text(json.dumps(processor, indent=2) + "\n")
  architecture = videomae.ARCHITECTURES[kind]
  said = f"{out}: transformers.{architecture}.from_pretrained('{out}') loads it."
  return said + (" The decoder, which predicts latents, is left out." if latent else "")


def _processor(size: int) -> dict[str, Any]:
  """How transformers' image processor makes the frames that the encoder was trained on."""
  return {
    "image_processor_type": "VideoMAEImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": size},
    "do_center_crop": True,
    "crop_size": {"height": size, "width": size},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
  }


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
