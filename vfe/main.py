"""python -m vfe.main --config=configs/lvmae_128.py: config in, stages run in order, results out.

This file is imported again by every decoding worker, so it imports nothing heavy.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from vfe import config as configs
from vfe.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, e.g. configs/lvmae_128.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Default: runs/<config>[-<variant>].")
_STAGE = flags.DEFINE_string("stage", None, "Run this stage only.")
_REDO = flags.DEFINE_string("redo", None, "Make this finished stage anew (its folder is moved).")
_EVAL = flags.DEFINE_bool("eval", False, "Evaluate finished stages again, on config.data if set.")
_YES = flags.DEFINE_bool("yes", False, "Run even what this machine will be very long at.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the stack trace of an error.")

EXIT_USER_ERROR = 2


def parse_flags(argv: Sequence[str]) -> list[str]:
  """absl's parser, with one line and exit code 2 in place of a traceback."""
  try:
    return _parse(argv)
  except UserError as error:
    _fail(error)
  except flags.Error as error:
    _fail(UserError(str(error).splitlines()[0]))
  raise AssertionError("unreachable")


def _parse(argv: Sequence[str]) -> list[str]:
  config_argument = next((a for a in argv if a.startswith(("--config=", "-config="))), None)
  if config_argument is None and not any(a in ("--help", "-h", "--helpfull") for a in argv):
    raise UserError("--config is missing; try --config=configs/lvmae_128.py:demo")
  if config_argument is not None:
    path = config_argument.partition("=")[2].partition(":")[0]
    if not pathlib.Path(path).is_file():
      raise UserError(f"--config={path}: no such file.")
  try:
    return flags.FLAGS(list(argv))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    if isinstance(error, flags.Error) and not _names_config_key(str(error)):
      raise
    raise _config_error(argv, config_argument, error) from error


def _names_config_key(message: str) -> bool:
  return "config." in message


def _config_error(argv: Sequence[str], config_argument: str | None, error: Exception) -> Exception:
  """Which `--config.key=value` absl or ml_collections could not take, and the nearest key."""
  if config_argument is None:
    return error
  config = _load(config_argument)
  if isinstance(config, Exception):
    return config
  known = configs.flat_keys(config)
  for argument in argv:
    if not argument.startswith("--config."):
      continue
    key, _, value = argument.removeprefix("--config.").partition("=")
    if key not in known:
      return UserError(f"--config.{key} is unknown ({configs.nearest(key, known)}).")
    if not _takes(config_argument, argument):
      kind = config.get_type(key) if "." not in key else _type_of(config, key)
      return UserError(f"--config.{key}={value!r} is not of type {kind.__name__}.")
  return error


def _load(config_argument: str) -> object:
  holder = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", flag_values=holder)
  try:
    holder(["vfe", config_argument])
  except Exception as error:
    return error
  return holder.config


def _takes(config_argument: str, argument: str) -> bool:
  holder = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", flag_values=holder)
  try:
    holder(["vfe", config_argument, argument])
  except Exception:
    return False
  return True


def _type_of(config: object, key: str) -> type:
  *parents, last = key.split(".")
  for parent in parents:
    config = config[parent]
  return config.get_type(last)


def main(argv: Sequence[str]) -> None:
  """Runs the recipe; the order of a run is in `vfe.train.run`."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells twenty lines a checkpoint
  try:
    if len(argv) > 1:
      raise UserError(f"argument {argv[1]!r} is not a flag; write --name=value.")
    _run()
  except UserError as error:
    if _DEBUG.value:
      raise
    _fail(error)


def _run() -> None:
  from vfe.train import run

  config = _CONFIG.value
  run.recipe(
    config,
    workdir=pathlib.Path(_WORKDIR.value or default_workdir(config)),
    only=_STAGE.value,
    redo=_REDO.value,
    evaluate=_EVAL.value,
    yes=_YES.value,
    command=[os.path.basename(sys.executable), "-m", "vfe.main", *sys.argv[1:]],
  )


def default_workdir(config: object) -> str:
  """runs/<config>[-<variant>]."""
  return f"runs/{config.name}" + (f"-{config.variant}" if config.variant else "")


def _fail(error: UserError) -> None:
  sys.stdout.flush()
  print(f"vfe: {error}", file=sys.stderr)
  sys.exit(EXIT_USER_ERROR)


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
