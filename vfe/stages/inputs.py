"""Named inputs of a stage: another stage of the recipe, an export, or a Hugging Face folder."""

import json
import pathlib
from typing import Any

import ml_collections

from vfe.config import nearest
from vfe.errors import UserError
from vfe.learn import exports
from vfe.learn.exports import Export


def resolve(config: ml_collections.ConfigDict, name: str, workdir: pathlib.Path) -> dict[str, Any]:
  """Every input of a stage by role.

  Raises:
    UserError: an input that is not there, with how to make it.
  """
  section = config[name].get("inputs", {})
  return {
    role: _one(config, name, role, value, workdir) for role, value in section.items() if value
  }


def _one(config: Any, name: str, role: str, value: str, workdir: pathlib.Path) -> Export:
  place = f"config.{name}.inputs.{role}"
  if value in config.stages:
    folder = workdir / value / "export"
    if not exports.is_export(folder):
      raise UserError(
        f"{place}: stage {value!r} has not finished in {workdir}; run it with --stage={value}, "
        "or without --stage to run all."
      )
    return exports.read(folder)
  folder = pathlib.Path(value).expanduser()
  if exports.is_export(folder):
    return exports.read(folder)
  if exports.is_export(folder / "export"):
    return exports.read(folder / "export")
  if (folder / "config.json").is_file():
    return read_hugging_face(folder)
  raise UserError(
    f"{place}={value!r} is neither a stage of this recipe ({nearest(value, config.stages)}), nor "
    "a folder with an export.json, nor a Hugging Face folder with a config.json."
  )


def read_hugging_face(folder: pathlib.Path) -> Export:
  """A Hugging Face folder as an export, by its `model_type`.

  Raises:
    UserError: a model_type that vfe cannot read.
  """
  from vfe.interop import resnet, videomae

  readers = {"videomae": videomae.read_export, "resnet": resnet.read_export}
  kind = json.loads((folder / "config.json").read_text()).get("model_type", "")
  if kind not in readers:
    raise UserError(
      f"{folder}/config.json: model_type={kind!r} cannot be read ({nearest(kind, readers)})."
    )
  read = readers[kind](folder)
  return Export(read[0], read[1], read[2], exports.digest(read[2]), str(folder))
