"""The contrastive study's machinery at minimal size; nothing is learned here."""

import functools
import math
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # studies/ is not installed

from studies import contrast, contrast_data, contrast_report, records
from studies.contrast_sizes import CONDITIONS, SIZES
from vfe.data.tabletop.story import scenario

TEST = SIZES["test"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  """Long clips, after stages of images and of short clips that have no steps."""
  import jax

  from studies.contrast_jobs import Run, save

  folder = tmp_path_factory.mktemp("contrast")
  study = contrast.Study("test", folder, folder / "encoders")
  image, short = (Run(TEST, CONDITIONS[name]) for name in ("image", "joint-0"))
  drawn, fresh = (jax.jit(of.init)(jax.random.key(i)) for i, of in enumerate((image, short)))
  begun = short.begun(fresh, drawn, image.vision)
  for name, params in (("image", drawn), ("joint-0", begun)):
    save(study.encoders, name, (1,), jax.tree.map(lambda x: np.asarray(x)[None], params))
  study.run("long-last-75", (1,))
  return study


def parameters(study, name):
  from studies.contrast_jobs import load
  from vfe.learn.paths import named_leaves

  leaves = named_leaves(load(study.encoders, name, (1,)))
  return {name: np.asarray(leaf[0]) for name, leaf in leaves.items()}


def test_a_row_that_is_there_is_not_computed_again(study):
  rows = records.read(study.path)
  assert [row["condition"] for row in rows] == ["long-last-75"]
  assert all(math.isfinite(row["training_loss"]) for row in rows)
  assert all(0 <= of["order"] <= 1 for row in rows for of in row["forms"].values())
  assert study.missing("long-last-75", (0, 1)) == study.missing("joint-0", (0,)) == (0,)
  study.run("long-last-75", (1,))
  assert records.read(study.path) == rows
  report = contrast_report.text(rows, "test", study.size)
  assert "| long-last-75 | summary | 1 |" in report
  assert report.count("not run |") > 20


def test_only_the_last_layers_and_nothing_of_the_text_are_tuned(study):
  before, after = (parameters(study, name) for name in ("joint-0", "long-last-75"))
  for name, leaf in after.items():
    if name.startswith("text"):
      np.testing.assert_array_equal(before[name], leaf)
  kernel = "vision/blocks/mlp/up/kernel"
  np.testing.assert_array_equal(before[kernel][0], after[kernel][0])
  assert np.any(before[kernel][1] != after[kernel][1])


def test_a_clip_begins_as_an_image_that_also_knows_changes_and_time(study):
  image, short = (parameters(study, name) for name in ("image", "joint-0"))
  kernel = short["vision/embed/kernel"]
  np.testing.assert_array_equal(kernel[len(kernel) // 2 :], image["vision/embed/kernel"])
  assert np.all(np.any(kernel[: len(kernel) // 2] != 0, axis=1))
  at = short["vision/position"]
  np.testing.assert_allclose(at[0], image["vision/position"][0], atol=1e-6)
  change = at[1] - at[0]
  np.testing.assert_allclose(change, np.broadcast_to(change[:1], change.shape), atol=1e-6)
  assert np.any(change != 0)


def test_swapped_is_the_same_words_in_another_order():
  scenes = [scenario(TEST.world("short", 0), index) for index in range(6)]
  said = contrast_data.captions(TEST, scenes)
  for form in ("order", "summary"):
    true, other = said[form]["ids"], said[form]["swapped_ids"]
    np.testing.assert_array_equal(np.sort(true), np.sort(other))
    assert np.all(np.any(true != other, axis=1))
  np.testing.assert_array_equal(said["objects"]["ids"], said["objects"]["swapped_ids"])
  assert all(of["mask"].any(1).all() for of in said.values())


def test_scores_of_one_who_knows_all_the_objects_and_nothing():
  from studies.contrast_jobs import scores

  ids = np.array([[1, 5, 2, 6], [2, 6, 1, 5], [1, 6, 2, 5], [3, 5, 3, 6]])
  score = functools.partial(scores, ids=ids, nouns=(1, 2, 3))
  eye = np.eye(4)
  perfect = score(eye, eye, eye[[1, 0, 3, 2]])
  assert perfect["text_to_video"] == perfect["video_to_text"] == perfect["order"] == 1
  assert perfect["chance"] == 1 / 4
  assert perfect["objects_only"] == pytest.approx((3 * 1 / 3 + 1) / 4)
  assert perfect["words_only"] == pytest.approx((3 * 1 / 3 + 1) / 4)
  nothing = score(np.ones((4, 4)), np.ones((4, 4)), np.ones((4, 4)))
  assert nothing["text_to_video"] == nothing["video_to_text"] == 0  # equal ones are misses
  assert nothing["order"] == 0.5
  twice = scores(eye[:2], np.ones((2, 4)), np.ones((2, 4)), np.array([[1, 2], [1, 2]]), (1,))
  assert twice["video_to_text"] == 1  # of equal texts each is right


def test_words():
  one = {0: 0.50, 1: 0.52, 2: 0.51}
  assert contrast_report.tie(one, {0: 0.51, 1: 0.51, 2: 0.52}) == "held"
  assert contrast_report.tie(one, {s: v + 0.2 for s, v in one.items()}) == "not held"
  assert contrast_report.tie(one, {0: 0.6, 1: 0.4, 2: 0.5}) == "within noise"
  row = lambda seed, name, order: {
    "condition": name,
    "seed": seed,
    "forms": {"order": {"text_to_video": 0.2, "video_to_text": 0.2, "order": order}},
  }
  claim = next(
    c for c in contrast_report.comparisons(TEST) if (c.better, c.worse) == ("joint-0", "frame-0")
  )
  blind = [row(s, n, 0.5 + (s - 1) / 50) for s in range(3) for n in ("joint-0", "frame-0")]
  assert contrast_report.verdict(blind, claim, "order") == "not shown at this size"
  read = [row(s, n, o + s / 99) for s in range(3) for n, o in (("joint-0", 0.8), ("frame-0", 0.6))]
  assert contrast_report.verdict(read, claim, "order") == "held"
  assert contrast_report.verdict([], claim, "order") == "not run"


@pytest.mark.parametrize("name", ["factorised-75", "frame-75", "long-last-75"])
def test_gpu_conditions_by_their_shapes(name):
  jax = pytest.importorskip("jax")
  from studies import contrast_jobs

  size = SIZES["gpu"]
  run = contrast_jobs.Run(size, CONDITIONS[name])
  rows = run.schedule().batch
  frames = size.long_frames if run.condition.stage == "long" else size.frames
  of = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype)
  clips = {
    "video": of("uint8", frames, size.size, size.size, 3),
    "mean": of("float32", 3),
    "scale": of("float32"),
  }
  batch = {"video": clips, "video texts": of("int32", 2, size.length)}
  params = jax.eval_shape(run.init, jax.random.key(0))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
  part = run.trained.of(params)
  loss = lambda part, params, batch, keys: run.loss(run.trained.merged(part, params), batch, keys)
  value, grads = jax.eval_shape(jax.value_and_grad(loss), part, params, batch, keys)
  assert value.shape == ()
  assert jax.tree.map(lambda x: x.shape, grads) == jax.tree.map(lambda x: x.shape, part)
