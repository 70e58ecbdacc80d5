"""VideoCC3M from its official file."""

import pytest

from vfe.data import sources
from vfe.data.captioned import videocc3m
from vfe.errors import UserError

LINES = """\
aaaaaaaaaaa,1500000,11500000,"a man, a dog"
https://www.youtube.com/watch?v=-b_bbbbbbbb&t=3,0,2000000, the sea, at night
gone-------,0,1,x
aaaaaaaaaaa,5,late,x
aaaaaaaaaaa,5
aaaaaaaaaaa,9,5,x
"""
VIDEOS = ["videos/00/aaaaaaaaaaa.mp4", "-b_bbbbbbbb.webm"]


@pytest.mark.parametrize("header", ["", "Video URL,Start timestamp,End timestamp,Caption\n"])
def test_times_are_microseconds_and_a_caption_may_hold_commas(make, config, caplog, header):
  folder = make({videocc3m.LIST + ".gz": header + LINES}, *VIDEOS)
  train = sources.open_source(config("videocc3m", folder), "train")
  assert [(train[i].start, train[i].end, train[i].text["caption"]) for i in range(len(train))] == [
    (1.5, 11.5, "a man, a dog"), (0.0, 2.0, "the sea, at night")
  ]
  assert train[1].path == str(folder / "-b_bbbbbbbb.webm")
  assert "train 1 of 3; such as gone------- with" in caplog.text
  assert f"line {5 if header else 4}: start and end are not microseconds" in caplog.text
  assert "left out, as are 2 other rows" in caplog.text


@pytest.mark.parametrize(
  "address",
  [
    "dQw4w9WgXc-", "https://youtu.be/dQw4w9WgXc-?t=1", "http://youtube.com/watch?a=b&v=dQw4w9WgXc-",
    "https://www.youtube.com/embed/dQw4w9WgXc-",
  ],
)
def test_an_address_gives_the_id(address):
  assert videocc3m.youtube_id(address) == "dQw4w9WgXc-"


def test_it_has_no_variants(make):
  with pytest.raises(UserError, match=r"data\.variant='full' .*videocc3m' \(it has none\)"):
    videocc3m.list_videocc3m(str(make({videocc3m.LIST: LINES})), "full")
