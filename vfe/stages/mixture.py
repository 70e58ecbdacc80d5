"""Mixtures: the parts of a batch, each with its own fixed rows in every step."""

from typing import Any

from vfe.errors import UserError


def rows(section: Any, name: str) -> dict[str, int]:
  """Rows of each part of a stage's `mixture`, by its share of the batch.

  Raises:
    UserError: the shares are not all of it.
  """
  parts = section.mixture.items()
  total = sum(part.share for _, part in parts)
  if abs(total - 1) > 1e-6:
    raise UserError(f"config.{name}.mixture: the shares add up to {total:g}; make that 1.")
  return {part_name: round(part.share * section.batch) for part_name, part in parts}
