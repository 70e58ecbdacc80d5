"""Hugging Face folders of language models: Gemma 3 (text), Llama and its kind, Qwen3."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vfe.config import nearest
from vfe.errors import UserError
from vfe.interop import towers
from vfe.interop.safetensors import CONFIG, Weights, read_config

TOKENIZER = "tokenizer.json"
GENERATION = "generation_config.json"

BLOCK = (
  ("input_layernorm.weight", "attention_norm/scale", "d"),
  ("self_attn.q_proj.weight", "attention/query/kernel", "qd"),
  ("self_attn.k_proj.weight", "attention/key/kernel", "kd"),
  ("self_attn.v_proj.weight", "attention/value/kernel", "kd"),
  ("self_attn.o_proj.weight", "attention/out/kernel", "dq"),
  ("mlp.gate_proj.weight", "mlp/gate/kernel", "md"),
  ("mlp.up_proj.weight", "mlp/up/kernel", "md"),
  ("mlp.down_proj.weight", "mlp/down/kernel", "dm"),
)
QK_NORM = (
  ("self_attn.q_norm.weight", "attention/query_norm/scale", "h"),
  ("self_attn.k_norm.weight", "attention/key_norm/scale", "h"),
)
TWO_NORMS = (("post_attention_layernorm.weight", "mlp_norm/scale", "d"),)
FOUR_NORMS = (
  ("post_attention_layernorm.weight", "attention_after/scale", "d"),
  ("pre_feedforward_layernorm.weight", "mlp_norm/scale", "d"),
  ("post_feedforward_layernorm.weight", "mlp_after/scale", "d"),
)

# By model_type, transformers' own values of what a config.json may leave out.
COMMON = dict(
  rms_norm_eps=1e-6, hidden_act="silu", attention_bias=False, mlp_bias=False, head_dim=None,
  num_key_value_heads=None, tie_word_embeddings=False, use_bidirectional_attention=False,
  sliding_window=None, layer_types=None,
)  # fmt: skip
DEFAULTS = {
  "gemma3_text": COMMON | dict(
    tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh", rope_theta=1e6,
    rope_local_base_freq=1e4, query_pre_attn_scalar=256, head_dim=256, sliding_window=4096,
    sliding_window_pattern=6, final_logit_softcapping=None, attn_logit_softcapping=None,
  ),
  "llama": COMMON | dict(rope_theta=1e4),
  "qwen3": COMMON | dict(
    rope_theta=1e4, head_dim=128, use_sliding_window=False, sliding_window=4096,
    max_window_layers=28,
  ),
}  # fmt: skip
ACTIVATIONS = towers.ACTIVATIONS | {"silu": "silu", "swish": "silu"}
GLOBAL, LOCAL = "full_attention", "sliding_attention"
# config.json's names of a stretched rope, by its type, as ours.
STRETCHED = {
  "default": {},
  "linear": {"factor": "factor"},
  "llama3": {
    "factor": "factor", "low_freq_factor": "low", "high_freq_factor": "high",
    "original_max_position_embeddings": "original",
  },
}  # fmt: skip
# Rows of the embedding beyond the tokenizer's words: it is rounded up to a multiple of something.
PADDED_ROWS, PADDED_SHARE = 256, 0.05


def read_export(folder: pathlib.Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
  """A folder as ("language", model, params) of an export.

  model["language"] has the fields of `vfe.models.language_model.LanguageConfig`; model["tokenizer"]
  is the absolute path of the folder's tokenizer.json, None where it has none; model["eos"] are the
  ids that end a text. params are numpy float32, of `vfe.models.language_model.LanguageModel` under
  "language".

  Raises:
    UserError: a file, shard, tensor or shape is missing or wrong, the tokenizer is of another
      vocabulary, or config.json has something that we have no model for.
  """
  folder = pathlib.Path(folder).absolute()
  config = read_config(folder, *DEFAULTS)
  language = fields(config, str(folder / CONFIG))
  tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
  if tokenizer is not None:
    check_vocabulary(tokenizer, language["vocabulary"])
  model = {
    "language": language,
    "tokenizer": tokenizer and str(tokenizer),
    "eos": _ends(folder, config),
  }
  return "language", model, {"language": _parameters(Weights(folder), language)}


def fields(config: Mapping[str, Any], place: str) -> dict[str, Any]:
  """A config.json as the fields of a `LanguageConfig`; `place` is what errors call it.

  Raises:
    UserError: another model_type, a size is not there, or we have no such model.
  """
  kind = config.get("model_type", "")
  if kind not in DEFAULTS:
    raise UserError(
      f"{place}: model_type={kind!r} is no language model that can be read "
      f"({nearest(kind, DEFAULTS)})."
    )
  config = DEFAULTS[kind] | {name: of for name, of in config.items() if of is not None}
  needed = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
  )  # fmt: skip
  missing = [name for name in needed if name not in config]
  if missing:
    raise UserError(f"{place}: no {missing[0]} in it; fetch the whole file again.")
  gemma = kind == "gemma3_text"
  act = config["hidden_activation" if gemma else "hidden_act"]
  for name in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
    _refuse(place, f"{name}={config[name]}", bool(config[name]))
  _refuse(place, f"activation {act!r} (only {', '.join(ACTIVATIONS)})", act not in ACTIVATIONS)
  heads, width = config["num_attention_heads"], config["hidden_size"]
  head_dim = config["head_dim"] or width // heads
  return {
    "vocabulary": config["vocab_size"],
    "width": width,
    "depth": config["num_hidden_layers"],
    "heads": heads,
    "groups": config["num_key_value_heads"] or heads,
    "head_dim": head_dim,
    "mlp": config["intermediate_size"],
    "scale": (config["query_pre_attn_scalar"] if gemma else head_dim) ** -0.5,
    "windows": _windows(config, place),
    "rope": _rope(config, place, GLOBAL),
    "rope_local": _rope(config, place, LOCAL) if gemma else None,
    "norm_eps": config["rms_norm_eps"],
    "activation": ACTIVATIONS[act],
    "tied": config["tie_word_embeddings"],
    "plus_one": gemma,
    "sandwich": gemma,
    "qk_norm": gemma or kind == "qwen3",
    "embed_scale": width**0.5 if gemma else 1.0,
    "cap": (config["attn_logit_softcapping"] or 0.0) if gemma else 0.0,
    "logit_cap": (config["final_logit_softcapping"] or 0.0) if gemma else 0.0,
  }


def open_tokenizer(path: str | pathlib.Path) -> Any:
  """The `tokenizers.Tokenizer` of a tokenizer.json.

  Raises:
    UserError: it is none.
  """
  from tokenizers import Tokenizer

  try:
    return Tokenizer.from_str(pathlib.Path(path).read_text(encoding="utf-8"))
  except Exception as error:  # The library raises bare Exceptions.
    why = str(error).splitlines()[0]
    raise UserError(f"{path}: no file of the tokenizers library ({why}); fetch it again.") from None


def check_vocabulary(path: pathlib.Path, vocabulary: int) -> None:
  """Whether a tokenizer can be that of a model with so many rows of words.

  A model may have a few rows that no word uses, and a tokenizer words added later that the model
  has no row for (Gemma 3's picture token).

  Raises:
    UserError: it cannot.
  """
  tokenizer = open_tokenizer(path)
  base = tokenizer.get_vocab(with_added_tokens=False)
  every = tokenizer.get_vocab(with_added_tokens=True)
  size = 1 + max(every.values(), default=0)
  unused = vocabulary - size
  too_many = max(base.values(), default=0) >= vocabulary
  if too_many or unused > max(PADDED_ROWS, PADDED_SHARE * vocabulary):
    raise UserError(
      f"{path}: {size} words, but the model beside it has {vocabulary}; take both from one folder."
    )


def _windows(config: Mapping[str, Any], place: str) -> list[int]:
  """One a layer, 0 for all words."""
  depth, window = config["num_hidden_layers"], config["sliding_window"]
  kinds = config["layer_types"]
  if config["model_type"] == "llama" or config.get("use_sliding_window") is False:
    return [0] * depth
  if kinds is None and config["model_type"] == "qwen3":
    kinds = [LOCAL if i >= config["max_window_layers"] else GLOBAL for i in range(depth)]
  elif kinds is None:
    every = config["sliding_window_pattern"]
    kinds = [LOCAL if (i + 1) % every else GLOBAL for i in range(depth)]
  for kind in kinds:
    _refuse(place, f"layer type {kind!r}", kind not in (GLOBAL, LOCAL))
  _refuse(place, f"{len(kinds)} layer_types for {depth} layers", len(kinds) != depth)
  return [window if kind == LOCAL else 0 for kind in kinds]


def _rope(config: Mapping[str, Any], place: str, layers: str) -> dict[str, Any]:
  """The rotary positions of these layers, as transformers 5 and those before it write them."""
  gemma = config["model_type"] == "gemma3_text"
  base = config["rope_local_base_freq" if layers == LOCAL else "rope_theta"]
  said = config.get("rope_parameters") or {}
  said = said.get(layers, said) if gemma else said
  said = said or (layers == GLOBAL and config.get("rope_scaling")) or {}
  kind = said.get("rope_type", said.get("type", "default"))
  supported = f"(only {', '.join(STRETCHED)})"
  _refuse(place, f"rope_type {kind!r} {supported}", kind not in STRETCHED)
  part = said.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
  _refuse(place, f"partial_rotary_factor {part}", part != 1.0)
  missing = [name for name in STRETCHED[kind] if name not in said]
  if missing:
    raise UserError(f"{place}: no {missing[0]} of rope_type {kind!r} in it; fetch it again.")
  stretch = {ours: said[theirs] for theirs, ours in STRETCHED[kind].items()}
  whole = dict(factor=1.0, low=1.0, high=4.0, original=8192)
  return {"base": float(said.get("rope_theta", base)), "kind": kind, **(whole | stretch)}


def _refuse(place: str, what: str, is_wrong: bool) -> None:
  if is_wrong:
    raise UserError(f"{place}: {what} is not supported; use another model.")


def _ends(folder: pathlib.Path, config: Mapping[str, Any]) -> list[int]:
  """The words that end a text: what generation_config.json says comes first."""
  said = config.get("eos_token_id")
  if (folder / GENERATION).is_file():
    try:
      said = json.loads((folder / GENERATION).read_text()).get("eos_token_id", said)
    except (ValueError, AttributeError) as error:
      raise UserError(f"{folder / GENERATION}: not a JSON object ({error}); fetch it.") from None
  return [] if said is None else [said] if isinstance(said, int) else list(said)


def _parameters(weights: Weights, model: Mapping[str, Any]) -> dict[str, Any]:
  part = towers.prefix(weights, "model.")
  head_dim = model["head_dim"]
  sizes = {
    "v": model["vocabulary"], "d": model["width"], "m": model["mlp"], "h": head_dim,
    "q": model["heads"] * head_dim, "k": model["groups"] * head_dim,
  }  # fmt: skip
  embed = (("embed_tokens.weight", "word/embedding", "vd"), ("norm.weight", "norm/scale", "d"))
  block = BLOCK + (FOUR_NORMS if model["sandwich"] else TWO_NORMS)
  block += QK_NORM if model["qk_norm"] else ()
  params = towers.tensors(weights, embed, sizes, part)
  layer = part + "layers.{}."
  params["blocks"] = towers.layers(weights, block, sizes, layer, model["depth"])
  if not model["tied"]:
    params |= towers.tensors(weights, (("lm_head.weight", "head", "vd"),), sizes, "")
  return params
