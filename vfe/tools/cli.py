"""What all command lines share: flags by argparse, and one line and exit code 2 for the user."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vfe.errors import UserError

EXIT_USER_ERROR = 2


class Parser(argparse.ArgumentParser):
  """Flags with their defaults in --help; `--debug` shows the stack trace of an error."""

  def __init__(self, description: str | None):
    module = getattr(sys.modules["__main__"], "__spec__", None)
    super().__init__(
      prog=f"python -m {module.name}" if module else None,
      description=description,
      formatter_class=_Help,
      allow_abbrev=False,
    )
    self.add_argument("--debug", action="store_true", help="show the stack trace of an error")

  def error(self, message: str) -> NoReturn:
    raise UserError(f"{message} (see --help)")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
  """The description as it is written, and every flag's default."""


def at_least(lowest: int) -> Callable[[str], int]:
  """An argparse type: whole numbers from `lowest` on."""

  def number(text: str) -> int:
    if not text.isdigit() or int(text) < lowest:
      raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} on")
    return int(text)

  return number


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
  """main(argv), with a UserError as one line on standard error and exit code 2."""
  argv = sys.argv[1:] if argv is None else argv
  try:
    main(argv)
  except UserError as error:
    if "--debug" in argv:
      raise
    print(f"vfe: {error}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)
