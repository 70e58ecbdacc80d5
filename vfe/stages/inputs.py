"""Named inputs of a stage: another stage of the recipe, an export, or a Hugging Face folder."""

import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections

from vfe.config import nearest
from vfe.errors import UserError
from vfe.learn import exports
from vfe.learn.exports import Export
from vfe.models.pretrained import find
from vfe.stages import stage_class


def check(config: ml_collections.ConfigDict, names: Iterable[str]) -> None:
  """Whether the inputs that these stages cannot do without are named, and the packages there: days
  before they are used.

  Raises:
    UserError: one is not.
  """
  for name in names:
    kind = stage_class(config[name].kind, f"config.{name}.kind")
    for role in kind.needed:
      if not config[name].inputs.get(role):
        raise UserError(
          f"config.{name}.inputs.{role} is not set; name a folder, or leave {name!r} out of "
          "config.stages."
        )
    kind.ready(config[name])


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
  export = find(pathlib.Path(value).expanduser())
  if export is not None:
    return export
  raise UserError(
    f"{place}={value!r} is neither a stage of this recipe ({nearest(value, config.stages)}), nor "
    "a folder with an export.json, nor a Hugging Face folder with a config.json."
  )

