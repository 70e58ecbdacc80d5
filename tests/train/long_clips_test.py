"""Long clips fit: the paper's sizes through the TPU's own compiler, nothing run."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

GIB = 2**30

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="the TPU compiler (libtpu) is not installed"
)

STORED = [
  "--stage=pretrain", "--config.pretrain.batch=1", "--config.pretrain.inputs.tokenizer=",
  "--config.pretrain.inputs.targets=targets", "--config.data.augment.kind=center",
  "--config.data.sampling.align=16",
]  # fmt: skip
UNMASKED = [
  "--stage=finetune", "--config.finetune.batch=1", "--config.finetune.token_drop=0.0",
  "--config.finetune.mixup=0.0", "--config.finetune.cutmix=0.0",
]  # fmt: skip


@pytest.fixture
def planned(request, tmp_path):
  """The plan of one stage of a recipe. `quick`: of a program that the compiler has done little for,
  in a quarter of the time; it takes as much memory."""

  def plan(argument, *flags, recipe="lvmae_128", quick=False):
    out = tmp_path / "plan.json"
    config = f"--config=configs/{recipe}.py:{argument}".rstrip(":")
    command = [sys.executable, "-m", "vfe.tools.plan", config, f"--json={out}", *flags]
    env = os.environ | ({"JAX_OPTIMIZATION_LEVEL": "O0"} if quick else {})
    subprocess.run(command, cwd=request.config.rootpath, env=env, check=True)
    return json.loads(out.read_text())["plans"][0]

  return plan


@pytest.mark.slow
def test_2048_frames_unmasked_fit_four_chips_with_context_parallelism(planned):
  """200,704 tokens, each meeting all: keys and values are gathered, N x N never exists."""
  context = "--config.mesh.data=1", "--config.mesh.context=4"
  made = planned("frames=2048", *UNMASKED, *context, "--topology=v5e:2x2")
  assert made["fits"] and made["tokens"] == 200_704
  assert "all-gather" in {one["kind"] for one in made["traffic"]["collectives"]}


def test_512_frames_unmasked_fit_one_chip(planned):
  assert planned("frames=512", *UNMASKED, "--topology=v5e:1x1", quick=True)["fits"]


@pytest.mark.slow
def test_pretraining_at_128_frames_takes_a_gibibyte_of_temporaries(planned):
  made = planned("", *STORED, "--topology=v5e:1x1")
  assert made["fits"] and made["memory"]["temporaries"] <= 1 * GIB


@pytest.mark.slow
def test_pretraining_with_the_tokenizer_in_the_step_takes_two(planned):
  made = planned("", "--stage=pretrain", "--config.pretrain.batch=1", "--topology=v5e:1x1")
  assert made["fits"] and made["memory"]["temporaries"] <= 2 * GIB


@pytest.mark.slow
def test_all_tokens_can_be_asked_for(planned):
  everything = "--config.pretrain.decoder_budget.kind=all"
  assert planned("", *STORED, everything, "--topology=v5e:1x1")["fits"]


@pytest.mark.slow
def test_vit_l_fits_with_sixteen_clips(planned):
  assert planned("size=l", *STORED, "--config.pretrain.batch=16", "--topology=v5e:1x1")["fits"]


@pytest.mark.slow
def test_4096_frames_fit_one_chip(planned):
  """32 times the paper's clips."""
  assert planned("frames=4096", *STORED, "--topology=v5e:1x1")["fits"]


@pytest.mark.slow
def test_256_frames_of_vit_l_fit_one_chip_with_four_clips(planned):
  """LongViViT's long stage: 75 % dropped, the last four layers tuned, the text tower frozen."""
  flags = "--stage=long", "--config.long.batch=4", "--config.image.inputs.text=(a BERT)"
  made = planned("", *flags, "--topology=v5e:1x1", recipe="longvivit_256")
  assert made["fits"] and made["tokens"] == 8192
