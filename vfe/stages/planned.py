"""A stage exactly as in a run, of which nothing is opened, read or computed.

For planning and timing a step before there is data, a finished input or the hardware: inputs are
shapes, videos are a stand-in with a length and label heads.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from vfe import config as configs
from vfe.data.record import VideoRecord
from vfe.data.sources import open_source
from vfe.data.tabletop.world import heads
from vfe.errors import UserError
from vfe.learn.exports import Export
from vfe.models import vivit
from vfe.models.language_model import LanguageConfig, LanguageModel
from vfe.models.pretrained import find
from vfe.models.resnet import ResNet, ResNetConfig
from vfe.models.text import TextConfig, TextEncoder
from vfe.models.tokenizer import Tokenizer, TokenizerConfig
from vfe.stages import fused, stage_class
from vfe.stages.stage import Setting, Stage
from vfe.stages.stored import stored_data

CLASSES = {"label": 48}  # of data that is not here: Diving48's
WORDS = 30_522  # of a vocabulary that is not here: BERT's
VIDEOS = 10_000  # likewise; the length of the learning rate's schedule is all that hangs on it
LLAMA = dict(  # of a language model that is not here: Llama 3.2's config.json, the one of 1.2B
  model_type="llama", vocab_size=128_256, hidden_size=2048, num_hidden_layers=16,
  num_attention_heads=32, num_key_value_heads=8, head_dim=64, intermediate_size=8192,
  hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=500_000.0,
  rope_scaling=dict(
    rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=8192,
  ),
)  # fmt: skip
LLAMA_END = 128_001


def planned(
  config: ml_collections.ConfigDict,
  name: str,
  mesh: jax.sharding.Mesh,
  *,
  classes: Mapping[str, int] | None = None,
) -> Stage:
  """The stage `name` of a recipe on a mesh, ready for `vfe.train.program.program`.

  Args:
    config: the recipe.
    name: of a stage; one that does not train can be made too, as an input of others.
    mesh: of any devices, also of those that are compiled for but not there.
    classes: number of classes of every label head. Default: those of the data where it is here
      (the tabletop world always is), else one head of 48.

  An input that is a folder of this machine is looked at; of one that is not here the usual
  architecture is assumed (of an encoder: that of config.model).

  Raises:
    UserError: what a run would raise for this config.
  """
  names = configs.stage_names(config)
  if name not in names:
    raise UserError(f"--stage={name} is not a stage ({configs.nearest(name, names)}).")
  kind = stage_class(config[name].kind, f"config.{name}.kind")
  inputs = {
    role: _input(config, name, role, value, mesh)
    for role, value in config[name].get("inputs", {}).items()
    if value
  }
  sources = functools.partial(_source, classes=classes)
  return kind(Setting(name, config, pathlib.Path(name), inputs, mesh, sources))


@dataclasses.dataclass(frozen=True)
class Absent:
  """Stands for videos of which only the number and the label heads matter."""

  name: str
  heads: Mapping[str, tuple[str, ...]]
  videos: int

  def __len__(self) -> int:
    return self.videos

  def __getitem__(self, index: int) -> VideoRecord:
    raise TypeError(f"{self.name}: a planned stage has no videos.")


def _source(
  data: ml_collections.ConfigDict, split: str, classes: Mapping[str, int] | None
) -> Absent:
  found, videos = {head: _numbered(count) for head, count in CLASSES.items()}, VIDEOS
  if data.source == "tabletop":
    found, videos = heads(data.tabletop.rung), data.tabletop.videos
  elif data.path and pathlib.Path(data.path).expanduser().exists():
    source = open_source(data, split)
    found, videos = source.heads, len(source)
  if classes is not None:
    found = {head: _numbered(count) for head, count in classes.items()}
  return Absent(f"{data.path or data.source} ({split}, planned)", found, videos)


def _numbered(count: int) -> tuple[str, ...]:
  return tuple(map(str, range(count)))


def _input(config: Any, name: str, role: str, value: str, mesh: jax.sharding.Mesh) -> Export:
  if value in config.stages:
    return _export(planned(config, value, mesh))
  folder = pathlib.Path(value).expanduser()
  export = find(folder) if folder.exists() else None
  if export is None:
    assume = configs.choose(ASSUMED, role, f"config.{name}.inputs")
    kind, model, params = assume(configs.stage_config(config, name), config)
    return Export(kind, configs.plain(model), params, "planned", value)
  shapes = jax.eval_shape(lambda: export.params)
  return dataclasses.replace(export, params=shapes)


def _export(stage: Stage) -> Export:
  """What the stage will leave to others."""
  state = lambda rng: stage.evaluated(stage.init_state(rng))
  params = jax.eval_shape(state, jax.random.key(0)) if stage.trains else {}
  kind, model, params = stage.export(params)
  # As JSON gives it back: what is read from an export has lists in place of tuples.
  return Export(kind, configs.plain(model), params, "planned", f"stage {stage.name}")


def _encoder(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  model, data = config.model, section.data
  tubelet = (1, *model.tubelet[1:]) if data.frames == 1 else tuple(model.tubelet)
  how, frames = {"positions": model.get("positions", "sincos1d")}, data.frames
  if section.kind == "sparse_video_text":
    how, frames = fused.BEIT | {"final_norm": False}, 1
  encoder = vivit.EncoderConfig.of(model.size, frames, data.size, tubelet, **how)
  module, one = vivit.Encoder(encoder), jnp.zeros((1, 1), jnp.int32)
  patches = jnp.zeros((1, 1, encoder.layout.channels), jnp.uint8)
  params = jax.eval_shape(lambda rng: module.init(rng, patches, one)["params"], jax.random.key(0))
  return "encoder", {"encoder": dataclasses.asdict(encoder)}, {"encoder": params}


def _tokenizer(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del config
  tokenizer, size = TokenizerConfig(), section.data.size
  video = jax.ShapeDtypeStruct((1, tokenizer.window, size, size, 3), jnp.float32)
  init = lambda rng, video: Tokenizer(tokenizer).init(rng, video)["params"]
  return "tokenizer", dataclasses.asdict(tokenizer), jax.eval_shape(init, jax.random.key(0), video)


def _targets(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del config
  tokenizer = TokenizerConfig()
  model = {
    "levels": tokenizer.levels,
    "tubelet": tokenizer.tubelet,
    "window": tokenizer.window,
    "data": stored_data(section.data),
  }
  return "targets", model, {}


def _perceptual(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del section, config
  resnet = ResNetConfig()
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  init = lambda rng, images: ResNet(resnet).init(rng, images)["params"]
  return "resnet", dataclasses.asdict(resnet), jax.eval_shape(init, jax.random.key(0), images)


def _text(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del section
  text, one = TextConfig.of(config.model.text, WORDS), jnp.zeros((1, 1), jnp.int32)
  init = lambda rng: TextEncoder(text).init(rng, one, one > 0)["params"]
  params = {"text": jax.eval_shape(init, jax.random.key(0))}
  return "text", {"text": dataclasses.asdict(text), "vocabulary": None}, params


def _language(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del section, config
  language, one = LanguageConfig.from_hugging_face(LLAMA), jnp.zeros((1, 1), jnp.int32)
  init = lambda rng: LanguageModel(language).init(rng, one, one == 0)["params"]
  params = {"language": jax.eval_shape(init, jax.random.key(0))}
  model = {"language": dataclasses.asdict(language), "tokenizer": None, "eos": [LLAMA_END]}
  return "language", model, params


def _vocabulary(section: Any, config: Any) -> tuple[str, dict[str, Any], Any]:
  del section, config
  return "vocabulary", {"size": WORDS}, {}


# role -> (stage's section, recipe) -> (kind, model config, shapes of the parameters), of an input
# that is not here.
ASSUMED = {
  "encoder": _encoder,
  "tokenizer": _tokenizer,
  "targets": _targets,
  "perceptual": _perceptual,
  "text": _text,
  "vocabulary": _vocabulary,
  "language": _language,
}
