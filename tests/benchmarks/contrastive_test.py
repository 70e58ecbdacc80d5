"""What the global contrastive loss takes of a chip, by the TPU's compiler."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from vfe.tools.plan import COMPILER

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import contrastive  # noqa: E402

COMPILE = """
import contrastive, jax
from vfe.learn import sharding
from vfe.train import devices, hlo
mesh = sharding.make_mesh({"data": -1}, devices.named("v5e:16x16"))
step = contrastive.compiled(mesh, "info_nce", 16384, 768, "float32", contrastive.NOTHING_FAST)
sent = hlo.traffic(step.as_text()).collectives
print(step.memory_analysis().temp_size_in_bytes, max(one.bytes for one in sent))
"""


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="the TPU compiler (libtpu) is not installed"
)
def test_of_16384_pairs_of_width_768_a_v5e_chip_of_256_holds_at_most_64_mebibytes():
  """Nothing in fast memory, so that all that is alive counts; one side's embeddings are 48 MiB."""
  env = os.environ | COMPILER | {"JAX_OPTIMIZATION_LEVEL": "O0"}  # quick, and no less memory
  done = subprocess.run(
    [sys.executable, "-c", COMPILE], cwd=FOLDER, env=env, check=True, capture_output=True, text=True
  )
  temporaries, sent = map(int, done.stdout.split())
  assert 48 << 20 <= temporaries <= 64 << 20
  assert sent < 49 << 20  # a side and a row of numbers, never the logits


def test_the_table_has_a_line_for_each_loss_and_size(capsys):
  contrastive.main(["--topology=local", "--pairs", "64", "128", "--width=8", "--loss", "sigmoid"])
  head, *lines, last = capsys.readouterr().out.splitlines()
  assert len(lines) == 2 and all(line.count("|") == head.count("|") for line in lines)
  found = json.loads(last)
  assert found["chips"] == len(jax.devices())
  assert [row["pairs"] for row in found["rows"]] == [64, 128]
  assert all(row["placed_bytes"] == row["hbm_bytes"] > 0 for row in found["rows"])
