"""What configs share: the recipe argument, checked keys, and how two configs differ.

A config is an `ml_collections.ConfigDict` that holds rules, never results of arithmetic.
"""

import difflib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from vfe.errors import UserError

# Keys of the whole run that do not change what a stage computes: a finished stage stays valid
# when they change.
RUNTIME_KEYS = ("mesh", "hosts", "log", "checkpoint", "profile", "name", "stages", "variant")
RUNTIME_DATA_KEYS = ("workers", "buffer")

# The file by which a folder is known -> data.source.
DATA_MARKS = {
  "dataset.json": "shards",
  "Diving48_vocab.json*": "diving48",
  "dataset_info.json": "tfds",
  "*/dataset_info.json": "tfds",
  "MSRVTT_*": "msrvtt",
  "*_videodatainfo.json*": "msrvtt",
  "vatex_*.json*": "vatex",
  "youcookii_annotations_trainval.json*": "youcook2",
  "validation_youcook.csv*": "youcook2",
  "val_1.json*": "activitynet",
  "video_cc_public.csv*": "videocc3m",
  "HowTo100M_v1.csv*": "howto100m",
  "raw_caption.json*": "howto100m",
  "caption.json*": "howto100m",
  "captions_msvd.json*": "msvd",
  "EPIC_100_retrieval_*.csv*": "epic_kitchens",
  "CharadesEgo_v1_*.csv*": "charades_ego",
  "val_data.json*": "didemo",
  "test_data.json*": "didemo",
  "something-something-v2-*.json*": "ssv2",
  "20bn-something-something-v2*": "ssv2",
  "egoclip.csv*": "egoclip",
  "egomcq.json*": "egoclip",
  "subset_answers.json*": "egoschema",
  "uid_to_ego4d.json*": "egoschema",
  "map_vid_vidorID.json*": "nextqa",
  "mc_question_*.json*": "perception_test",
  "*_q.json*": "activitynet_qa",
  "*_qa.json*": "msrvtt_qa",
}
# Data sets with official files, which a recipe may name before a folder is given.
DATA_SETS = tuple(sorted({*DATA_MARKS.values()} - {"shards", "tfds"}))


def nearest(value: str, choices: Iterable[str]) -> str:
  """`(nearest: x)` for a message, or the choices themselves when nothing is near."""
  choices = sorted(map(str, choices))
  near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
  return f"nearest: {near[0]}" if near else f"choose one of {', '.join(choices)}"


def choose(table: Mapping[str, Any], value: str, place: str) -> Any:
  """`table[value]`, or an error that names the place and the nearest name."""
  if value not in table:
    raise UserError(f"{place}={value!r} is unknown ({nearest(value, table)}).")
  return table[value]


def parse_argument(file: str, argument: str, **defaults: Any) -> ml_collections.ConfigDict:
  """Reads what follows the colon of `--config=FILE:argument`.

  `size=l,frames=64` sets values, each of its default's type; a bare word (`demo`) sets a default
  that is False to True. A value with a comma in it cannot be written so: use `--config.key=`.
  """
  values = dict(defaults)
  for item in filter(None, argument.split(",")):
    name, given, text = item.partition("=")
    if name not in defaults:
      raise UserError(f"{file}: argument {name!r} is unknown ({nearest(name, defaults)}).")
    default = defaults[name]
    if isinstance(default, bool) != (not given):
      form = name if isinstance(default, bool) else f"{name}=..."
      raise UserError(f"{file}: write {form!r}, not {item!r}.")
    try:
      values[name] = True if isinstance(default, bool) else type(default)(text)
    except ValueError:
      raise UserError(
        f"{file}: {item!r} is not of type {type(default).__name__}, like {name}={default}."
      ) from None
  return ml_collections.ConfigDict(values)


def data_source(value: str) -> tuple[str, str | None]:
  """(data.source, data.path) of a recipe's `data=`: a file or folder of the user's, or `tabletop`.

  A .csv or .jsonl file is a manifest; a folder is what the file in it says, or else a folder of
  videos. The name of a data set, where no such folder lies, leaves the path to
  --config.data.path=.
  """
  if value == "tabletop":
    return "tabletop", None
  path = pathlib.Path(value).expanduser()
  if value in DATA_SETS and not path.exists():
    return value, None
  if path.suffix in (".csv", ".jsonl"):
    return "manifest", str(path)
  found = (source for file, source in DATA_MARKS.items() if any(path.glob(file)))
  return next(found, "folder"), str(path)


def stage_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """The stages of a recipe in the order in which they run.

  Raises:
    UserError: a stage without a section, or an input that is a stage which runs later.
  """
  names = tuple(config.stages)
  for i, name in enumerate(names):
    if "kind" not in config.get(name, {}):
      raise UserError(f"config.stages names {name!r}, but config.{name}.kind is not set.")
    for role, value in config[name].get("inputs", {}).items():
      if value in names[i:]:
        raise UserError(f"config.{name}.inputs.{role}={value!r} does not run before {name!r}.")
  return names


def stage_data(**changes: Any) -> dict[str, Any]:
  """A stage's own data section: what is set replaces the recipe's, what is None does not.

  Its keys are those that stages differ in; each can be set on the command line.
  """
  inherited = dict(
    source=config_dict.placeholder(str),
    path=config_dict.placeholder(str),
    eval_path=config_dict.placeholder(str),
    variant=config_dict.placeholder(str),
    frames=config_dict.placeholder(int),
    size=config_dict.placeholder(int),
    views=config_dict.placeholder(int),
    eval_clips=config_dict.placeholder(int),
    eval_crops=config_dict.placeholder(int),
    sampling=dict(
      kind=config_dict.placeholder(str),
      stride=config_dict.placeholder(int),
      fps=config_dict.placeholder(float),
    ),
    augment=dict(kind=config_dict.placeholder(str), flip=config_dict.placeholder(bool)),
    tabletop=dict(rung=config_dict.placeholder(str)),
  )
  return inherited | changes


def captioned_data(text: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
  """`stage_data` of videos with texts."""
  unset = dict(key=config_dict.placeholder(str), length=config_dict.placeholder(int))
  return stage_data(**changes) | {"text": unset | dict(text or {})}


def stage_config(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
  """The stage's own section, its `data` laid over the recipe's."""
  stage = ml_collections.ConfigDict(config[name].to_dict())
  own = config[name].get("data", ml_collections.ConfigDict())
  stage.data = laid_over(config.data, own, f"config.{name}.data")
  return stage.lock()


def laid_over(
  data: ml_collections.ConfigDict, changes: ml_collections.ConfigDict, place: str
) -> ml_collections.ConfigDict:
  """A copy of `data` in which what is set in `changes` replaces what was there.

  Raises:
    UserError: a key that `data` has not; `place` is the config key of the changes.
  """
  copy = ml_collections.ConfigDict(data.to_dict())
  _lay_over(copy, changes, place)
  return copy.lock()


def _lay_over(
  data: ml_collections.ConfigDict, changes: ml_collections.ConfigDict, place: str
) -> None:
  for key, value in changes.items():
    if key not in data:
      raise UserError(f"{place}.{key} is unknown ({nearest(key, data.keys())}).")
    if isinstance(value, ml_collections.ConfigDict):
      _lay_over(data[key], value, f"{place}.{key}")
    elif value is not None:
      data[key] = value


def identity(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
  """What the result of a stage depends on, as plain JSON: its section, and the shared keys."""
  shared = {
    key: value
    for key, value in config.to_dict().items()
    if key not in RUNTIME_KEYS and key not in config.stages and key != "data"
  }
  stage = stage_config(config, name).to_dict()
  for key in RUNTIME_DATA_KEYS:
    stage["data"].pop(key, None)
  return plain({**shared, name: stage})


def plain(value: Any) -> Any:
  """The value as JSON reads it back: tuples become lists, so that two can be compared."""
  return json.loads(json.dumps(value, default=str))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
  """`key: old -> new` of every leaf that differs, in order."""
  lines = []
  for key in sorted(set(old) | set(new)):
    before, after = old.get(key), new.get(key)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      lines += differences(before, after, f"{prefix}{key}.")
    elif before != after:
      lines.append(f"{prefix}{key}: {before} -> {after}")
  return lines


def flat_keys(config: ml_collections.ConfigDict, prefix: str = "") -> list[str]:
  """Every dotted key, sections included, for naming the one that a misspelt key is nearest to."""
  keys = []
  for key, value in config.items():
    keys.append(prefix + key)
    if isinstance(value, ml_collections.ConfigDict):
      keys += flat_keys(value, f"{prefix}{key}.")
  return keys


def type_of(config: ml_collections.ConfigDict, key: str) -> type:
  """The type of a dotted key's values."""
  *sections, last = key.split(".")
  for section in sections:
    config = config[section]
  return config.get_type(last)
