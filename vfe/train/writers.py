"""Where metrics, pictures and texts go: JSON lines always, TensorBoard where TensorFlow is.

    with make_writer(workdir, say) as writer:
      writer.scalars(step, {"loss": 0.5})

JSON lines (`metrics.jsonl`) are only ever appended to. A run that was killed goes on from a
checkpoint before its last line, so its first line comes again: before it stands
`{"superseded": s}`, which takes back all lines of step s and later. `read_scalars` applies that.
"""

import functools
import importlib.util
import json
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from PIL import Image

FILE = "metrics.jsonl"
_SAID: set[str] = set()
MEMORY = ("argument", "output", "alias", "temp", "generated_code")


class Writer:
  """What a writer takes; this one keeps nothing (as on every process but the first)."""

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    """Numbers by name, of the state after `step` updates; arrays of one element do too."""

  def images(self, step: int, values: Mapping[str, Any]) -> None:
    """Pictures by name: uint8[H,W,3], or uint8[n,H,W,3] which are laid side by side."""

  def text(self, step: int, values: Mapping[str, str]) -> None:
    """Texts by name."""

  def flush(self) -> None:
    """Until everything is in its file; a remote one is uploaded here, so call it with a save."""

  def close(self) -> None:
    """Flushes and closes the files."""

  def memory(self, compiled: jax.stages.Compiled) -> None:
    """What the compiler says of the memory of a program, as a text."""
    found = compiled.memory_analysis()
    if found is not None:
      sizes = {name: getattr(found, f"{name}_size_in_bytes") for name in MEMORY}
      self.text(0, {"memory": json.dumps({f"{k}_bytes": v for k, v in sizes.items()}, indent=2)})

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


class MultiWriter(Writer):
  """Hands everything to each of several."""

  def __init__(self, writers: Sequence[Writer]):
    self._writers = tuple(writers)

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    for writer in self._writers:
      writer.scalars(step, values)

  def images(self, step: int, values: Mapping[str, Any]) -> None:
    for writer in self._writers:
      writer.images(step, values)

  def text(self, step: int, values: Mapping[str, str]) -> None:
    for writer in self._writers:
      writer.text(step, values)

  def flush(self) -> None:
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


class JsonWriter(Writer):
  """`metrics.jsonl`, pictures as `images/<name>/<step>.png`, texts as `texts/<name>.txt`.

  In a remote workdir the lines grow in a local file, which `flush` uploads whole.
  """

  def __init__(self, workdir: Any):
    self._workdir = epath.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._target = self._workdir / FILE
    self._local = self._local_file()
    before = self._local.read_text() if self._local.exists() else ""
    self._last: int | None = max((line["step"] for line in _parse(before)), default=None)
    self._file = self._local.open("a", encoding="utf-8")
    if before and not before.endswith("\n"):  # The process was killed in the middle of a line.
      self._file.write("\n")

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    if self._last is not None and step <= self._last:
      self._line({"superseded": step})
    self._last = None  # Asked at the first line only: of a step there may be several lines.
    self._line({"step": step, "time": round(time.time(), 3), **_numbers(values)})

  def images(self, step: int, values: Mapping[str, Any]) -> None:
    for name, pictures in values.items():
      folder = self._workdir / "images" / name
      folder.mkdir(parents=True, exist_ok=True)
      with (folder / f"{step:08}.png").open("wb") as file:
        Image.fromarray(side_by_side(np.asarray(pictures))).save(file, format="PNG")

  def text(self, step: int, values: Mapping[str, str]) -> None:
    for name, value in values.items():
      path = self._workdir / "texts" / f"{name}.txt"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(value + "\n")

  def flush(self) -> None:
    self._file.flush()
    if self._is_remote():
      self._target.write_bytes(self._local.read_bytes())

  def close(self) -> None:
    self.flush()
    self._file.close()

  def _line(self, record: Mapping[str, Any]) -> None:
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()  # A killed run keeps its history.

  def _is_remote(self) -> bool:
    return "://" in str(self._workdir)

  def _local_file(self) -> pathlib.Path:
    if not self._is_remote():
      return pathlib.Path(self._target)
    local = pathlib.Path(tempfile.mkdtemp(prefix="vfe-")) / FILE
    if self._target.exists():
      local.write_bytes(self._target.read_bytes())
    return local


class TensorBoardWriter(Writer):
  """CLU's TensorBoard event files in the workdir. Needs TensorFlow; see `tensorboard`."""

  def __init__(self, workdir: Any, metric_writers: Any):
    self._writer = metric_writers.SummaryWriter(str(workdir))

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    self._writer.write_scalars(step, {name: float(value) for name, value in values.items()})

  def images(self, step: int, values: Mapping[str, Any]) -> None:
    self._writer.write_images(step, {name: np.asarray(value) for name, value in values.items()})

  def text(self, step: int, values: Mapping[str, str]) -> None:
    self._writer.write_texts(step, values)

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def make_writer(
  workdir: Any, say: Callable[[str], None], *, use_tensorboard: bool = True
) -> Writer:
  """The writers of a stage: JSON lines, and TensorBoard where it can be; none but on process 0.

  Args:
    workdir: the stage's folder.
    say: takes the line that says, once in a process, why TensorBoard files are not written.
    use_tensorboard: false does without them, and without TensorFlow's seconds of importing.
  """
  if jax.process_index() != 0:
    return Writer()
  writers: list[Writer] = [JsonWriter(workdir)]
  if use_tensorboard:
    module, reason = _metric_writers()
    if module is not None:
      writers.append(TensorBoardWriter(workdir, module))
    elif reason not in _SAID:
      _SAID.add(reason)
      say(f"metrics go to {FILE} only, not to TensorBoard: {reason}")
  return MultiWriter(writers)


def read_scalars(path: Any) -> list[dict[str, Any]]:
  """The lines of a `metrics.jsonl` that count, in order, each step as it was run last.

  Lines that a kill has torn are left out; "nan", "inf" and "-inf" are numbers again.
  """
  lines = _parse(epath.Path(path).read_text())
  number = lambda value: float(value) if isinstance(value, str) else value
  return [{name: number(value) for name, value in line.items()} for line in lines]


def _parse(text: str) -> list[dict[str, Any]]:
  lines: list[dict[str, Any]] = []
  for raw in text.splitlines():
    try:
      line = json.loads(raw)
    except json.JSONDecodeError:
      continue
    if "superseded" in line:
      lines = [before for before in lines if before["step"] < line["superseded"]]
    elif "step" in line:
      lines.append(line)
  return lines


def side_by_side(pictures: np.ndarray, gap: int = 2) -> np.ndarray:
  """uint8[n,H,W,3] as one white-ruled row, uint8[H,n*W+(n-1)*gap,3]; uint8[H,W,3] as it is."""
  if pictures.ndim == 3:
    return pictures
  count, height, width, channels = pictures.shape
  row = np.full((height, count * (width + gap) - gap, channels), 255, np.uint8)
  for i, picture in enumerate(pictures):
    row[:, i * (width + gap) :][:, :width] = picture
  return row


def parameter_table(params: Any) -> str:
  """CLU's overview: name, shape, type and size of every parameter, and the sum. Or of shapes."""
  from clu import parameter_overview  # imports flax: not needed to read metrics

  return parameter_overview.get_parameter_overview(params, include_stats=False)


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
  """Plain JSON has no NaN: what is not finite becomes its name."""
  numbers = {}
  for name, value in values.items():
    number = np.asarray(value).item()
    numbers[name] = number if math.isfinite(number) else str(number)
  return numbers


@functools.cache
def _metric_writers() -> tuple[Any, str]:
  """CLU's module, or None and why not."""
  if importlib.util.find_spec("tensorflow") is None:
    return None, "TensorFlow is not installed"
  try:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else it tells of itself at every start,
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # of this too; it only writes files here
    import tensorflow as tf
    from clu import metric_writers
  except Exception as error:  # A broken installation raises anything at all.
    reason = re.sub(r"\s+", " ", str(error))[:120]
    return None, f"TensorFlow is installed but does not import ({reason})"
  for kind in ("GPU", "TPU"):  # They are JAX's: TensorFlow would take their memory.
    tf.config.set_visible_devices([], kind)
  return metric_writers, ""
