import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vfe.errors import UserError
from vfe.interop import safetensors

TENSORS = {"first": np.float32([[1, 2], [3, 4]]), "second": np.float32([0.5])}


@pytest.fixture
def whole(tmp_path):
  safetensors.write(tmp_path / "model", {"model_type": "toy"}, TENSORS)
  return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path):
  for name, tensor in TENSORS.items():
    save_file({name: tensor}, tmp_path / f"{name}.safetensors")
  index = {"weight_map": {name: f"{name}.safetensors" for name in TENSORS}}
  (tmp_path / safetensors.INDEX).write_text(json.dumps(index))
  return tmp_path


@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_all_tensors_come_back(layout, request):
  weights = safetensors.Weights(request.getfixturevalue(layout))
  assert weights.names == set(TENSORS)
  for name, tensor in TENSORS.items():
    np.testing.assert_array_equal(weights.take(name, tensor.shape), tensor)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
  save_file({"a": np.asarray([1.5, -2.0], dtype)}, tmp_path / safetensors.WHOLE)
  taken = safetensors.Weights(tmp_path).take("a", (2,))
  assert taken.dtype == np.float32 and taken.tolist() == [1.5, -2.0]


def test_missing_and_misshapen_tensors_are_named(whole):
  weights = safetensors.Weights(whole)
  with pytest.raises(UserError, match=r"no tensor secnd in it \(nearest: second\)"):
    weights.take("secnd", (1,))
  with pytest.raises(UserError, match=r"second has shape \[1\], config.json makes it \[2\]"):
    weights.take("second", (2,))


def test_a_missing_shard_is_named(sharded):
  (sharded / "second.safetensors").unlink()
  with pytest.raises(UserError, match=r"second.*: missing"):
    safetensors.Weights(sharded)


def test_a_folder_without_weights_says_what_it_has_instead(tmp_path):
  with pytest.raises(UserError, match=r"neither .* nor"):
    safetensors.Weights(tmp_path)
  (tmp_path / "pytorch_model.bin").touch()
  with pytest.raises(UserError, match=r"it has .*: save the model again"):
    safetensors.Weights(tmp_path)


def test_a_truncated_file_is_named(whole):
  path = whole / safetensors.WHOLE
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(UserError, match="not a whole safetensors file"):
    safetensors.Weights(whole)


def test_config_is_checked(whole, tmp_path):
  assert safetensors.read_config(whole, "toy") == {"model_type": "toy"}
  with pytest.raises(UserError, match="model_type is 'toy'; give the folder"):
    safetensors.read_config(whole, "videomae")
  with pytest.raises(UserError, match="no config"):
    safetensors.read_config(tmp_path, "toy")
  (whole / safetensors.CONFIG).write_text("{")
  with pytest.raises(UserError, match="not JSON"):
    safetensors.read_config(whole, "toy")


def test_nothing_is_written_over(whole):
  with pytest.raises(UserError, match="already there"):
    safetensors.write(whole, {}, TENSORS)
