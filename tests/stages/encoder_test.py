"""Stages with a video encoder begin from what others have trained, contrastive towers too."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.sharding import make_mesh
from vfe.models.inflate import positions
from vfe.stages import encoder as encoders
from vfe.stages.classify import ClassifyStage
from vfe.stages.mae import MAEStage
from vfe.stages.planned import planned
from vfe.stages.stage import Setting
from vfe.tokens.tubes import Tube

MESH = make_mesh({"data": -1})
CLIPS = {"data.frames": 8, "data.size": 32, "model.tubelet": (2, 8, 8)}


def begun(kind, name, config, export):
  """A stage with one real input, and the parameters that it begins with."""
  source = planned(config, name, MESH).setting.open_source
  stage = kind(Setting(name, config, pathlib.Path(), {"encoder": export}, MESH, source))
  return stage, stage.warm()["model"]["encoder"]


def fits(stage, found):
  wanted = jax.eval_shape(stage.init, jax.random.key(0))["model"]["encoder"]
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  return shapes(found) == shapes(wanted)


@pytest.mark.parametrize("mixing", ["joint", "frame"])
def test_a_classifier_begins_with_a_contrastive_tower(tiny, contrast_export, tmp_path, mixing):
  """Its class token and learned positions with it, interpolated to longer and larger clips."""
  export = contrast_export(tmp_path, images=True, cls=True, mixing=mixing)
  config = tiny(CLIPS | {"finetune.inputs.encoder": "", "finetune.pool": "mean"})
  stage, found = begun(ClassifyStage, "finetune", config, export)
  assert (stage.encoder.positions, stage.encoder.cls) == ("learned", True)
  assert stage.encoder.mixing == mixing and not stage.encoder.images
  given = export.params["vision"]
  np.testing.assert_array_equal(found["cls"], given["cls"])
  expected = positions(jnp.asarray(given["position"]), (4, 4, 4))
  np.testing.assert_array_equal(found["position"], expected)
  np.testing.assert_array_equal(found["embed"]["kernel"], given["embed"]["kernel"])
  assert fits(stage, found) and "embed_image" not in found


def test_pretraining_begins_with_a_contrastive_tower_without_its_class_token(
  tiny_pixels, contrast_export, tmp_path
):
  config = tiny_pixels(CLIPS)
  export = contrast_export(tmp_path, cls=True)
  stage, found = begun(MAEStage, "pretrain", config, export)
  assert fits(stage, found) and "position" in found and "cls" not in found
  export = contrast_export(tmp_path / "frame", mixing="frame")
  with config.unlocked():
    config.pretrain.encoder_mask.kind = "random"
  with pytest.raises(UserError, match=r"mixing='frame'.*use kind=tube"):
    begun(MAEStage, "pretrain", config, export)


def test_pretraining_begins_with_a_pruned_encoder_and_lets_all_tokens_go_on(
  tiny_pixels, svitt_export, tmp_path
):
  """The decoder asks for each token that enters."""
  export = svitt_export(tmp_path)
  stage, found = begun(MAEStage, "pretrain", tiny_pixels(CLIPS), export)
  assert fits(stage, found) and stage.encoder.pruning is None and stage.encoder.edges
  assert "left out after layers 0; here all go on" in stage.notes()[0]
  assert encoders.notes(None) == []


def test_an_embedding_of_other_tubelets_is_inflated_or_refused(tiny, contrast_export, tmp_path):
  export = contrast_export(tmp_path, tubelet=(1, 8, 8))
  config = tiny(CLIPS | {"finetune.inputs.encoder": ""})
  stage, found = begun(ClassifyStage, "finetune", config, export)
  kernel = np.tile(export.params["vision"]["embed"]["kernel"], (2, 1)) / 2
  np.testing.assert_allclose(found["embed"]["kernel"], kernel, rtol=1e-6)
  assert fits(stage, found)
  export = contrast_export(tmp_path / "coarse", tubelet=(4, 8, 8))
  with pytest.raises(UserError, match=r"embeds tubelets of \(4, 8, 8\)"):
    begun(ClassifyStage, "finetune", config, export)


def test_tubes_are_for_contrastive_training_only(tiny, contrast_export, tmp_path):
  export = contrast_export(tmp_path, tubes=(Tube((4, 4, 4), (4, 8, 8)),), positions="sincos3d")
  with pytest.raises(UserError, match="embeds tubes, which only stages of kind contrast take"):
    begun(ClassifyStage, "finetune", tiny(CLIPS | {"finetune.inputs.encoder": ""}), export)
