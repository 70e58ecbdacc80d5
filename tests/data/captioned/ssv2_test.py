"""Something-Something v2 from its official files."""

import pytest

from vfe.data import sources
from vfe.data.captioned import ssv2
from vfe.errors import UserError

TRAIN = [
  {
    "id": "78687", "label": "holding potato next to vicks vaporub bottle",
    "template": "Holding [something] next to [something]",
    "placeholders": ["potato", "vicks vaporub bottle"],
  },
  {"id": 3, "label": "a", "template": "A"},
  {"id": "4", "label": "a", "template": None},
  "row",
]  # fmt: skip
VALIDATION = [
  {"id": str(i), "label": f"spinning coin {i}", "template": "Spinning [something]"}
  for i in range(4)
]
FILES = {ssv2.FILES["train"][0]: TRAIN, ssv2.FILES["validation"][0]: VALIDATION}
VIDEOS = [f"20bn-something-something-v2/{name}.webm" for name in ("78687", "4", "0", "1", "2")]


def test_a_clip_has_its_label_and_its_template(make, config, caplog):
  data = config("ssv2", make(FILES, *VIDEOS))
  (potato,) = sources.open_source(data, "train")
  assert potato.text["caption"] == "holding potato next to vicks vaporub bottle"
  assert potato.text["template"] == "Holding something next to something"
  assert len(sources.open_source(data, "validation")) == 3
  assert "v2-train.json, row 2: no id or template; left out, as are 2 other rows" in caplog.text
  assert "train 0 of 1, validation 1 of 4; such as 3 with .mp4" in caplog.text


@pytest.mark.parametrize(
  ("videos", "labels"),
  [(["2.webm", "0.webm"], ["spinning coin 0", "spinning coin 2"]), ("2.webm", ["spinning coin 2"])],
)
def test_retrieval_is_measured_on_the_clips_of_a_list(make, videos, labels, caplog):
  listed = {ssv2.LISTS[1]: [{"video": videos, "caption": "x"}, {"video": "9.webm"}, {}]}
  folder = make({"train.json": TRAIN, "validation.json.gz": VALIDATION} | listed, *VIDEOS)
  splits = ssv2.list_ssv2(str(folder), "retrieval").splits
  assert [entry.text["caption"] for entry in splits["validation"]] == labels
  assert len(splits["train"]) == 1
  assert "val_small.json, row 3: no video; left out, as are 4 other rows" in caplog.text


def test_the_list_and_the_validation_clips_are_needed_for_that(make):
  folder = make(FILES, *VIDEOS)
  with pytest.raises(UserError, match=r"holds no ssv2_ret_label_val_small\.json or ssv2_ret_templ"):
    ssv2.list_ssv2(str(folder), "retrieval")
  (folder / ssv2.FILES["validation"][0]).unlink()
  with pytest.raises(UserError, match=r"holds no something-something-v2-validation\.json or valid"):
    ssv2.list_ssv2(str(folder), "retrieval")
