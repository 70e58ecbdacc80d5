"""Hugging Face BERT folders: BertModel, BertForMaskedLM, BertForPreTraining and the like.

The pooler and the heads are left out, but for the head of masked words, where there is one. What is
written is a BertModel, or with that head a BertForMaskedLM. The first checkpoints call a norm's
scale and bias gamma and beta: both are read.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from vfe.interop import safetensors, towers
from vfe.interop.safetensors import Weights, read_config

EMBED = (
  ("embeddings.word_embeddings.weight", "word/embedding", "vd"),
  ("embeddings.position_embeddings.weight", "position", "nd"),
  ("embeddings.token_type_embeddings.weight", "type", "sd"),
  ("embeddings.LayerNorm.weight", "norm/scale", "d"),
  ("embeddings.LayerNorm.bias", "norm/bias", "d"),
)
BLOCK = (
  ("attention.self.query.weight", "attention/query/kernel", "dd"),
  ("attention.self.query.bias", "attention/query/bias", "d"),
  ("attention.self.key.weight", "attention/key/kernel", "dd"),
  ("attention.self.value.weight", "attention/value/kernel", "dd"),
  ("attention.self.value.bias", "attention/value/bias", "d"),
  ("attention.output.dense.weight", "attention/out/kernel", "dd"),
  ("attention.output.dense.bias", "attention/out/bias", "d"),
  ("attention.output.LayerNorm.weight", "attention_norm/scale", "d"),
  ("attention.output.LayerNorm.bias", "attention_norm/bias", "d"),
  ("intermediate.dense.weight", "mlp/up/kernel", "md"),
  ("intermediate.dense.bias", "mlp/up/bias", "m"),
  ("output.dense.weight", "mlp/down/kernel", "dm"),
  ("output.dense.bias", "mlp/down/bias", "d"),
  ("output.LayerNorm.weight", "mlp_norm/scale", "d"),
  ("output.LayerNorm.bias", "mlp_norm/bias", "d"),
)
HEAD = (
  ("transform.dense.weight", "transform/kernel", "dd"),
  ("transform.dense.bias", "transform/bias", "d"),
  ("transform.LayerNorm.weight", "norm/scale", "d"),
  ("transform.LayerNorm.bias", "norm/bias", "d"),
  ("bias", "bias", "v"),
)
PART, HEAD_PART = "bert.", "cls.predictions."
BARE, HEADED = "BertModel", "BertForMaskedLM"
FIRST_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
VOCABULARIES = ("tokenizer.json", "vocab.txt")

# transformers' own, which a config.json may leave out.
DEFAULTS = dict(
  vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
  intermediate_size=3072, hidden_act="gelu", max_position_embeddings=512, type_vocab_size=2,
  layer_norm_eps=1e-12, position_embedding_type="absolute", is_decoder=False,
  tie_word_embeddings=True,
)  # fmt: skip


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("text", model, params) of an export.

  model["text"] has the fields of `vfe.models.text.TextConfig`; model["vocabulary"] is the absolute
  path of the folder's tokenizer.json or else vocab.txt, None where it has neither. params are numpy
  float32, those of `vfe.models.text.TextEncoder` under "text", and where the folder has a head of
  masked words it is under "head": a word's logit is norm(activation(transform(token))) times its
  embedding, plus its bias.

  Raises:
    UserError: a file, tensor or shape is missing or wrong, or it is a BERT we have no model for.
  """
  folder = pathlib.Path(folder).absolute()
  config = DEFAULTS | read_config(folder, "bert")
  kind, weights = config["position_embedding_type"], Weights(folder)
  has_head = any(name.startswith(HEAD_PART) for name in weights.names)
  towers.refuse(
    folder,
    {
      f"position_embedding_type {kind!r}": kind != "absolute",
      f"is_decoder {config['is_decoder']}": config["is_decoder"],
      "tie_word_embeddings false": has_head and not config["tie_word_embeddings"],
    },
  )
  model = {
    "vocabulary": config["vocab_size"],
    "width": config["hidden_size"],
    "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"],
    "mlp": config["intermediate_size"],
    "positions": config["max_position_embeddings"],
    "types": config["type_vocab_size"],
    "norm_eps": config["layer_norm_eps"],
    "activation": towers.activation(folder, config),
  }
  found = [str(folder / name) for name in VOCABULARIES if (folder / name).is_file()]
  about = {"text": model, "vocabulary": found[0] if found else None}
  return "text", about, _parameters(weights, model, has_head)


def write_export(folder: pathlib.Path, model: Mapping[str, Any], params: Any) -> None:
  """Writes model["text"] and params["text"] as a BertModel without its pooler, or with
  params["head"] as a BertForMaskedLM.

  Raises:
    UserError: the folder holds a model already.
  """
  model, text, has_head = model["text"], params["text"], "head" in params
  sizes, depth = _sizes(model), model["depth"]
  part = PART if has_head else ""
  layer, keys = part + "encoder.layer.{}.", "attention.self.key.bias"
  tensors = towers.their_tensors(text, EMBED, sizes, part)
  tensors |= towers.their_layers(text["blocks"], BLOCK, keys, sizes, layer, depth)
  if has_head:
    tensors |= towers.their_tensors(params["head"], HEAD, sizes, HEAD_PART)
  config = {
    "architectures": [HEADED if has_head else BARE],
    "model_type": "bert",
    "dtype": "float32",
    "vocab_size": model["vocabulary"],
    "hidden_size": model["width"],
    "num_hidden_layers": depth,
    "num_attention_heads": model["heads"],
    "intermediate_size": model["mlp"],
    "hidden_act": towers.THEIR_ACTIVATIONS[model["activation"]],
    "max_position_embeddings": model["positions"],
    "type_vocab_size": model["types"],
    "layer_norm_eps": model["norm_eps"],
    "position_embedding_type": "absolute",
  }
  safetensors.write(folder, config, tensors)


def _parameters(weights: Weights, model: dict[str, Any], has_head: bool) -> dict[str, Any]:
  part = towers.prefix(weights, PART)
  first = any(name.endswith(".gamma") for name in weights.names)
  embed, block, head = (
    (_first_names(table) if first else table) for table in (EMBED, BLOCK, HEAD)
  )
  sizes = _sizes(model)
  text = towers.tensors(weights, embed, sizes, part)
  layer = part + "encoder.layer.{}."
  text["blocks"] = towers.layers(weights, block, sizes, layer, model["depth"])
  if not has_head:
    return {"text": text}
  return {"text": text, "head": towers.tensors(weights, head, sizes, HEAD_PART)}


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  """Of the tables' letters."""
  return {
    "v": model["vocabulary"], "n": model["positions"], "s": model["types"], "d": model["width"],
    "m": model["mlp"],
  }  # fmt: skip


def _first_names(table: towers.Table) -> towers.Table:
  def first(name):
    for later, before in FIRST_NAMES.items():
      name = name.replace(later, before)
    return name

  return [(first(theirs), ours, letters) for theirs, ours, letters in table]
