"""Exports: what is written is read, what was changed is noticed."""

import json

import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn import exports

PARAMS = {
  "encoder": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
  "b": np.zeros(2, np.float32),
}


def test_an_export_is_read_as_it_was_written(tmp_path):
  written = exports.write(tmp_path / "export", "mae", {"encoder": {"width": 3}}, PARAMS)
  read = exports.read(tmp_path / "export")
  assert (read.kind, read.model, read.digest) == ("mae", {"encoder": {"width": 3}}, written.digest)
  np.testing.assert_array_equal(read.params["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
  assert not list(tmp_path.glob("*.partial"))


def test_the_digest_sees_names_shapes_types_and_values():
  base = exports.digest(PARAMS)
  kernel = PARAMS["encoder"]["kernel"]
  others = [
    {"decoder": PARAMS["encoder"], "b": PARAMS["b"]},
    {"encoder": {"kernel": kernel.reshape(3, 2)}, "b": PARAMS["b"]},
    {"encoder": {"kernel": kernel.astype(np.float64)}, "b": PARAMS["b"]},
    {"encoder": {"kernel": kernel + 1}, "b": PARAMS["b"]},
  ]
  assert len({base, *map(exports.digest, others)}) == 5


def test_parameters_other_than_those_written_are_refused(tmp_path):
  exports.write(tmp_path / "export", "mae", {}, PARAMS)
  file = tmp_path / "export" / exports.FILE
  file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": "0" * 16}))
  with pytest.raises(UserError, match="not those it was written with"):
    exports.read(tmp_path / "export")


def test_a_folder_without_an_export_says_so(tmp_path):
  with pytest.raises(UserError, match=r"no export\.json in it"):
    exports.read(tmp_path)
