"""What all video-text readers share: finding videos, counting what is left out, choosing."""

import pytest

from vfe import config as configs
from vfe.data import sources
from vfe.data.captioned import READERS
from vfe.data.captioned.collect import Clips, split_of, tidy
from vfe.errors import UserError


def test_a_video_is_found_by_its_id_at_any_depth_and_suffix(make):
  folder = make({}, "a.mp4", "videos/b.WEBM", "videos/x/-c.9.mkv", "raw/deep/er/_d.avi", "e.part")
  make({}, ".cache/f.mp4", "._a.mp4")
  clips = Clips("set", str(folder))
  assert clips.video("train", "a") == str(folder / "a.mp4")
  assert clips.video("train", "b") == str(folder / "videos/b.WEBM")
  assert clips.video("train", "-c.9") == str(folder / "videos/x/-c.9.mkv")
  assert clips.video("train", "v__d", "_d") == str(folder / "raw/deep/er/_d.avi")
  assert clips.video("train", "e") is None and clips.video("train", "f") is None


def test_of_two_files_the_one_nearer_to_the_top_is_taken(make):
  folder = make({}, "all/a.avi", "b/c/a.mp4", "compressed/a.mp4")
  assert Clips("set", str(folder)).video("train", "a") == str(folder / "all/a.avi")


def test_linked_folders_are_entered_once(make):
  folder = make({}, "store/a.mp4")
  (folder / "store" / "loop").symlink_to(folder)
  (folder / "videos").symlink_to(folder / "store")
  assert Clips("set", str(folder)).video("train", "a").endswith("/a.mp4")


def test_texts_are_tidied_and_a_clip_without_one_is_left_out(make, caplog):
  clips = Clips("set", str(make({}, "a.mp4")))
  video = clips.video("train", "a")
  clips.add("train", "list, line 1", video, [" a  dog\n runs ", "", None, "it ends "], (1, "2.5"))
  clips.add("train", "list, line 2", video, [" ", 3])
  clips.add("train", "list, line 3", video, ["One.", " Two."], paragraph=True)
  first, whole = clips.listing().splits["train"]
  assert first.text == {"caption": "a dog runs", "captions": ("a dog runs", "it ends")}
  assert (first.start, first.end, whole.start, whole.end) == (1.0, 2.5, None, None)
  assert whole.text == {
    "caption": "One. Two.", "summary": "One. Two.", "captions": ("One.", "Two.")
  }
  assert "list, line 2: no text ([' ', 3]); left out, as are 0 other rows" in caplog.text
  assert tidy(float("nan")) == ""


@pytest.mark.parametrize(
  "span", [(2, 2), (3, 2), (-1, 2), ("x", 2), (1, None), (1, float("inf")), (float("nan"), 2)]
)
def test_a_span_that_is_none_is_left_out(make, span):
  clips = Clips("set", str(make({}, "a.mp4")))
  clips.add("train", "list, line 7", clips.video("train", "a"), "words", span)
  with pytest.raises(UserError, match=r"list, line 7: start .* is not before end .*no clip of set"):
    clips.listing()


def test_missing_videos_are_said_in_one_line_and_once(make, caplog):
  folder = make({}, "a.mp4")
  for _ in range(2):
    clips = Clips("set", str(folder))
    for split, name in (("train", "a"), ("train", "b"), ("train", "b"), ("test", "c")):
      video = clips.video(split, name)
      if video:
        clips.add(split, "list, line 1", video, "words")
    assert list(clips.listing().splits) == ["train"]
  line = "missing videos, left out: train 1 of 2, test 1 of 1; such as b with .mp4, .mkv, .webm"
  assert caplog.text.count(line) == 1


def test_a_folder_with_none_of_the_videos_is_refused(make):
  clips = Clips("set", str(make({}, "other.mp4")))
  assert not any(clips.video("train", name) for name in "ab")
  with pytest.raises(UserError, match=r"holds any of the 2 videos of set, such as a with \.mp4"):
    clips.listing()


def test_the_splits_of_a_data_set_are_read_once(make, config, monkeypatch):
  folder, reads = make({"captions_msvd.json": {"a": ["x"]}, "train_list.txt": "a\n"}, "a.avi"), []
  read = READERS["msvd"]
  monkeypatch.setitem(READERS, "msvd", lambda *given: reads.append(given) or read(*given))
  for split in ("train", "validation"):
    assert len(sources.open_source(config("msvd", folder), split)) == 1
  assert reads == [(str(folder), None)]


@pytest.mark.parametrize("written", ["train", "training", " Validate", "val", "test"])
def test_splits_go_by_the_names_that_data_sets_give_them(written):
  assert split_of(written) in ("train", "validation", "test")
  assert split_of(["train"]) is None and split_of("testlist") is None


@pytest.mark.parametrize("source", READERS)
def test_every_data_set_is_a_source_that_tells_a_stranger_what_it_wants(source, make, config):
  folder = make({})
  with pytest.raises(UserError, match=rf"{folder}: holds no .*docs/video-text\.md"):
    sources.open_source(config(source, folder), "train")
  with pytest.raises(UserError, match=rf"gone does not exist; data\.source='{source}' wants a fol"):
    sources.open_source(config(source, folder / "gone"), "train")
  with pytest.raises(UserError, match=rf"data\.variant='3k' is unknown to data\.source='{source}'"):
    sources.open_source(config(source, folder, "3k"), "train")
  assert configs.data_source(source) == (source, None)


@pytest.mark.parametrize(
  ("file", "source"),
  [
    ("MSRVTT_JSFUSION_test.csv", "msrvtt"),
    ("train_val_videodatainfo.json", "msrvtt"),
    ("vatex_validation_v1.0.json", "vatex"),
    ("youcookii_annotations_trainval.json.gz", "youcook2"),
    ("validation_youcook.csv", "youcook2"),
    ("val_1.json", "activitynet"),
    ("video_cc_public.csv", "videocc3m"),
    ("raw_caption.json", "howto100m"),
    ("captions_msvd.json.gz", "msvd"),
    ("test_data.json", "didemo"),
    ("something-something-v2-validation.json", "ssv2"),
  ],
)
def test_a_folder_is_known_by_its_official_files(make, file, source):
  folder = make({file: ""})
  assert configs.data_source(str(folder)) == (source, str(folder))
