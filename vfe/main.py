"""python -m vfe.main --config=configs/lvmae_128.py: config in, stages run in order, results out.

Exit codes: 0 finished; 2 a user's mistake; 75 stopped by SIGTERM or Ctrl-C, the same command goes
on; 1 a mistake of ours.

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
from vfe.tools import recipes

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
  raise AssertionError("unreachable")


def _parse(argv: Sequence[str]) -> list[str]:
  given = recipes.named(argv)
  if given is None and not {"--help", "-h", "--helpfull"} & set(argv):
    raise recipes.missing()
  try:
    return flags.FLAGS(list(argv))
  except UserError:
    raise
  except flags.UnrecognizedFlagError as error:
    ours = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.modules[__name__])]
    near = configs.nearest(error.flagname, ours)
    raise UserError(f"--{error.flagname} is unknown ({near}).") from error
  except recipes.REFUSALS as error:
    raise recipes.explained(argv, given, error) from error


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
