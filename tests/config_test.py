"""Configs: arguments, inherited data, identity, and the golden text of every recipe."""

import importlib.util
import os
import pathlib

import ml_collections
import pytest

from vfe import config as configs
from vfe.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
RECIPES = [
  ("lvmae_128", ""),
  ("lvmae_128", "demo"),
  ("lvmae_128", "size=l,frames=64"),
  ("longvivit_256", ""),
  ("longvivit_256", "demo"),
  ("longvivit_256", "demo,data=captions.csv"),
  ("longvivit_256", "size=b,frames=128,masked=0.5"),
  ("svitt_ego", ""),
  ("svitt_ego", "demo"),
  ("svitt_ego", "curriculum,random=3,data=egoclip"),
]


def load(recipe: str, argument: str) -> ml_collections.ConfigDict:
  spec = importlib.util.spec_from_file_location(recipe, ROOT / "configs" / f"{recipe}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(argument)


@pytest.mark.parametrize("recipe,argument", RECIPES)
def test_every_default_is_the_golden_one(recipe, argument):
  # VFE_UPDATE_GOLDEN=1 writes them anew; the diff of the commit then shows what changed.
  file = GOLDEN / f"{recipe}{'-' if argument else ''}{argument.replace(',', '-')}.yaml"
  text = load(recipe, argument).to_yaml(sort_keys=True)
  if os.environ.get("VFE_UPDATE_GOLDEN"):
    file.write_text(text)
  assert text == file.read_text()


@pytest.mark.parametrize("recipe,argument", RECIPES)
def test_recipes_are_locked_and_their_stages_resolve(recipe, argument):
  config = load(recipe, argument)
  assert config.is_locked
  for name in configs.stage_names(config):
    assert configs.stage_config(config, name).data.frames


def test_a_stage_inherits_the_data_that_it_does_not_set():
  config = load("lvmae_128", "frames=64")
  with config.unlocked():
    config.data.size = 96
    config.pretrain.data.sampling.stride = 2
  assert configs.stage_config(config, "tokenizer").data.frames == 16
  pretrain = configs.stage_config(config, "pretrain").data
  assert (pretrain.frames, pretrain.size) == (64, 96)
  assert pretrain.sampling.to_dict() == {"kind": "strided", "stride": 2, "align": 1, "fps": 0.0}
  assert configs.stage_config(config, "finetune").data.sampling.stride == 1


@pytest.mark.parametrize(
  "argument,told",
  [
    ("sise=b", "'sise' is unknown (nearest: size)"),
    ("frames=many", "'frames=many' is not of type int"),
    ("demo=1", "write 'demo', not 'demo=1'"),
    ("size", "write 'size=...', not 'size'"),
  ],
)
def test_a_wrong_argument_is_named(argument, told):
  with pytest.raises(UserError) as error:
    load("lvmae_128", argument)
  assert told in str(error.value)
  assert str(error.value).startswith("configs/lvmae_128.py")


def test_identity_leaves_out_what_does_not_change_a_result():
  config = load("lvmae_128", "demo")
  before = configs.identity(config, "pretrain")
  with config.unlocked():
    config.mesh.fsdp = 2
    config.data.workers = 5
    config.finetune.batch = 2
    config.log.every = 3
  assert configs.identity(config, "pretrain") == before
  config.pretrain.batch = 4
  config.seed = 1
  changed = configs.differences(before, configs.identity(config, "pretrain"))
  assert changed == ["pretrain.batch: 8 -> 4", "seed: 0 -> 1"]


def test_an_input_must_run_before():
  config = load("lvmae_128", "")
  config.pretrain.inputs.tokenizer = "finetune"
  with pytest.raises(UserError, match=r"pretrain.inputs.tokenizer='finetune' does not run before"):
    configs.stage_names(config)


def test_data_argument_says_which_source(tmp_path):
  assert configs.data_source("tabletop") == ("tabletop", None)
  assert configs.data_source("a/labels.csv") == ("manifest", "a/labels.csv")
  assert configs.data_source(str(tmp_path)) == ("folder", str(tmp_path))
  (tmp_path / "dataset.json").write_text("{}")
  assert configs.data_source(str(tmp_path)) == ("shards", str(tmp_path))
  for file, source in (("Diving48_vocab.json.gz", "diving48"), ("1.0.0/dataset_info.json", "tfds")):
    folder = tmp_path / source
    (folder / file).parent.mkdir(parents=True)
    (folder / file).touch()
    assert configs.data_source(str(folder)) == (source, str(folder))
  assert configs.data_source("diving48") == ("diving48", None)  # and --config.data.path=
  assert configs.data_source("msrvtt") == ("msrvtt", None)
