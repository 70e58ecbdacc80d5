"""What is said in whole videos, from records of the spans in which it is said."""

from __future__ import annotations

import dataclasses

from vfe.data.record import Source, VideoRecord
from vfe.data.sources import ListedSource
from vfe.data.text import captions_of


def transcripts(source: Source, key: str, most: int) -> ListedSource:
  """A record for every video, its text `transcript` all that its records say, in order of time.

  Args:
    source: of spans of videos, or of whole videos.
    key: of the records' texts.
    most: whitespace-separated words of a transcript; the rest of a longer one is left out.

  Videos in which nothing is said are left out.
  """
  spans: dict[str, list[VideoRecord]] = {}
  for i in range(len(source)):
    record = source[i]
    spans.setdefault(record.path or record.name, []).append(record)
  records = []
  for path, parts in spans.items():
    parts = sorted(parts, key=lambda record: record.start or 0.0)
    words = [word for part in parts for said in captions_of(part, key) for word in said.split()]
    if words:
      text = {"transcript": " ".join(words[:most])}
      whole = dataclasses.replace(parts[0], name=path, start=None, end=None, labels={}, text=text)
      records.append(whole)
  return ListedSource(f"{source.name}, transcripts", {}, records)
