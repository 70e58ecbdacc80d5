"""python -m vfe.tools.describe: texts and answers of video files."""

import json

import pytest

from vfe.data.tabletop import World, encode, render, scenario
from vfe.errors import UserError
from vfe.models import pretrained
from vfe.tools import describe


@pytest.fixture(scope="module")
def model(tmp_path_factory, caption_run):
  folder = tmp_path_factory.mktemp("describe")
  caption_run(folder / "run", folder)
  return folder / "run" / "caption"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp("video") / "a.mp4"
  world = World(frames=64, size=32)
  encode(render(world, scenario(world, 0, "validation")), path)
  return str(path)


def test_a_line_a_video_and_a_bad_one_does_not_stop_the_rest(model, video, tmp_path, capsys):
  bad, out = str(tmp_path / "b.mp4"), tmp_path / "found.json"
  argv = [video, bad, video, f"--model={model}", "--prompt=caption", f"--json={out}"]
  with pytest.raises(UserError, match=r"1 of 3 videos could not be read, such as .*b\.mp4"):
    describe.main(argv)
  captioner = pretrained.load(model)
  text = captioner.describe(captioner.read(video, "caption"), "caption")[0]
  said = capsys.readouterr()
  assert said.out == f"{video}: {text}\n" * 2
  assert said.err.startswith(f"vfe: {bad}: the file is missing") and said.err.count("\n") == 1
  first, second, third = json.loads(out.read_text())
  assert first == third == {"video": video, "prompt": "A caption of the video:", "text": text}
  assert second["video"] == bad and "missing" in second["error"]


def test_the_likeliest_option_of_a_part_of_the_video(model, video, tmp_path, capsys):
  options, out = ["red cup", "blue ball", "cup"], tmp_path / "found.json"
  given = [f"--option={option}" for option in options]
  argv = [video, f"--model={model}", "--question=which cup", "--segment=0.5:", f"--json={out}"]
  describe.main(argv + given)
  [found] = json.loads(out.read_text())
  likely = dict(zip(options, found["log_likelihood"], strict=True))
  assert found["text"] == max(likely, key=likely.get)
  assert capsys.readouterr().out == f"{video}: {found['text']}\n"
  captioner = pretrained.load(model)
  chosen = captioner.choose(captioner.read(video, "validation"), ["which cup"], [options])
  assert chosen.log_likelihood[0].tolist() != pytest.approx(found["log_likelihood"], rel=1e-5)


@pytest.mark.parametrize("flags, message", [
  (["--option=a", "--option=b"], "give a --question"),
  (["--question=which", "--option=a"], "two options or more"),
  (["--segment=5"], "'5' is not START:END in seconds"),
  (["--segment=5:4"], "'5:4' is not START:END"),
  (["--segment=a:b"], "'a:b' is not START:END"),
  (["--json=/nowhere/a.json"], "no such folder"),
])  # fmt: skip
def test_flags_that_cannot_be(flags, message):
  with pytest.raises(UserError, match=message):
    describe.main(["a.mp4", "--model=x", *flags])


def test_a_model_that_writes_nothing(tmp_path, contrast_export):
  contrast_export(tmp_path)
  with pytest.raises(UserError, match="writes no texts about videos"):
    describe.main(["a.mp4", f"--model={tmp_path}"])
