"""python -m vfe.tools.export: our exports as folders that transformers load."""

import json
import pathlib
import runpy

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from vfe.errors import UserError
from vfe.interop import bert, videomae
from vfe.learn import exports
from vfe.models import pretrained
from vfe.tools import export

CASE = runpy.run_path(str(pathlib.Path(__file__).parent.parent / "golden" / "make_videomae.py"))


def run(path, out, *more):
  export.main([f"--path={path}", f"--out={out}", *more])


@pytest.fixture(scope="module")
def models():
  return CASE["models"]()


def same(params, others):
  return jax.tree.all(jax.tree.map(np.array_equal, params, others))


@pytest.mark.parametrize("name", ["mae", "classifier"])
def test_a_finished_stage_becomes_a_folder_that_reads_the_same(tmp_path, models, name, capsys):
  exports.write(tmp_path / "stage" / "export", *models[name])
  run(tmp_path / "stage", tmp_path / "out")
  kind, _, params = videomae.read_export(tmp_path / "out")
  assert kind == name and same(params, models[name][2])
  assert f"{videomae.ARCHITECTURES[name]}.from_pretrained" in capsys.readouterr().out
  processor = json.loads((tmp_path / "out" / export.PROCESSOR).read_text())
  assert processor["crop_size"] == {"height": 16, "width": 16}


def test_of_a_pretraining_on_latents_the_encoder_is_written(tmp_path, models, capsys):
  kind, model, params = models["mae"]
  exports.write(tmp_path / "export", kind, {**model, "target": "latent"}, params)
  run(tmp_path, tmp_path / "out")
  assert videomae.read_export(tmp_path / "out")[0] == "encoder"
  assert "decoder, which predicts latents, is left out" in capsys.readouterr().out


def test_a_hugging_face_folder_goes_through_unchanged(tmp_path):
  theirs = pathlib.Path(__file__).parent.parent / "golden" / "videomae" / "theirs"
  run(theirs, tmp_path / "out")
  before, after = (load_file(f / "model.safetensors") for f in (theirs, tmp_path / "out"))
  assert before.keys() == after.keys()
  assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
  "name, architecture",
  [
    ("vit", "ViTModel"),
    ("vivit", "VivitModel"),
    ("beit_mean", "BeitModel"),
    ("bert", "BertForMaskedLM"),
  ],
)
def test_other_models_become_folders_that_read_the_same(tmp_path, name, architecture, capsys):
  """Pixels too, by the image processor beside them."""
  theirs = pathlib.Path(__file__).parent.parent / "golden" / "hf_towers" / name
  run(theirs, tmp_path / "out")
  assert f"{architecture}.from_pretrained" in capsys.readouterr().out
  before, after = (pretrained.read_hugging_face(f) for f in (theirs, tmp_path / "out"))
  assert before.kind == after.kind and before.model == after.model
  assert before.digest == after.digest


def test_a_text_model_goes_with_its_vocabulary(tmp_path):
  theirs = pathlib.Path(__file__).parent.parent / "golden" / "hf_towers" / "bert"
  kind, model, params = bert.read_export(theirs)
  (tmp_path / "vocab.txt").write_text("[PAD]\n")
  model["vocabulary"] = str(tmp_path / "vocab.txt")
  exports.write(tmp_path / "export", kind, model, params)
  run(tmp_path, tmp_path / "out")
  assert (tmp_path / "out" / "vocab.txt").read_text() == "[PAD]\n"


@pytest.mark.parametrize(
  "changes, architecture",
  [
    (dict(cls=True, images=True), "VivitModel"),
    (dict(positions="sincos1d"), "VideoMAEModel"),
  ],
)
def test_both_towers_of_contrastive_training_are_written(
  tmp_path, contrast_export, changes, architecture, capsys
):
  made = contrast_export(tmp_path, **changes)
  run(tmp_path, tmp_path / "out")
  said = capsys.readouterr().out
  assert f"{architecture}.from_pretrained" in said and "BertModel.from_pretrained" in said
  assert ("embedding of images is left out" in said) == ("images" in changes)
  vision, text = (pretrained.read_hugging_face(tmp_path / "out" / n) for n in ("vision", "text"))
  given = {name: leaf for name, leaf in made.params["vision"].items() if name != "embed_image"}
  assert same(vision.params["encoder"], given) and same(text.params["text"], made.params["text"])
  assert text.model["text"] == made.model["dual"]["text"]
  words = (tmp_path / "out" / "text" / "tokenizer.json").read_text()
  assert words == (tmp_path / "export" / "tokenizer.json").read_text()
  top = load_file(tmp_path / "out" / export.PROJECTIONS)
  assert top.keys() == {"vision_projection", "text_projection", "log_scale"}
  kernel = made.params["vision_projection"]["kernel"]
  np.testing.assert_array_equal(top["vision_projection"], kernel)


def test_a_tower_that_transformers_have_no_model_for_leaves_nothing(tmp_path, contrast_export):
  contrast_export(tmp_path)  # learned positions, and the mean of all tokens
  with pytest.raises(UserError, match="ViViT has no encoder without a class token"):
    run(tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_what_was_not_trained_as_transformers_would_run_it_is_refused(
  tmp_path, models, svitt_export
):
  svitt_export(tmp_path / "svitt")
  with pytest.raises(UserError, match=r"open it with vfe\.load"):
    run(tmp_path / "svitt", tmp_path / "out")
  _, model, params = models["mae"]
  sparse = {"encoder": model["encoder"] | {"edges": {"local": 1, "random": 3, "size": 8}}}
  exports.write(tmp_path / "export", "encoder", sparse, {"encoder": params["encoder"]})
  with pytest.raises(UserError, match=r"edges"):
    run(tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_what_transformers_cannot_hold_is_said_and_its_encoder_can_be_written(tmp_path, models):
  kind, model, params = models["classifier"]
  two = {**model, "heads": {"verb": 3, "noun": 3}, "classes": {"verb": [], "noun": []}}
  exports.write(tmp_path / "export", kind, two, params)
  with pytest.raises(UserError, match="2 heads, verb, noun"):
    run(tmp_path, tmp_path / "out")
  run(tmp_path, tmp_path / "out", "--encoder_only")
  assert videomae.read_export(tmp_path / "out")[0] == "encoder"


def test_nothing_is_written_over(tmp_path, models):
  exports.write(tmp_path / "export", *models["mae"])
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  with pytest.raises(UserError, match="not an empty folder"):
    run(tmp_path, tmp_path / "out")
  assert [f.name for f in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_an_unknown_format_and_another_kind_of_model_are_refused(tmp_path):
  exports.write(tmp_path / "export", "targets", {}, {"contents": np.zeros(1, np.uint8)})
  with pytest.raises(UserError, match="nearest: huggingface"):
    run(tmp_path, tmp_path / "out", "--to=hugingface")
  with pytest.raises(UserError, match="holds a targets; only video encoders and text"):
    run(tmp_path, tmp_path / "out")
