"""The recipe that a command line names: --config=FILE[:argument] and --config.key=value.

One line in place of absl's traceback where something in them is wrong. Imports nothing heavy.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from vfe import config as configs
from vfe.errors import UserError

# What absl and a config file raise for a value that they do not take.
REFUSALS = (flags.Error, AttributeError, KeyError, TypeError, ValueError)


def named(argv: Sequence[str]) -> str | None:
  """The `--config=...` among the arguments, None if there is none.

  Raises:
    UserError: there is no such file.
  """
  given = next((a for a in argv if a.startswith("--config=")), None)
  if given:
    path = given.removeprefix("--config=").partition(":")[0]
    if not pathlib.Path(path).is_file():
      raise UserError(f"--config={path}: no such file.")
  return given


def missing() -> UserError:
  """What to say where no recipe is named."""
  return UserError("--config is missing; try --config=configs/lvmae_128.py:demo")


def read(argv: Sequence[str]) -> ml_collections.ConfigDict:
  """The recipe that the `--config` arguments make; others are left alone.

  Raises:
    UserError: no recipe, an unknown key, or a value of another type.
  """
  given = named(argv)
  if given is None:
    raise missing()
  ours = [a for a in argv if a.startswith(("--config=", "--config."))]
  try:
    return _parsed(*ours)
  except UserError:
    raise
  except REFUSALS as error:
    raise explained(ours, given, error) from error


def beside(
  parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
  """A tool's own flags, and the `--config.key=value` that stand beside them.

  Raises:
    UserError: an argument that is neither.
  """
  flags, rest = parser.parse_known_args(argv)
  other = [argument for argument in rest if not argument.startswith("--config.")]
  if other:
    names = [action.option_strings[0] for action in parser._actions]
    raise UserError(f"{other[0]} is unknown ({configs.nearest(other[0].split('=')[0], names)}).")
  return flags, rest


def explained(argv: Sequence[str], given: str, error: Exception) -> Exception:
  """Which `--config.key=value` was not taken, with the nearest key or the type that it should be.

  absl names neither. An error of another origin is given back.
  """
  config = _parsed(given)
  known = configs.flat_keys(config)
  for argument in argv:
    if argument.startswith("--config."):
      key, _, value = argument.removeprefix("--config.").partition("=")
      if key not in known:
        return UserError(f"--config.{key} is unknown ({configs.nearest(key, known)}).")
      try:
        _parsed(given, argument)
      except Exception:
        kind = configs.type_of(config, key).__name__
        return UserError(f"--config.{key}={value!r} is not of type {kind}.")
  return UserError(str(error).splitlines()[0]) if isinstance(error, flags.Error) else error


def _parsed(*arguments: str) -> ml_collections.ConfigDict:
  """The config as these arguments alone make it, apart from the program's own flags."""
  holder = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", flag_values=holder)
  typed, sys.argv = sys.argv, ["vfe", *arguments]  # config_flags reads its overrides from there
  try:
    holder(sys.argv)
  finally:
    sys.argv = typed
  return holder.config
