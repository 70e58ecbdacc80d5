"""The house: a file imports only from lower in the list, without circles, and light where said."""

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORDER = (
  "main", "__init__", "tools", "train", "stages", "evaluate", "models", "learn", "tokens", "nn",
  "data", "interop", "config", "errors",
)  # fmt: skip
FILES = sorted((ROOT / "vfe").rglob("*.py"))
HEAVY = ("jax", "flax", "optax", "orbax", "clu", "tensorflow", "torch")
NAMED = re.compile(r"vfe(\.\w+)+(?=:|$)")  # "vfe.stages.mae:MAEStage", for importlib


def module(file: pathlib.Path) -> str:
  """vfe/nn/blocks.py -> vfe.nn.blocks, vfe/nn/__init__.py -> vfe.nn"""
  parts = file.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def room(name: str) -> str:
  """The entry of ORDER that a module belongs to."""
  return name.split(".")[1] if "." in name else "__init__"


def imported(file: pathlib.Path) -> Iterator[str]:
  """The modules of vfe that a file imports, at its top or later, whole or names from it."""
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "vfe")
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vfe":
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        yield full if full in MODULES or (ROOT / full.replace(".", "/")).is_dir() else node.module


def named(file: pathlib.Path) -> Iterator[str]:
  """The modules of vfe that a file names in strings."""
  for node in ast.walk(ast.parse(file.read_text())):
    value = node.value if isinstance(node, ast.Constant) else None
    found = NAMED.match(value) if isinstance(value, str) else None
    if found and found[0] in MODULES:
      yield found[0]


def test_every_room_is_in_the_list():
  assert {room(name) for name in MODULES} <= set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=module)
def test_a_file_imports_only_from_lower(file):
  own = ORDER.index(room(module(file)))
  upward = [name for name in (*imported(file), *named(file)) if ORDER.index(room(name)) < own]
  assert not upward


def test_no_circles():
  graph = {name: set(imported(file)) - {name} for name, file in MODULES.items()}
  done: set[str] = set()

  def visit(name: str, above: tuple[str, ...]):
    assert name not in above, " -> ".join((*above[above.index(name) :], name))
    if name not in done:
      for other in graph.get(name, ()):
        visit(other, (*above, name))
      done.add(name)

  for name in graph:
    visit(name, ())


@pytest.mark.parametrize("heavy", HEAVY)
def test_data_never_imports(heavy):
  """Also not in a function: decoding workers import vfe.data only."""
  for file in (ROOT / "vfe" / "data").rglob("*.py"):
    for node in ast.walk(ast.parse(file.read_text())):
      names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
      names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
      assert heavy not in {name.split(".")[0] for name in names}, file


def loaded_after(statements: str) -> set[str]:
  """Top-level packages that a new Python has loaded after these statements."""
  show = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
  command = [sys.executable, "-c", f"{statements}\n{show}"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  return set(done.stdout.split())


def test_importing_the_package_the_command_line_and_data_is_light():
  loaded = loaded_after("import vfe, vfe.main, vfe.data, vfe.config, vfe.tools.cli")
  assert "vfe" in loaded and not loaded & {*HEAVY, "grain", "av", "PIL"}


def test_a_decoding_worker_loads_what_grain_loads_and_no_more():
  """Grain itself imports JAX where JAX is installed."""
  loaded = loaded_after("import " + ", ".join(name for name in MODULES if room(name) == "data"))
  assert {"av", "grain"} <= loaded and not (loaded & {*HEAVY}) - loaded_after("import grain")


def test_using_a_public_name_is_what_loads_jax():
  assert "jax" in loaded_after("import vfe; vfe.load")
