import json
import pathlib
import runpy
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vfe.errors import UserError
from vfe.interop import videomae
from vfe.models.classifier import Classifier
from vfe.models.mae import MAE, DecoderConfig, masked_mse, pixel_targets
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets, tubelets

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
THEIRS = GOLDEN / "videomae" / "theirs"
CASE = runpy.run_path(str(GOLDEN / "make_videomae.py"))
VIDEO, VISIBLE = jnp.asarray(CASE["video"]()), jnp.asarray(CASE["visible"]())
ASKED = jnp.asarray(np.nonzero(CASE["masked"]())[1].reshape(2, -1), jnp.int32)


def outputs(model, params):
  """What transformers' outputs are compared with, as one program."""
  encoder, decoder = EncoderConfig.from_dict(model["encoder"]), DecoderConfig(**model["decoder"])
  layout = encoder.layout
  patches = gather_tubelets(VIDEO, layout, VISIBLE)
  mae = MAE(encoder, decoder, model["target_dim"])

  @jax.jit
  def compute(params):
    encode = lambda *args: Encoder(encoder).apply({"params": params["encoder"]}, *args)
    predicted = mae.apply({"params": params}, patches, VISIBLE, ASKED)
    target = pixel_targets(VIDEO, layout, ASKED)
    total, weight = masked_mse(predicted, target, jnp.ones(ASKED.shape))
    return {
      "encoded": encode(patches, VISIBLE),
      "everything": encode(tubelets(VIDEO, layout), everything(2, layout.size)),
      "predicted": predicted,
      "loss": total / weight,
    }

  return compute(params)


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_encoder_decoder_and_loss_are_those_of_transformers(whose):
  """On weights that transformers wrote and we read, and on those that it read from our folder."""
  if whose == "theirs":
    _, model, params = videomae.read_export(THEIRS)
  else:
    _, model, params = CASE["models"]()["mae"]
  golden = np.load(GOLDEN / "videomae" / f"{whose}.npz")
  for name, value in outputs(model, params).items():
    np.testing.assert_allclose(value, golden[name], atol=1e-4, rtol=1e-4, err_msg=name)


def test_classifier_is_that_of_transformers():
  _, model, params = CASE["models"]()["classifier"]
  encoder = EncoderConfig.from_dict(model["encoder"])
  logits = jax.jit(Classifier(encoder, model["heads"]).apply)(
    {"params": params}, tubelets(VIDEO, encoder.layout), everything(2, encoder.layout.size)
  )
  golden = np.load(GOLDEN / "videomae" / "ours.npz")["logits"]
  np.testing.assert_allclose(logits["label"], golden, atol=1e-4, rtol=1e-4)


def test_what_is_read_and_written_again_is_bitwise_the_same(tmp_path):
  videomae.write_export(tmp_path / "again", *videomae.read_export(THEIRS))
  before, after = (load_file(f / "model.safetensors") for f in (THEIRS, tmp_path / "again"))
  assert before.keys() == after.keys()
  for name in before:
    np.testing.assert_array_equal(before[name], after[name])
  theirs, ours = (json.loads((f / "config.json").read_text()) for f in (THEIRS, tmp_path / "again"))
  shared = theirs.keys() & ours.keys()
  assert {"hidden_size", "layer_norm_eps", "use_mean_pooling"} <= shared
  assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


@pytest.mark.parametrize("name", ["mae", "classifier", "encoder"])
def test_what_is_written_and_read_again_is_the_same_export(tmp_path, name):
  kind, model, params = CASE["models"]()["mae" if name == "encoder" else name]
  if name == "encoder":
    kind, model, params = name, {"encoder": model["encoder"]}, {"encoder": params["encoder"]}
  videomae.write_export(tmp_path, kind, model, params)
  again = videomae.read_export(tmp_path)
  final_norm = name != "classifier"  # mean pooling leaves it out
  expected = {**model, "encoder": {**model["encoder"], "final_norm": final_norm}}
  assert again[:2] == (kind, expected)
  assert jax.tree.all(jax.tree.map(np.array_equal, again[2], params))


def change(folder, tensors=lambda tensors: tensors, **config):
  """A copy of transformers' folder with other tensors and other fields of its config."""
  shutil.copytree(THEIRS, folder)
  changed = tensors(load_file(THEIRS / "model.safetensors"))
  save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
  fields = json.loads((THEIRS / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(fields | config))
  return folder


def test_biases_by_their_later_names(tmp_path):
  rename = lambda name: name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")
  folder = change(tmp_path / "later", lambda t: {rename(name): a for name, a in t.items()})
  later, published = videomae.read_export(folder)[2], videomae.read_export(THEIRS)[2]
  assert jax.tree.all(jax.tree.map(np.array_equal, later, published))


def test_a_model_without_query_and_value_biases_has_zeros_there(tmp_path):
  drop = lambda t: {name: a for name, a in t.items() if not name.endswith(("q_bias", "v_bias"))}
  _, _, params = videomae.read_export(change(tmp_path / "none", drop, qv_bias=False))
  attention = params["encoder"]["blocks"]["attention"]
  assert not attention["query"]["bias"].any() and not attention["value"]["bias"].any()


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(hidden_act="relu"), "hidden_act 'relu'"),
    (dict(num_channels=1), "num_channels 1"),
    (dict(image_size=[16, 32]), r"image_size \(16, 32\)"),
    (dict(model_type="vit"), "model_type is 'vit'"),
    (dict(hidden_size=48), r"shape \[24, 3, 2, 4, 4\], config.json makes it \[48, 3, 2, 4, 4\]"),
    (dict(num_hidden_layers=3), "no tensor videomae.encoder.layer.2.layernorm_before.weight"),
  ],
)
def test_a_model_that_does_not_fit_is_one_line_with_the_reason(tmp_path, fields, message):
  with pytest.raises(UserError, match=message) as error:
    videomae.read_export(change(tmp_path / "other", **fields))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "name, changes, message",
  [
    ("mae", dict(target="latent"), "target 'latent'"),
    ("classifier", dict(pool="attentive"), "pool 'attentive'"),
    ("classifier", dict(heads={"verb": 3, "noun": 2}), "2 heads, verb, noun"),
    ("mae", dict(encoder=CASE["ENCODER"] | dict(positions="sincos3d")), "positions 'sincos3d'"),
    ("mae", dict(encoder=CASE["ENCODER"] | dict(cls=True)), "cls True"),
    ("mae", dict(decoder=CASE["DECODER"] | dict(norm_eps=1e-5)), "norm_eps of its own"),
  ],
)
def test_what_transformers_does_not_have_is_not_written(tmp_path, name, changes, message):
  kind, model, params = CASE["models"]()[name]
  with pytest.raises(UserError, match=message):
    videomae.write_export(tmp_path / "never", kind, model | changes, params)
  assert not (tmp_path / "never").exists()
