"""Which clips stored targets fit."""

from typing import Any

from vfe import config as configs
from vfe.errors import UserError
from vfe.learn.exports import Export


def check_stored(name: str, data: Any, stored: Export) -> None:
  """Stored targets are of one crop and of windows that start at multiples of their length.

  Raises:
    UserError: the data config `data` of stage `name` asks for other clips.
  """
  place, window = f"config.{name}.data", stored.model["window"]
  if data.augment.kind != "center":
    raise UserError(
      f"{place}.augment.kind={data.augment.kind!r}: stored targets are of the centre crop; use "
      f"'center', or give config.{name}.inputs.tokenizer in place of inputs.targets."
    )
  if (data.sampling.kind, data.sampling.stride, data.sampling.fps) != ("strided", 1, 0):
    raise UserError(
      f"{place}.sampling={data.sampling.kind}, stride {data.sampling.stride}, fps "
      f"{data.sampling.fps:g}: stored targets are of consecutive frames; use 'strided' with stride "
      "1 and fps 0, or inputs.tokenizer."
    )
  if data.sampling.align % window:
    raise UserError(
      f"{place}.sampling.align={data.sampling.align}: clips with stored targets start at "
      f"multiples of {window} frames; use align={window}."
    )
  if data.frames % window:
    below = data.frames // window * window
    raise UserError(
      f"{place}.frames={data.frames} is not divisible by the tokenizer's window of {window} "
      f"frames; use {below or window} or {below + window}."
    )
  changed = configs.differences(stored.model["data"], stored_data(data))
  if changed:
    raise UserError(f"{place} is not what the targets were stored for ({'; '.join(changed)}).")


def stored_data(data: Any) -> dict[str, Any]:
  """The part of a data config that stored targets are of."""
  fields = ("source", "path", "eval_path", "variant", "size", "max_pixels", "tabletop")
  return configs.plain({key: data.to_dict()[key] for key in fields})
