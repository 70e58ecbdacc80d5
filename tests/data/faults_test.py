"""Faults have words and travel between processes."""

import pickle

import pytest

from vfe.data import faults
from vfe.data.faults import Fault, FaultError


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_reason_and_stands_in_the_table(fault):
  assert faults.reason(int(fault))
  assert fault is Fault.NONE or f"| {fault.name} " in faults.__doc__


def test_an_error_names_the_video_the_reason_and_what_was_seen():
  error = FaultError(Fault.ABSURD_SIZE, "a/b.mp4", "1x1")
  assert str(error) == "a/b.mp4: the picture's size is absurd (1x1)"


def test_an_error_survives_the_way_out_of_a_worker():
  error = pickle.loads(pickle.dumps(FaultError(Fault.DAMAGED, "a.mp4", "frame 3")))
  assert (error.fault, error.name, error.detail) == (Fault.DAMAGED, "a.mp4", "frame 3")
