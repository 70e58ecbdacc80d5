"""Where the seconds of long videos lie, in each layout."""

import pytest

from vfe.data.ego4d.footage import Absent, Footage


def parts(record, folder):
  """(file, start, end) of each part."""
  return [(part.path.removeprefix(f"{folder}/"), part.start, part.end) for part in record.parts()]


LAYOUTS = {
  "EgoVLP": ("v/uid-1/{}.mp4", (0, 1, 2), 600),
  "LaViLa": ("v/uid-1.mp4/{}.mp4", (0, 300, 600), 300),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clip_is_found_in_its_chunk_and_across_a_border_in_both(layout, make):
  form, names, seconds = LAYOUTS[layout]
  folder = make({}, *(form.format(name) for name in names))
  footage = Footage.below(folder)
  files = [form.format(name) for name in names]
  clip = lambda start, end: parts(footage.record("uid-1", float(start), float(end)), folder)
  assert clip(1.25, 2.5) == [(files[0], 1.25, 2.5)]
  assert clip(seconds + 3, seconds + 4.5) == [(files[1], 3.0, 4.5)]
  assert clip(seconds - 1.5, seconds + 0.25) == [
    (files[0], seconds - 1.5, None), (files[1], None, 0.25)
  ]  # fmt: skip
  assert clip(seconds - 1, seconds) == [(files[0], seconds - 1, seconds)]  # it ends at the border
  assert clip(seconds, seconds + 1) == [(files[1], 0.0, 1.0)]
  assert clip(10, 2 * seconds + 10) == [
    (files[0], 10, None), (files[1], None, None), (files[2], None, 10)
  ]  # fmt: skip
  name = {part.name for part in footage.record("uid-1", 10.0, 2.0 * seconds + 10).parts()}
  assert name == {f"uid-1 [10, {2 * seconds + 10}) s"}


def test_a_whole_file_does_as_well(make):
  folder = make({}, "full/uid-1.mp4", "chunks/uid-1/0.mp4")
  assert parts(Footage.below(folder).record("uid-1", 599.5, 600.5), folder) == [
    ("full/uid-1.mp4", 599.5, 600.5)
  ]


def test_what_is_not_there_is_told_apart(make):
  footage = Footage.below(make({}, "uid-1/0.mp4", "uid-1/2.mp4"))
  assert footage.check("uid-1", 599.0, 600.0) == 600.0
  assert footage.check("uid-1", 599.0, 600.1, 599.9) == 599.9  # it ends with its video
  assert footage.check("uid-1", 598.0, 599.5, 599.0) == 599.5
  with pytest.raises(Absent, match=r"uid-1, chunk 1 of 600 s") as caught:
    footage.record("uid-1", 599.0, 600.1)
  assert caught.value.chunk
  with pytest.raises(Absent, match=r"^uid-2$") as caught:
    footage.check("uid-2", 0.0, 1.0)
  assert not caught.value.chunk
