"""Hugging Face VideoMAE folders and our parameters, in both directions.

Three of transformers' models: VideoMAEModel, VideoMAEForPreTraining and
VideoMAEForVideoClassification (with mean pooling). Published weights name the biases q_bias and
v_bias, some versions of transformers wrote query.bias and value.bias: both are read, the
published names are written, which every version loads.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vfe.errors import UserError
from vfe.interop import safetensors

# Their name, ours, their shape in letters: d width, m mlp, e encoder width, p values of a
# tubelet, k classes, t h w tubelet, 3 colours. "kernel" is "weight" with its axes reversed.
BLOCK = (
  ("layernorm_before.weight", "attention_norm/scale", "d"),
  ("layernorm_before.bias", "attention_norm/bias", "d"),
  ("attention.attention.query.weight", "attention/query/kernel", "dd"),
  ("attention.attention.q_bias", "attention/query/bias", "d"),
  ("attention.attention.key.weight", "attention/key/kernel", "dd"),
  ("attention.attention.value.weight", "attention/value/kernel", "dd"),
  ("attention.attention.v_bias", "attention/value/bias", "d"),
  ("attention.output.dense.weight", "attention/out/kernel", "dd"),
  ("attention.output.dense.bias", "attention/out/bias", "d"),
  ("layernorm_after.weight", "mlp_norm/scale", "d"),
  ("layernorm_after.bias", "mlp_norm/bias", "d"),
  ("intermediate.dense.weight", "mlp/up/kernel", "md"),
  ("intermediate.dense.bias", "mlp/up/bias", "m"),
  ("output.dense.weight", "mlp/down/kernel", "dm"),
  ("output.dense.bias", "mlp/down/bias", "d"),
)
EMBED = (
  ("embeddings.patch_embeddings.projection.weight", "embed/kernel", "d3thw"),
  ("embeddings.patch_embeddings.projection.bias", "embed/bias", "d"),
)
NORM = (("layernorm.weight", "norm/scale", "d"), ("layernorm.bias", "norm/bias", "d"))
DECODER = (
  ("encoder_to_decoder.weight", "project/kernel", "de"),
  ("mask_token", "mask_token", "11d"),
  ("decoder.norm.weight", "norm/scale", "d"),
  ("decoder.norm.bias", "norm/bias", "d"),
  ("decoder.head.weight", "head/kernel", "pd"),
  ("decoder.head.bias", "head/bias", "p"),
)
CLASSIFIER = (
  ("fc_norm.weight", "pool/norm/scale", "d"),
  ("fc_norm.bias", "pool/norm/bias", "d"),
  ("classifier.weight", "head_{head}/kernel", "kd"),
  ("classifier.bias", "head_{head}/bias", "k"),
)
# What an encoder has that theirs can hold, where ours can be otherwise.
THEIRS = dict(
  positions="sincos1d", mixing="joint", cls=False, pre_norm=False, activation="gelu", images=False,
  adapter=0, lora=0, layer_scale=0.0, edges=None, pruning=None,
)  # fmt: skip
LATER_NAMES = {"q_bias": "query.bias", "v_bias": "value.bias"}

ARCHITECTURES = {
  "encoder": "VideoMAEModel",
  "mae": "VideoMAEForPreTraining",
  "classifier": "VideoMAEForVideoClassification",
}

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  image_size=224, patch_size=16, num_channels=3, num_frames=16, tubelet_size=2, hidden_size=768,
  num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu",
  layer_norm_eps=1e-12, qv_bias=True, use_mean_pooling=True, decoder_num_attention_heads=6,
  decoder_hidden_size=384, decoder_num_hidden_layers=4, decoder_intermediate_size=1536,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], Any]:
  """A folder as (kind, model, params) of an export; its tensors' names show what it is.

  kind is a name in `ARCHITECTURES`. model["encoder"] and, of a "mae", model["decoder"] are the
  fields of `vfe.models.vivit.EncoderConfig` and `vfe.models.mae.DecoderConfig`; a "classifier"
  has one head, "label". params are numpy float32, model["encoder"]'s under params["encoder"].

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a VideoMAE we have no model
      for.
  """
  config = DEFAULTS | safetensors.read_config(folder, "videomae")
  config["qv_bias"] = config.get("qkv_bias", config["qv_bias"])
  weights = safetensors.Weights(folder)
  kind = _kind(weights.names)
  _check_theirs(folder, config, kind)
  model = _our_model(kind, config)
  bare = not any(name.startswith("videomae.") for name in weights.names)
  params = {}
  for theirs, path, shape in _entries(kind, model, bare):
    if theirs.endswith(tuple(LATER_NAMES)) and not config["qv_bias"]:
      array = np.zeros(shape, np.float32)
    else:
      array = weights.take(_stored_name(theirs, weights.names), shape)
    _put(params, path, _to_ours(array))
  return kind, model, _stacked(params)


def write_export(folder: pathlib.Path, kind: str, model: Mapping[str, Any], params: Any) -> None:
  """Writes an export as a folder that transformers loads; arguments as `read_export` gives them.

  Raises:
    UserError: transformers has no such model, or the folder holds one already.
  """
  _check_ours(kind, model)
  # A classifier's export keeps the config of an encoder whose final norm mean pooling leaves out.
  normed = "norm" in params["encoder"]
  model = {**model, "encoder": {**model["encoder"], "final_norm": normed}}
  tensors = {
    theirs: _to_theirs(_get(params, path), shape)
    for theirs, path, shape in _entries(kind, model, bare=kind == "encoder")
  }
  safetensors.write(folder, _their_config(kind, model), tensors)


# How the two name things. A path is of keys, with a layer's number after "blocks".


def _entries(
  kind: str, model: Mapping[str, Any], bare: bool
) -> Iterator[tuple[str, tuple[str | int, ...], tuple[int, ...]]]:
  """(their name, our path, their shape) of every tensor of the model."""
  encoder = model["encoder"]
  (t, h, w), width = encoder["tubelet"], encoder["width"]
  head, classes = next(iter(model.get("heads", {"": 0}).items()))
  dims = {"t": t, "h": h, "w": w, "p": 3 * t * h * w, "e": width, "k": classes, "3": 3, "1": 1}
  theirs = "" if bare else "videomae."

  def rows(table, theirs, ours, width, mlp):
    sizes = dims | {"d": width, "m": mlp}
    for name, path, letters in table:
      keys = path.format(head=head).split("/")
      yield theirs + name, (*ours, *keys), tuple(sizes[letter] for letter in letters)

  def part(fields, tables, theirs, ours, layer):
    for table in tables:
      yield from rows(table, theirs, ours, fields["width"], fields["mlp"])
    for i in range(fields["depth"]):
      place = (*ours, "blocks", i)
      yield from rows(BLOCK, layer.format(i), place, fields["width"], fields["mlp"])

  tables = (EMBED, NORM) if encoder["final_norm"] else (EMBED,)
  yield from part(encoder, tables, theirs, ("encoder",), theirs + "encoder.layer.{}.")
  if kind == "mae":
    layer = "decoder.decoder_layers.{}."
    yield from part(model["decoder"], (DECODER,), "", ("decoder",), layer)
  if kind == "classifier":
    yield from rows(CLASSIFIER, "", (), width, encoder["mlp"])


def _kind(names: frozenset[str]) -> str:
  if "mask_token" in names:
    return "mae"
  return "classifier" if "classifier.weight" in names else "encoder"


def _stored_name(name: str, names: frozenset[str]) -> str:
  stem, last = name.rpartition(".")[::2]
  later = f"{stem}.{LATER_NAMES.get(last, last)}"
  return later if later in names and name not in names else name


# Configs.


def _our_model(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
  model = {"encoder": _encoder_fields(config)}
  if kind == "mae":
    target_dim = 3 * int(np.prod(model["encoder"]["tubelet"]))
    decoder = _decoder_fields(config)
    model |= {"decoder": decoder, "target_dim": target_dim, "target": "pixels"}
  if kind == "classifier":
    classes = _classes(config)
    model |= {"pool": "mean", "heads": {"label": len(classes)}, "classes": {"label": classes}}
  return model


def _encoder_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  size, patch = _pair(config["image_size"]), _pair(config["patch_size"])
  return {
    "frames": config["num_frames"],
    "size": size[0],
    "tubelet": (config["tubelet_size"], *patch),
    "width": config["hidden_size"],
    "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"],
    "mlp": config["intermediate_size"],
    "norm_eps": config["layer_norm_eps"],
    "final_norm": not config["use_mean_pooling"],
    "positions": "sincos1d",
  }


def _decoder_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "width": config["decoder_hidden_size"],
    "depth": config["decoder_num_hidden_layers"],
    "heads": config["decoder_num_attention_heads"],
    "mlp": config["decoder_intermediate_size"],
    "norm_eps": config["layer_norm_eps"],
  }


def _classes(config: Mapping[str, Any]) -> list[str]:
  names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # transformers' default
  return [names[i] for i in sorted(names, key=int)]


def _their_config(kind: str, model: Mapping[str, Any]) -> dict[str, Any]:
  encoder = model["encoder"]
  config = {
    "architectures": [ARCHITECTURES[kind]],
    "model_type": "videomae",
    "dtype": "float32",
    "image_size": encoder["size"],
    "patch_size": encoder["tubelet"][1],
    "num_channels": 3,
    "num_frames": encoder["frames"],
    "tubelet_size": encoder["tubelet"][0],
    "hidden_size": encoder["width"],
    "num_hidden_layers": encoder["depth"],
    "num_attention_heads": encoder["heads"],
    "intermediate_size": encoder["mlp"],
    "hidden_act": "gelu",
    "layer_norm_eps": encoder["norm_eps"],
    "qkv_bias": True,
    "use_mean_pooling": not encoder["final_norm"],
  }
  if kind == "mae":
    decoder = model["decoder"]
    config |= {
      "decoder_hidden_size": decoder["width"],
      "decoder_num_hidden_layers": decoder["depth"],
      "decoder_num_attention_heads": decoder["heads"],
      "decoder_intermediate_size": decoder["mlp"],
      "norm_pix_loss": True,
    }
  if kind == "classifier":
    (classes,) = model["classes"].values()
    config["id2label"] = {str(i): name for i, name in enumerate(classes)}
    config["label2id"] = {name: i for i, name in enumerate(classes)}
  return config


def _check_theirs(folder: pathlib.Path, config: Mapping[str, Any], kind: str):
  size = _pair(config["image_size"])
  wrong = {
    f"image_size {size}": size[0] != size[1],
    f"num_channels {config['num_channels']}": config["num_channels"] != 3,
    f"hidden_act {config['hidden_act']!r}": config["hidden_act"] != "gelu",
    "use_mean_pooling false on a classifier": kind == "classifier"
    and not config["use_mean_pooling"],
  }
  for what, is_wrong in wrong.items():
    if is_wrong:
      raise UserError(f"{folder}/{safetensors.CONFIG}: {what} is not supported; use another model.")


def _check_ours(kind: str, model: Mapping[str, Any]):
  encoder, decoder = model["encoder"], model.get("decoder")
  heads = model.get("heads", {})
  said = {name: encoder.get(name, theirs) for name, theirs in THEIRS.items()}
  wrong = {
    f"model for an export of kind {kind!r}": kind not in ARCHITECTURES,
    **{f"{name} {value!r}": value != THEIRS[name] for name, value in said.items()},
    f"tubelets of {encoder['tubelet']}": encoder["tubelet"][1] != encoder["tubelet"][2],
    "norm_eps of its own in the decoder": kind == "mae"
    and decoder["norm_eps"] != encoder["norm_eps"],
    f"target {model.get('target')!r}": kind == "mae" and model["target"] != "pixels",
    f"pool {model.get('pool')!r}": kind == "classifier" and model["pool"] != "mean",
    f"{len(heads)} heads, {', '.join(heads)}": kind == "classifier" and len(heads) != 1,
  }
  for what, is_wrong in wrong.items():
    if is_wrong:
      raise UserError(f"transformers' VideoMAE has no {what}; keep this model as our own export.")


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
  return (value, value) if isinstance(value, int) else tuple(value)


# Arrays.


def _to_ours(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
  """Linear [out, in] to [in, out]; Conv3d [d, c, t, h, w] to [(t h w c), d]; the rest flat."""
  if array.ndim == 5:
    return array.transpose(2, 3, 4, 1, 0).reshape(-1, len(array))
  return array.T if array.ndim == 2 else array.reshape(-1)


def _to_theirs(array: Float[np.ndarray, "..."], shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
  """The inverse of `_to_ours`."""
  array = np.asarray(array, np.float32)
  if len(shape) == 5:
    d, c, t, h, w = shape
    return array.reshape(t, h, w, c, d).transpose(4, 3, 0, 1, 2)
  return array.T if len(shape) == 2 else array.reshape(shape)


def _put(tree: dict, path: tuple[str | int, ...], array: Float[np.ndarray, "..."]):
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = array


def _get(tree: Mapping, path: tuple[str | int, ...]) -> Float[np.ndarray, "..."]:
  """The leaf, or the layer of a leaf of stacked layers."""
  layer = None
  for name in path:
    if isinstance(name, int):
      layer = name
    else:
      tree = tree[name]
  return tree if layer is None else tree[layer]


def _stacked(tree: Any) -> Any:
  """Numbered layers to one [L, ...] leaf a weight."""
  if not isinstance(tree, dict):
    return tree
  tree = {name: _stacked(branch) for name, branch in tree.items()}
  if 0 in tree:
    return _stack([tree[i] for i in range(len(tree))])
  return tree


def _stack(layers: list) -> Any:
  if isinstance(layers[0], dict):
    return {name: _stack([layer[name] for layer in layers]) for name in layers[0]}
  return np.stack(layers)
