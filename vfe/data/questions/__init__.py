"""Question-answering data sets as they are published: a reader each, from a folder to a Listing.

    READERS[name](path, variant) -> Listing of the questions whose videos are there

Every entry is a question. Its text has `id` and `video`, as the data set names them, `question` and
`type`, '' where there are no types, and `answers`, all that count as right, none where they are not
published; multiple choice also has `options` and `answer`, the right one's number from 0 or -1.
`vfe.data.questions.options` makes a choice of open-ended ones. docs/video-text.md lists the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vfe.data.listing import Listing
from vfe.data.questions.activitynet_qa import list_activitynet_qa
from vfe.data.questions.egoschema import list_egoschema
from vfe.data.questions.msrvtt_qa import list_msrvtt_qa
from vfe.data.questions.nextqa import list_nextqa
from vfe.data.questions.perception_test import list_perception_test

# data.source -> its reader. A reader takes (data.path, data.variant).
READERS: Mapping[str, Callable[[str, str | None], Listing]] = {
  "egoschema": list_egoschema,
  "nextqa": list_nextqa,
  "perception_test": list_perception_test,
  "activitynet_qa": list_activitynet_qa,
  "msrvtt_qa": list_msrvtt_qa,
}
