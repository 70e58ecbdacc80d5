import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vfe.train import writers


@pytest.fixture
def no_tensorflow(monkeypatch):
  monkeypatch.setattr(writers, "_SAID", set())
  monkeypatch.setattr(writers, "_metric_writers", lambda: (None, "TensorFlow is not installed"))


def write(folder, steps):
  with writers.JsonWriter(folder) as writer:
    for step in steps:
      writer.scalars(step, {"loss": 1.0 / step})
      writer.scalars(step, {"validation/top1": step})


def steps_of(folder):
  return [line["step"] for line in writers.read_scalars(folder / writers.FILE)]


def test_numbers_come_back(tmp_path):
  with writers.JsonWriter(tmp_path) as writer:
    writer.scalars(3, {"loss": jnp.float32(0.5), "n": np.int64(2), "bad": float("nan")})
    writer.scalars(4, {"loss": np.array([math.inf])})
  text = (tmp_path / writers.FILE).read_text()
  assert "NaN" not in text and "Infinity" not in text  # every line is JSON to any reader
  first, second = writers.read_scalars(tmp_path / writers.FILE)
  assert (first["step"], first["loss"], first["n"]) == (3, 0.5, 2) and math.isnan(first["bad"])
  assert second["loss"] == math.inf and first["time"] <= second["time"]


def test_a_resumed_run_supersedes_the_lines_that_come_again(tmp_path):
  write(tmp_path, [10, 20, 30])
  before = (tmp_path / writers.FILE).read_text()
  write(tmp_path, [20, 30, 40])  # killed after 30, resumed from a checkpoint at 10
  assert (tmp_path / writers.FILE).read_text().startswith(before)
  assert steps_of(tmp_path) == [10, 10, 20, 20, 30, 30, 40, 40]
  write(tmp_path, [50])  # resumed from 40, nothing comes again
  assert steps_of(tmp_path)[-4:] == [40, 40, 50, 50]
  assert (tmp_path / writers.FILE).read_text().count("superseded") == 1


def test_a_line_that_a_kill_has_torn_is_left_out(tmp_path):
  write(tmp_path, [10])
  with (tmp_path / writers.FILE).open("a") as file:
    file.write('{"step": 20, "lo')
  write(tmp_path, [20])
  assert steps_of(tmp_path) == [10, 10, 20, 20]


def test_pictures_are_files(tmp_path):
  pictures = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
  with writers.JsonWriter(tmp_path) as writer:
    writer.images(20, {"reconstruction": pictures, "one": jnp.asarray(pictures[0])})
  row = np.asarray(Image.open(tmp_path / "images" / "reconstruction" / "00000020.png"))
  assert row.shape == (4, 3 * 5 + 2 * 2, 3)
  for i in range(3):
    np.testing.assert_array_equal(row[:, i * 7 :][:, :5], pictures[i])
  one = np.asarray(Image.open(tmp_path / "images" / "one" / "00000020.png"))
  np.testing.assert_array_equal(one, pictures[0])


def test_the_memory_of_a_program_is_written_down(tmp_path):
  compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
  with writers.JsonWriter(tmp_path) as writer:
    writer.memory(compiled)
  sizes = json.loads((tmp_path / "texts" / "memory.txt").read_text())
  assert sizes["argument_bytes"] == 8 * 8 * 4 and sizes["temp_bytes"] >= 0


def test_without_tensorflow_there_are_json_lines_and_it_is_said_once(tmp_path, no_tensorflow):
  said = []
  for stage in ("a", "b"):
    with writers.make_writer(tmp_path / stage, said.append) as writer:
      writer.scalars(1, {"loss": 1.0})
      writer.text(0, {"config": "x"})
    assert steps_of(tmp_path / stage) == [1]
  assert said == [
    "metrics go to metrics.jsonl only, not to TensorBoard: TensorFlow is not installed"
  ]


def test_other_processes_write_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with writers.make_writer(tmp_path / "a", print) as writer:
    writer.scalars(1, {"loss": 1.0})
    writer.images(1, {"x": np.zeros((2, 2, 3), np.uint8)})
    writer.memory(jax.jit(lambda x: x).lower(1.0).compile())
    writer.flush()
  assert not (tmp_path / "a").exists()


def test_all_writers_get_everything():
  class Recorder(writers.Writer):
    def __init__(self):
      self.got = []

    def scalars(self, step, values):
      self.got.append((step, values))

    def close(self):
      self.got.append("closed")

  recorders = [Recorder(), Recorder()]
  with writers.MultiWriter(recorders) as writer:
    writer.scalars(1, {"a": 2.0})
  assert [r.got for r in recorders] == [[(1, {"a": 2.0}), "closed"]] * 2


def test_parameter_table_takes_shapes_and_no_tensorflow():
  loaded = "tensorflow" in sys.modules
  params = jax.eval_shape(lambda: {"encoder": {"kernel": jnp.zeros((3, 4))}})
  table = writers.parameter_table(params)
  assert "encoder/kernel" in table and "Total: 12 -- 48 bytes" in table
  assert ("tensorflow" in sys.modules) == loaded


@pytest.mark.slow
def test_tensorboard_files_where_tensorflow_is(tmp_path):
  pytest.importorskip("tensorflow")
  with writers.make_writer(tmp_path, print) as writer:
    writer.scalars(1, {"loss": jnp.float32(0.5)})
    writer.images(1, {"x": np.zeros((2, 4, 4, 3), np.uint8)})
    writer.text(1, {"config": "x"})
  assert list(tmp_path.glob("events.out.tfevents.*"))
