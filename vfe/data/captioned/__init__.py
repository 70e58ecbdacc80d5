"""Video-text data sets as they are published: a reader each, from a local folder to a Listing.

    READERS[name](path, variant) -> Listing of the clips whose videos are there

Every entry's text has `captions`, all sentences, and `caption`, the first of them; whole videos
have all sentences as a paragraph in `caption` and `summary`. docs/video-text.md lists the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vfe.data.captioned.activitynet import list_activitynet
from vfe.data.captioned.charades_ego import list_charades_ego
from vfe.data.captioned.didemo import list_didemo
from vfe.data.captioned.epic_kitchens import list_epic_kitchens
from vfe.data.captioned.howto100m import list_howto100m
from vfe.data.captioned.msrvtt import list_msrvtt
from vfe.data.captioned.msvd import list_msvd
from vfe.data.captioned.ssv2 import list_ssv2
from vfe.data.captioned.vatex import list_vatex
from vfe.data.captioned.videocc3m import list_videocc3m
from vfe.data.captioned.youcook2 import list_youcook2
from vfe.data.listing import Listing

# data.source -> its reader. A reader takes (data.path, data.variant).
READERS: Mapping[str, Callable[[str, str | None], Listing]] = {
  "msrvtt": list_msrvtt,
  "vatex": list_vatex,
  "youcook2": list_youcook2,
  "activitynet": list_activitynet,
  "videocc3m": list_videocc3m,
  "howto100m": list_howto100m,
  "msvd": list_msvd,
  "epic_kitchens": list_epic_kitchens,
  "charades_ego": list_charades_ego,
  "didemo": list_didemo,
  "ssv2": list_ssv2,
}
