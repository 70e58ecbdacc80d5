"""Every test runs with checked shapes, on eight CPU devices."""

import importlib.metadata
import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the suite's time goes into compiling. Level 0, and the CPU's older code generator while
# there is one, take half of that away; what is computed stays within the tolerances of float32.
QUICK = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jax").startswith("0.10."):
  QUICK.append("--xla_cpu_use_fusion_emitters=false")
for flag in ("--xla_force_host_platform_device_count=8", *QUICK):
  if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("vfe", "beartype.beartype")

import importlib.util  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

# Compiled programs are kept between runs of the suite, as vfe.main keeps them for its users; here
# also the small ones, of which there are thousands.
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), "vfe-test-xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROCESSES = 4  # at the most: each compiles for itself what the others have not
SHARED = ROOT.parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
  """A single file is run here; more are shared out among processes, as a core can take one."""
  files = {argument.split("::")[0] for argument in config.args}
  if len(files) == 1 and files.pop().endswith(".py"):
    return 0
  return min(PROCESSES, os.cpu_count() or 1)


def pytest_collection_modifyitems(items):
  """Files that train come first: at the end one would wait for another."""
  items.sort(key=lambda item: item.path.parent.name not in ("train", "studies"))


@pytest.fixture(scope="session")
def real_data():
  """The folder of real videos and annotations that the project's developers test with."""
  if not SHARED.is_dir():
    pytest.skip("the real videos of the developers are not on this machine")
  return SHARED


# The demo at a size that compiles and runs in seconds. Also what test processes are started with.
TINY = {
  "data.frames": 32,
  "data.workers": 0,
  "data.tabletop.frames": 32,
  "data.tabletop.videos": 8,
  "data.tabletop.eval_videos": 4,
  "model.size": "test",
  "model.decoder_depth": 1,
  "tokenizer.batch": 8,
  "tokenizer.steps": 4,
  "tokenizer.model.filters": 4,
  "tokenizer.model.multipliers": (1, 1, 2),
  "tokenizer.discriminator.filters": 4,
  "tokenizer.discriminator.multipliers": (1, 2),
  "targets.batch": 8,
  "pretrain.batch": 8,
  "pretrain.steps": 6,
  "finetune.batch": 8,
  "finetune.eval_batch": 8,
  "finetune.steps": 4,
  "log.every": 1,
  "log.tensorboard": False,
  "checkpoint.every": 2,
}


def load_config(argument: str, changes: dict, name: str = "lvmae_128"):
  """configs/<name>.py with dotted keys set."""
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(argument)
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
  """Worlds that tests write are shared by them, and gone afterwards."""
  folder = tmp_path_factory.mktemp("cache")
  os.environ["VFE_CACHE"] = str(folder)
  return folder


@pytest.fixture(scope="session")
def quick_flags():
  """XLA_FLAGS of processes with devices of their own, which compile as the tests do."""
  return " ".join(QUICK)


@pytest.fixture(scope="session")
def recipe():
  """configs/lvmae_128.py as it is, with changes: recipe("size=l", {"seed": 1})."""
  return lambda argument="", changes=None: load_config(argument, changes or {})


@pytest.fixture(scope="session")
def tiny():
  """Makes the tiny recipe with further changes: tiny({"pretrain.batch": 16})."""
  return lambda changes=None: load_config("demo", TINY | (changes or {}))


PIXELS = {  # pre-training that needs no tokenizer
  "stages": ("pretrain",),
  "pretrain.target": "pixels",
  "pretrain.importance": "difference",
  "pretrain.inputs.targets": "",
}


@pytest.fixture(scope="session")
def tiny_pixels():
  """The tiny recipe's pre-training on pixels, alone."""
  return lambda changes=None: load_config("demo", TINY | PIXELS | (changes or {}))


@pytest.fixture(scope="session")
def tiny_pixels_changes():
  """The changes that make `tiny_pixels`, as `tiny_changes`."""
  return TINY | PIXELS


@pytest.fixture(scope="session")
def tiny_changes():
  """The tiny recipe's changes by dotted key, for processes that are started with them."""
  return dict(TINY)


@pytest.fixture(scope="session")
def contrast_export():
  """Writes what contrastive training leaves, of random parameters: make(folder, cls=True)."""
  import dataclasses

  import jax.numpy as jnp
  import numpy as np

  from vfe.data.text import train_vocabulary
  from vfe.learn import exports
  from vfe.models.dual_encoder import DualConfig, DualEncoder
  from vfe.models.frozen import first_tokens
  from vfe.models.text import TextConfig
  from vfe.models.vivit import EncoderConfig

  def make(folder, pool="mean", **changes):
    vision = EncoderConfig.of(
      "test", 4, 16, **({"tubelet": (2, 8, 8), "positions": "learned"} | changes)
    )
    dual = DualConfig(vision, TextConfig.of("test", 64), 16, pool)
    (patches, chosen), one = first_tokens(vision.layout), jnp.zeros((1, 1), "int32")
    init = lambda rng: DualEncoder(dual).init(rng, patches, chosen, one, one > 0)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    random = np.random.default_rng(0)
    draw = lambda leaf: random.normal(scale=0.2, size=leaf.shape).astype(np.float32)
    model = {
      "dual": dataclasses.asdict(dual), "encoder": dataclasses.asdict(vision), "length": 8
    }
    words = train_vocabulary(["a red cube falls", "a blue ball rolls", "the cup is lifted"], 64)
    params, files = jax.tree.map(draw, shapes), {"tokenizer.json": words}
    return exports.write(folder / "export", "contrast", model, params, files=files)

  return make


@pytest.fixture(scope="session")
def svitt_export():
  """Writes what training of SViTT leaves, of random parameters: make(folder, pool="mean"). Of 64
  tokens of a clip 20 go on after the first layer."""
  import dataclasses

  import jax.numpy as jnp
  import numpy as np

  from vfe.data.text import train_vocabulary
  from vfe.learn import exports
  from vfe.models.frozen import first_tokens
  from vfe.models.svitt import Svitt, SvittConfig
  from vfe.models.text import TextConfig
  from vfe.models.vivit import EncoderConfig
  from vfe.tokens.edges import Edges
  from vfe.tokens.pruning import Pruning

  def make(folder, **changes):
    vision = EncoderConfig.of(
      "test", 4, 32, (1, 8, 8), positions="relative", layer_scale=0.1, cls=True, pixels="half",
      edges=Edges(1, 3, 8), pruning=Pruning((0,), 0.3),
    )  # fmt: skip
    text = TextConfig.of("test", 64, depth=2)
    svitt = SvittConfig(vision, text, 16, 1, pruning=None, **changes)
    (patches, chosen), one = first_tokens(vision.layout), jnp.zeros((1, 1), "int32")
    init = lambda rng: Svitt(svitt).init(rng, patches, chosen, one, one > 0)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    random = np.random.default_rng(0)

    def draw(path, leaf):
      drawn = random.normal(scale=0.2, size=leaf.shape).astype(np.float32)
      return 1 + drawn if path[-1].key == "scale" else drawn

    model = {
      "svitt": dataclasses.asdict(svitt), "encoder": dataclasses.asdict(vision), "length": 8,
      "clean": True,
    }  # fmt: skip
    words = train_vocabulary(["a red cube falls", "a blue ball rolls", "the cup is lifted"], 64)
    params, files = jax.tree_util.tree_map_with_path(draw, shapes), {"tokenizer.json": words}
    return exports.write(folder / "export", "svitt", model, params, files=files)

  return make


# The caption stage at a size that writes in seconds, of clips that are shorter than the encoder's.
CAPTIONS = {
  "stages": ("long", "caption"),
  "precision": "float32",
  "data.size": 16,
  "data.workers": 0,
  "data.sampling.fps": 0.0,
  "model.size": "test",
  "model.tubelet": (2, 8, 8),
  "caption.data.frames": 8,
  "caption.data.text.length": 40,
  "caption.data.sampling.kind": "uniform",
  "caption.written.caption.words": 5,
  "caption.written.caption.data.frames": 4,
  "caption.written.caption.data.text.length": 40,
  "caption.written.summary.words": 6,
  "caption.questions.validation.data.source": "its own",
  "caption.resampler.queries": 4,
  "caption.resampler.depth": 1,
  "caption.resampler.heads": 2,
  "caption.resampler.head_dim": 8,
  "caption.bridge.heads": 2,
  "caption.bridge.head_dim": 8,
  "caption.generate.beams": 2,
  "caption.eval_batch": 2,
}


@pytest.fixture(scope="session")
def caption_run(contrast_export):
  """Makes what a caption stage of random parameters leaves in a workdir, and the stage itself:
  make(workdir, elsewhere, source). It reads `source`; the language model lies `elsewhere`."""
  import dataclasses

  import jax.numpy as jnp
  import numpy as np

  from vfe.data.wordpiece import train_vocabulary
  from vfe.learn import exports, sharding
  from vfe.models.language_model import LanguageConfig, LanguageModel
  from vfe.stages.caption import CaptionStage
  from vfe.stages.inputs import resolve
  from vfe.stages.stage import Setting

  def write_language(folder, draw):
    config, one = LanguageConfig.of("test", 48), jnp.ones((1, 1), jnp.int32)
    init = lambda: LanguageModel(config).init(jax.random.key(0), one, one > 0)["params"]
    model = {"language": dataclasses.asdict(config), "tokenizer": None, "eos": [3]}
    text = train_vocabulary(["a caption of the video question answer red blue cup ball"], 48)
    params = {"language": jax.tree.map(draw, jax.eval_shape(init))}
    exports.write(folder, "language", model, params, files={"tokenizer.json": text})

  def make(workdir, elsewhere, source=None):
    random = np.random.default_rng(0)  # its own: whoever asks first, the parameters are the same
    draw = lambda leaf: random.normal(scale=0.3, size=leaf.shape).astype(np.float32)
    contrast_export(workdir / "long")
    write_language(elsewhere / "language" / "export", draw)
    given = {"caption.inputs.language": str(elsewhere / "language")}
    config = load_config("size=s", CAPTIONS | given, "longvivit_256")
    mesh = sharding.make_mesh(None, jax.devices()[:1])
    inputs = resolve(config, "caption", workdir)
    of = lambda data, split: source
    stage = CaptionStage(Setting("caption", config, workdir / "caption", inputs, mesh, of))
    shapes = jax.eval_shape(stage.init, jax.random.key(0))["model"]
    exports.write(workdir / "caption" / "export", *stage.export(jax.tree.map(draw, shapes)))
    return stage

  return make
