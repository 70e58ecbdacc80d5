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
from vfe.interop import beit, bert, clip, siglip, towers, vit, vivit
from vfe.models import pretrained
from vfe.models.fused_text import FusedText
from vfe.models.text import TextConfig
from vfe.models.vivit import PIXELS, Encoder, EncoderConfig
from vfe.nn.blocks import ACTIVATIONS
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import tubelets

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
TOWERS = GOLDEN / "hf_towers"
CASE = runpy.run_path(str(GOLDEN / "make_hf_towers.py"))
READERS = {
  "vit": vit, "vit_imagenet": vit, "clip": clip, "siglip": siglip, "vivit": vivit, "bert": bert,
  "beit": beit, "beit_mean": beit, "beit_shared": beit,
}  # fmt: skip
SIZES = {"siglip": 18, "beit": 32, "beit_mean": 32, "beit_shared": 32}  # 16 of the others


def encoded(name):
  """Our tokens of the video that transformers saw, and the parameters."""
  _, model, params = READERS[name].read_export(TOWERS / name)
  config = EncoderConfig.from_dict(model["encoder"])
  video = CASE["video"](config.frames, SIZES.get(name, 16))
  patches = tubelets(jnp.asarray(video[:, :, : config.size, : config.size]), config.layout)
  run = jax.jit(Encoder(config).apply)
  tokens = run({"params": params["encoder"]}, patches, everything(2, config.layout.size))
  return np.asarray(tokens), params


def normed(x, norm, eps=1e-12):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * norm["scale"] + norm["bias"]


@pytest.mark.parametrize("name", [name for name in READERS if name != "bert"])
def test_tokens_are_those_of_transformers(name):
  """vit_imagenet: from several files, without biases, pixels as its image processor has them."""
  golden = np.load(TOWERS / f"{name}.npz")
  tokens, params = encoded(name)
  np.testing.assert_allclose(tokens, golden["tokens"], atol=1e-4, rtol=1e-4)
  if "pooled" in golden:
    is_mean = "pool_norm" in params
    pooled = normed(tokens[:, 1:].mean(1), params["pool_norm"]) if is_mean else tokens[:, 0]
    np.testing.assert_allclose(pooled, golden["pooled"], atol=1e-4, rtol=1e-4)


def test_what_of_beit_is_a_parameter():
  """Of a model without layer scales there are none; of the mean's norm, none of the tokens'."""
  _, model, params = beit.read_export(TOWERS / "beit")
  blocks = params["encoder"]["blocks"]
  assert blocks["relative"].shape == (2, 7 * 7 + 3, 2)
  assert blocks["attention_scale"].shape == blocks["mlp_scale"].shape == (2, 24)
  assert model["encoder"]["layer_scale"] == 0.1 and "pool_norm" not in params
  _, model, params = beit.read_export(TOWERS / "beit_mean")
  assert model["encoder"]["layer_scale"] == 0 and "norm" not in params["encoder"]
  assert not {"attention_scale", "mlp_scale"} & params["encoder"]["blocks"].keys()


def test_a_table_for_all_layers_of_beit_becomes_each_layers_own(tmp_path):
  folder = change("beit_shared", tmp_path / "pt22k", use_relative_position_bias=False)
  relative = beit.read_export(folder)[2]["encoder"]["blocks"]["relative"]
  table = load_file(folder / "model.safetensors")[
    "encoder.relative_position_bias.relative_position_bias_table"
  ]
  np.testing.assert_array_equal(relative, np.stack([table, table]))


def test_logits_of_words_are_those_of_transformers():
  """BERT's head of masked words, at transformers' own tokens; the parameters are all there are."""
  golden, (ids, mask) = np.load(TOWERS / "bert.npz"), CASE["texts"]()
  _, model, params = bert.read_export(TOWERS / "bert")
  module = FusedText(TextConfig.from_dict(model["text"]), fused=1, video_width=8)
  video = jnp.zeros((4, 2, 8))
  made = dict(jax.eval_shape(module.init, jax.random.key(0), ids, mask, video)["params"])
  cross = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), made.pop("cross"))
  given = {**params["text"], "head": params["head"]}
  assert jax.tree.map(np.shape, given) == jax.tree.map(np.shape, made)
  words = module.apply(
    {"params": {**given, "cross": cross}}, jnp.asarray(golden["tokens"]), method="words"
  )
  np.testing.assert_allclose(words[mask], golden["words"][mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", READERS)
def test_parameters_are_all_that_the_model_has(name):
  kind, model, params = READERS[name].read_export(TOWERS / name)
  if kind == "text":
    return
  config = EncoderConfig.from_dict(json.loads(json.dumps(model["encoder"])))
  patches = jax.ShapeDtypeStruct((1, 2, config.layout.channels), jnp.uint8)
  selection = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  asked = jax.eval_shape(Encoder(config).init, jax.random.key(0), patches, selection)["params"]
  shape = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)
  assert shape(params["encoder"]) == shape(asked)


def change(name, folder, tensors=lambda tensors: tensors, **fields):
  """A copy of transformers' folder with other tensors and other fields of its config."""
  shutil.copytree(TOWERS / name, folder)
  (folder / "model.safetensors").unlink()
  save_file(tensors(load_file(TOWERS / name / "model.safetensors")), folder / "model.safetensors")
  config = json.loads((folder / "config.json").read_text()) | fields
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def same(a, b):
  return a[:2] == b[:2] and jax.tree.all(jax.tree.map(np.array_equal, a[2], b[2]))


def without(prefix):
  """Only the tensors of a part, as a model saved alone has them."""
  return lambda of: {name.removeprefix(prefix): a for name, a in of.items() if prefix in name}


def below(prefix):
  return lambda of: {prefix + name: a for name, a in of.items()}


@pytest.mark.parametrize(
  "name, tensors",
  [
    ("vit", without("vit.")),
    ("vivit", without("vivit.")),
    ("siglip", below("vision_model.")),
    ("bert", without("bert.")),
    ("beit_mean", without("beit.")),
  ],
)
def test_a_model_alone_and_in_a_larger_one_are_the_same(tmp_path, name, tensors):
  reader, folder = READERS[name], change(name, tmp_path / "other", tensors)
  whole = reader.read_export(TOWERS / name)
  assert ("head" in whole[2]) == (name == "bert")
  whole[2].pop("head", None)
  assert same(reader.read_export(folder), whole)


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_clips_vision_tower_alone(tmp_path, prefix):
  tensors = lambda of: below(prefix)(without("vision_model.")(of))
  config = json.loads((TOWERS / "clip" / "config.json").read_text())["vision_config"]
  folder = change("clip", tmp_path / "alone", tensors, vision_config=None, **config)
  assert json.loads((folder / "config.json").read_text())["model_type"] == "clip_vision_model"
  assert same(clip.read_export(folder), clip.read_export(TOWERS / "clip"))


def test_siglips_vision_tower_in_the_whole_model(tmp_path):
  config = json.loads((TOWERS / "siglip" / "config.json").read_text())
  folder = change(
    "siglip", tmp_path / "whole", below("vision_model."), model_type="siglip", hidden_size=None,
    vision_config=config,
  )  # fmt: skip
  assert same(siglip.read_export(folder), siglip.read_export(TOWERS / "siglip"))


def test_berts_first_names_of_a_norms_parameters(tmp_path):
  def first(name):
    return name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")

  folder = change("bert", tmp_path / "first", lambda of: {first(n): a for n, a in of.items()})
  assert same(bert.read_export(folder), bert.read_export(TOWERS / "bert"))


def test_berts_vocabulary_is_the_folders_tokenizer(tmp_path):
  folder = change("bert", tmp_path / "words")
  assert bert.read_export(folder)[1]["vocabulary"] is None
  for name in ("vocab.txt", "tokenizer.json"):
    (folder / name).touch()
    assert bert.read_export(folder)[1]["vocabulary"] == str(folder / name)


@pytest.mark.parametrize(
  "processor, pixels",
  [
    (None, "half"),
    ({"size": 224}, "half"),
    ({"image_mean": [0.48, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}, "clip"),
    ({"image_mean": 0.5, "image_std": 0.5}, "half"),
    # google/vivit-b-16x2: rescaled to -1..1 and no more.
    ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False, "offset": True},
     "half"),
    ({"image_processor": {"image_mean": [0.485, 0.456, 0.406],
                          "image_std": [0.229, 0.224, 0.225]}}, "imagenet"),
  ],
)  # fmt: skip
def test_pixels_are_those_of_the_image_processor(tmp_path, processor, pixels):
  if processor is not None:
    nested = "image_processor" in processor
    (tmp_path / towers.PROCESSORS[nested]).write_text(json.dumps(processor))
  assert towers.pixels(tmp_path, "half") == pixels


@pytest.mark.parametrize(
  "content, message",
  [
    ('{"image_mean": 0, "image_std": 1}', r"mean \[0.0, 0.0, 0.0\] and deviation \[1.0, "),
    ('{"image_mean": 0.5, "image_std": 0.5, "offset": true}', r"mean \[0.75, 0.75, 0.75\]"),
    ('{"image_mean": 0.5}', "no usable image_mean and image_std .'image_std'"),
    ("[]", "not a JSON object"),
  ],
)
def test_other_pixels_are_named(tmp_path, content, message):
  (tmp_path / "preprocessor_config.json").write_text(content)
  with pytest.raises(UserError, match=message):
    towers.pixels(tmp_path, "half")


def test_names_are_those_of_the_encoder():
  assert towers.PIXELS == PIXELS
  assert set(towers.ACTIVATIONS.values()) == set(ACTIVATIONS)


@pytest.mark.parametrize(
  "name, fields, message",
  [
    ("vit", dict(hidden_act="relu"), r"config.json: hidden_act 'relu'"),
    ("vit", dict(patch_size=[4, 8]), r"config.json: patch_size \[4, 8\], not square"),
    ("vit", dict(image_size=[16, 32]), r"image_size \[16, 32\], not square"),
    ("vit", dict(image_size=18), "image_size 18 with patches of 4"),
    ("vit", dict(num_channels=1), "num_channels 1"),
    ("vit", dict(model_type="bert"), "model_type is 'bert'; give the folder of a 'vit' model"),
    ("vit", dict(num_hidden_layers=3), "no tensor vit.encoder.layer.2.layernorm_before.weight"),
    ("vit", dict(image_size=32), r"position_embeddings has shape \[1, 17, 24\]"),
    ("beit", dict(use_relative_position_bias=False), "no relative position bias is not supp"),
    ("beit", dict(use_shared_relative_position_bias=True), "no tensor beit.encoder.relative_pos"),
    ("beit", dict(use_absolute_position_embeddings=True), "use_absolute_position_embeddings tr"),
    ("beit", dict(image_size=64), r"position_bias_table has shape \[52, 2\]"),
    ("vivit", dict(tubelet_size=[2, 4, 8]), "patches of 4x8, not square"),
    ("vivit", dict(num_frames=5), "num_frames 5 with tubelets of 2 frames"),
    ("clip", dict(model_type="siglip"), "'siglip'; give the folder of a 'clip' or 'clip_vision_"),
    ("siglip", dict(hidden_size=48), r"shape \[16, 24\], config.json makes it \[16, 48\]"),
    ("siglip", dict(num_channels=4), "num_channels 4"),
    ("bert", dict(position_embedding_type="relative_key"), "position_embedding_type 'relative"),
    ("bert", dict(is_decoder=True), "is_decoder True"),
    ("bert", dict(tie_word_embeddings=False), "tie_word_embeddings false"),
    ("bert", dict(vocab_size=60), r"word_embeddings.weight has shape \[50, 24\]"),
  ],
)
def test_a_model_that_does_not_fit_is_one_line_with_the_reason(tmp_path, name, fields, message):
  with pytest.raises(UserError, match=message) as error:
    READERS[name].read_export(change(name, tmp_path / "other", **fields))
  assert "\n" not in str(error.value)


def written(name, folder):
  _, model, params = READERS[name].read_export(TOWERS / name)
  READERS[name].write_export(folder, model, params)
  return load_file(folder / "model.safetensors"), params


@pytest.mark.parametrize("name", ["vit", "vivit", "bert", "beit", "beit_mean"])
def test_what_is_written_are_their_tensors(tmp_path, name):
  """All but linear poolers and heads, of which BERT's of masked words stays. The class token holds
  its position, biases on keys are 0."""
  ours, _ = written(name, tmp_path / "ours")
  whole = load_file(TOWERS / name / "model.safetensors")
  part = whole if name == "bert" else without(name.removesuffix("_mean") + ".")(whole)
  left = ("pooler.dense", "seq_relationship", "mask_token")
  theirs = {n: array for n, array in part.items() if not any(word in n for word in left)}
  assert ours.keys() == theirs.keys()
  moved = ("key.bias", "cls_token", "position_embeddings")
  for tensor, array in theirs.items():
    assert ours[tensor].shape == array.shape
    if not tensor.endswith(moved):
      np.testing.assert_array_equal(ours[tensor], array)
  assert not any(array.any() for n, array in ours.items() if n.endswith("key.bias"))


@pytest.mark.parametrize("name", ["vit", "vit_imagenet", "vivit", "bert", "beit", "beit_mean"])
def test_what_is_written_reads_the_same(tmp_path, name):
  _, before = written(name, tmp_path / "ours")
  _, model, after = READERS[name].read_export(tmp_path / "ours")
  expected = READERS[name].read_export(TOWERS / name)[1]
  if name == "vit_imagenet":  # its image processor is not the reader's or writer's
    expected["encoder"]["pixels"] = "half"
  assert model == expected and jax.tree.all(jax.tree.map(np.array_equal, before, after))
  config, theirs = (
    json.loads((f / "config.json").read_text()) for f in (tmp_path / "ours", TOWERS / name)
  )
  shared = (config.keys() & theirs.keys()) - {"architectures", "qkv_bias"}
  assert len(shared) > 9 and all(config[field] == theirs[field] for field in shared)


@pytest.mark.parametrize(
  "name, writer, message",
  [
    ("clip", vit, "transformers' ViT has no pre_norm True"),
    ("siglip", vit, "transformers' ViT has no encoder without a class token"),
    ("vivit", vit, "transformers' ViT has no clips of 4 frames"),
    ("vivit", beit, "transformers' BEiT has no positions 'learned'"),
  ],
)
def test_what_transformers_does_not_have_is_not_written(tmp_path, name, writer, message):
  _, model, params = READERS[name].read_export(TOWERS / name)
  with pytest.raises(UserError, match=message):
    writer.write_export(tmp_path / "never", model, params)
  assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(frames=4), "clips of 4 frames"),
    (dict(pruning=dict(after=[1], keep=0.5, by="random")), "pruning {'after'"),
    (dict(cls=False), "cls False"),
    ({}, "norm of the tokens and one of their mean"),
  ],
)
def test_beits_that_transformers_does_not_have_are_not_written(tmp_path, fields, message):
  _, model, params = beit.read_export(TOWERS / "beit")
  model = {"encoder": model["encoder"] | fields}
  params |= {} if fields else {"pool_norm": params["encoder"]["norm"]}
  with pytest.raises(UserError, match=message):
    beit.write_export(tmp_path / "never", model, params)
  assert not (tmp_path / "never").exists()


def test_load_opens_them_by_model_type():
  for name, reader in READERS.items():
    export = pretrained.read_hugging_face(TOWERS / name)
    assert same((export.kind, export.model, export.params), reader.read_export(TOWERS / name))
