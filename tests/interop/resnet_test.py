import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from vfe.errors import UserError
from vfe.interop.resnet import read_export
from vfe.models.resnet import ResNet, ResNetConfig

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "resnet.npz")
CONFIGS = {  # as in golden/make_resnet.py
  "bottleneck": dict(embedding_size=8, hidden_sizes=[16, 32, 64], depths=[2, 1, 2]),
  "basic": dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
}


def write(folder, name, **changed):
  """The golden model as a folder; batch counters and all, as transformers writes it."""
  prefix = f"{name}/tensors/"
  names = [key.removeprefix(prefix) for key in GOLDEN.files if key.startswith(prefix)]
  save_file({key: GOLDEN[prefix + key] for key in names}, folder / "model.safetensors")
  labels = {str(i): f"LABEL_{i}" for i in range(10)}
  config = {"model_type": "resnet", "id2label": labels, **CONFIGS[name], **changed}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name, tmp_path):
  kind, model, params = read_export(write(tmp_path, name))
  images = GOLDEN[f"{name}/images"].transpose(0, 2, 3, 1)
  logits = jax.jit(ResNet(ResNetConfig(**model)).apply)({"params": params}, images)
  assert kind == "resnet"
  np.testing.assert_allclose(logits, GOLDEN[f"{name}/logits"], rtol=1e-4, atol=1e-4)


def test_pixel_statistics_come_from_the_preprocessor(tmp_path):
  folder = write(tmp_path, "basic")
  _, model, _ = read_export(folder)
  assert "mean" not in model and ResNetConfig(**model).mean == ResNetConfig().mean
  statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
  (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
  _, model, _ = read_export(folder)
  assert ResNetConfig(**json.loads(json.dumps(model))).std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"model_type": "vit"}, "model_type is 'vit'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
    ({"depths": [1, 3]}, r"no tensor resnet\.encoder\.stages\.1\.layers\.2"),
    ({"hidden_sizes": [8, 32]}, "has shape"),
  ],
)
def test_a_folder_that_does_not_fit_is_a_user_error(changed, message, tmp_path):
  with pytest.raises(UserError, match=message):
    read_export(write(tmp_path, "basic", **changed))
