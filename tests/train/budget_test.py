"""The input budget is said once, and no batch is lost or moved by finding it out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.data.sources import ListedSource
from vfe.data.spec import ClipSpec
from vfe.data.streams import Stream
from vfe.data.text import Text
from vfe.learn import sharding
from vfe.train.budget import TIMED, Budget, size
from vfe.train.feed import Feed


class Time:
  """A clock that goes when told."""

  def __init__(self):
    self.at = 0.0

  def __call__(self):
    return self.at


@pytest.fixture
def now():
  return Time()


@dataclasses.dataclass(frozen=True)
class Numbered(Stream):
  """Numbered batches of 1 MiB, one every so many seconds."""

  now: Time = dataclasses.field(default_factory=Time)
  seconds: float = 1.0

  def train(self, seed, rows, start):
    none = np.zeros(0, np.int32)
    host = {"valid": none.astype(bool), "repeated": none, "fault": none, "faulty": none}
    for number in range(1000):
      self.now.at += self.seconds
      yield host | {"row": np.full((8, 1 << 15), number, np.int32)}


CLIPS = ClipSpec(frames=16, size=8)


def made(now, *, workers=0, buffer=2, seconds=1.0, spec=CLIPS):
  source = ListedSource("made", {}, [])
  stream = Numbered(source, spec, 8, workers, buffer, now=now, seconds=seconds)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  return Feed({"clip": stream}, mesh, seed=0, start=0, max_fault_share=0.0, say=print)


def served(feed, count):
  return [int(next(feed)["clip"]["row"][0, 0]) for _ in range(count)]


def test_a_probe_moves_no_batch(now):
  feed = made(now, workers=2)
  assert served(feed, 1) == [0]
  assert feed.probe(now) == pytest.approx(1.0)
  assert served(feed, 8) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_probe_ends_after_some_seconds_but_with_a_batch(now):
  many = made(now, workers=100, seconds=2.0)
  began = now()
  many.probe(now)
  assert now() - began == 6.0  # at 2 and at 4 seconds it is not over
  slow = made(now, seconds=1000.0)
  assert slow.probe(now) == pytest.approx(1e-3)


@pytest.mark.parametrize(("workers", "batches"), [(0, 3), (4, 12)])
def test_buffers_are_counted(now, workers, batches):
  feed = made(now, workers=workers, buffer=3)
  next(feed)
  assert feed.buffered == batches << 20


@pytest.mark.parametrize(("step", "waits"), [(0.5, True), (2.0, False)])
def test_the_budget_is_said_once_with_the_remedy_where_data_are_short(now, step, waits):
  said = []
  budget = Budget(made(now), said.append, now)
  for _ in range(TIMED + 2):
    budget.before()
    now.at += step
    budget.after({"loss": jnp.zeros(())})
  (line,) = said
  wanted = f"wants {128 / step:,.0f} frames/s, the pipeline gives about 128; its buffers take up to"
  assert wanted in line
  assert ("raise data.workers" in line) == waits


def test_texts_alone_are_counted_as_such(now):
  feed = made(now, spec=ClipSpec.of_text(Text("words", 8)))
  next(feed)
  line = Budget(feed, print, now).text(wants=2.0)
  assert "the step wants 16 texts/s, the pipeline gives about 8;" in line
  assert line.endswith("raise data.workers")


def test_sizes_for_a_person():
  assert size(3 << 19) == "1.5 MiB" and size(5 << 29) == "2.5 GiB"
