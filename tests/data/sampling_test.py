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
  stride = sampling.stride if sampling.kind == "strided" else 1
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


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    ({"kind": "randm"}, "data.sampling.kind='randm'.*strided, uniform, segment"),
    ({"stride": 0}, "data.sampling.stride=0"),
    ({"align": -16}, "data.sampling.align=-16"),
  ],
)
def test_a_wrong_setting_is_the_users(wrong, words):
  with pytest.raises(UserError, match=words):
    Sampling(**wrong)
