"""Which frames make a clip."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from vfe.data.sampling import SAMPLERS, Sampling
from vfe.errors import UserError

samplings = st.builds(
  Sampling, kind=st.sampled_from(sorted(SAMPLERS)), stride=st.integers(1, 9),
  align=st.integers(1, 20),
)
counts, lengths = st.integers(1, 3000), st.integers(1, 140)
seeds = st.none() | st.integers(0, 2**32 - 1)


def generator(seed):
  return None if seed is None else np.random.default_rng(seed)


def check(sample, sampling, count, frames):
  """What holds of every clip."""
  indices = sample.indices
  assert indices.shape == (frames,) and indices.dtype == np.int64
  assert indices[0] == sample.start >= 0 and indices[-1] < count
  kept = indices[: frames - sample.repeated]
  assert (np.diff(kept) > 0).all() and (indices[frames - sample.repeated :] == count - 1).all()
  if sampling.kind == "strided":
    assert sample.start % sampling.align == 0
  if sampling.kind in ("strided", "first"):
    assert (np.diff(kept) == sampling.stride).all()


@settings(max_examples=200, deadline=None)
@given(samplings, counts, lengths, seeds)
def test_a_clip_has_its_length_in_order_within_the_video(sampling, count, frames, seed):
  check(sampling.sample(count, frames, generator(seed)), sampling, count, frames)


@settings(max_examples=100, deadline=None)
@given(samplings, counts, lengths, st.integers(1, 5))
def test_views_are_clips_in_order_of_time(sampling, count, frames, clips):
  views = sampling.views(count, frames, clips)
  assert len(views) == clips
  for view in views:
    check(view, sampling, count, frames)
  assert all((a.indices <= b.indices).all() for a, b in itertools.pairwise(views))


@settings(max_examples=100, deadline=None)
@given(samplings, counts, lengths)
def test_frames_are_repeated_only_when_they_do_not_suffice(sampling, count, frames):
  stride = sampling.stride if sampling.kind in ("strided", "first") else 1
  short = count < (frames - 1) * stride + 1
  assert bool(sampling.sample(count, frames, None).repeated) == short


def test_equal_generators_choose_equal_frames():
  for kind in SAMPLERS:
    chosen = [Sampling(kind).sample(500, 16, generator(3)).indices for _ in range(2)]
    np.testing.assert_array_equal(*chosen)


def test_random_starts_reach_both_ends():
  sampling, rng = Sampling("strided", stride=2), np.random.default_rng(0)
  starts = {sampling.sample(20, 8, rng).start for _ in range(200)}
  assert starts == set(range(20 - 14))


def test_aligned_starts_reach_every_window():
  sampling, rng = Sampling("strided", align=16), np.random.default_rng(0)
  assert {sampling.sample(96, 32, rng).start for _ in range(200)} == {0, 16, 32, 48, 64}


def test_the_centred_clip_leaves_as_much_before_as_after():
  assert Sampling("strided").sample(100, 20, None).indices.tolist() == list(range(40, 60))


def test_uniform_takes_both_ends():
  assert Sampling("uniform").sample(101, 5, None).indices.tolist() == [0, 25, 50, 75, 100]


def test_segments_give_their_middle_or_any_of_theirs():
  segment, rng = Sampling("segment"), np.random.default_rng(0)
  assert segment.sample(40, 4, None).indices.tolist() == [4, 14, 24, 34]
  drawn = np.stack([segment.sample(40, 4, rng).indices for _ in range(300)])
  assert [set(column) for column in drawn.T] == [set(range(i, i + 10)) for i in (0, 10, 20, 30)]


def test_views_of_windows_span_the_video():
  views = Sampling("strided").views(100, 20, 3)
  assert [view.start for view in views] == [0, 40, 80]


def test_the_first_frames_are_the_first_in_training_too():
  rng = np.random.default_rng(0)
  assert Sampling("first", stride=3).sample(100, 4, rng).indices.tolist() == [0, 3, 6, 9]
  assert [view.start for view in Sampling("first").views(100, 4, 3)] == [0, 0, 0]


# At a given rate.

timed = st.builds(
  Sampling, kind=st.sampled_from(["strided", "first"]), align=st.integers(1, 20),
  fps=st.floats(0.05, 120.0),
)
gaps = st.lists(st.integers(1, 3000), max_size=300)  # milliseconds between frames


def stamps(gaps):
  return np.cumsum([0, *gaps]) / 1000


@settings(max_examples=200, deadline=None)
@given(timed, gaps, lengths, seeds)
def test_frames_are_those_shown_at_the_moments_of_the_rate(sampling, gaps, frames, seed):
  times = stamps(gaps)
  sample = sampling.sample(len(times), frames, generator(seed), lambda: times)
  assert sample.indices.shape == (frames,) and sample.indices.dtype == np.int64
  assert sample.indices[0] == sample.start and sample.start % sampling.align == 0
  kept = frames - sample.repeated
  assert kept >= 1 and (sample.indices[kept:] == len(times) - 1).all()
  for number, index in enumerate(sample.indices[:kept].tolist()):
    moment = times[sample.start] + number / sampling.fps
    assert times[index] <= moment + 2e-6
    assert index == len(times) - 1 or times[index + 1] > moment - 2e-6


@settings(max_examples=100, deadline=None)
@given(counts, lengths, seeds, st.integers(1, 9), st.sampled_from([10.0, 25.0, 30000 / 1001]))
def test_the_rate_of_an_even_video_is_a_stride(count, frames, seed, stride, rate):
  """Every stride-th frame, of the centred window at evaluation, and as often one as the other."""
  by_time, by_count = Sampling(fps=rate / stride), Sampling(stride=stride)
  times = lambda: np.arange(count) / rate
  sample = by_time.sample(count, frames, generator(seed), times)
  check(sample, by_count, count, frames)
  if seed is None:
    np.testing.assert_array_equal(sample.indices, by_count.sample(count, frames, None).indices)


def test_random_starts_at_a_rate_reach_both_ends():
  sampling, rng = Sampling(fps=5.0), np.random.default_rng(0)
  starts = {sampling.sample(20, 8, rng, lambda: np.arange(20) / 10).start for _ in range(300)}
  assert starts == set(range(20 - 14))


def test_a_video_shorter_than_frames_at_the_rate_shows_each_second_once_then_its_last_frame():
  times = lambda: np.arange(75) / 25  # 3 s
  for sampling in (Sampling("first", fps=1.0), Sampling(fps=1.0)):
    sample = sampling.sample(75, 6, None, times)
    assert sample.indices.tolist() == [0, 25, 50, 74, 74, 74] and sample.repeated == 3


def test_views_at_a_rate_span_the_video():
  views = Sampling(fps=1.0).views(100, 4, 3, lambda: np.arange(100) / 10)
  assert [view.indices.tolist() for view in views] == [
    [0, 10, 20, 30], [34, 44, 54, 64], [69, 79, 89, 99]
  ]


def test_one_frame_serves_any_rate():
  sample = Sampling(fps=0.5).sample(1, 3, np.random.default_rng(0), lambda: np.zeros(1))
  assert sample.indices.tolist() == [0, 0, 0] and sample.repeated == 2


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    ({"kind": "randm"}, "data.sampling.kind='randm'.*strided, first, uniform, segment"),
    ({"stride": 0}, "data.sampling.stride=0"),
    ({"align": -16}, "data.sampling.align=-16"),
    ({"fps": -1.0}, "data.sampling.fps=-1.0 is no rate"),
    ({"fps": float("nan")}, "data.sampling.fps=nan is no rate"),
    ({"fps": 1.0, "stride": 2}, "fps=1 and stride=2 both"),
  ],
)
def test_a_wrong_setting_is_the_users(wrong, words):
  with pytest.raises(UserError, match=words):
    Sampling(**wrong)
