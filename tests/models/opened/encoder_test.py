import pathlib

import numpy as np

import vfe
from vfe.models.inflate import relative_tables

BEIT = pathlib.Path(__file__).resolve().parents[2] / "golden" / "hf_towers" / "beit"


def test_relative_positions_go_with_the_clip():
  opened = vfe.load(BEIT)
  longer = opened.resized(frames=2, size=48)
  found = longer.params["encoder"]["blocks"]["relative"]
  tables = opened.params["encoder"]["blocks"]["relative"]
  np.testing.assert_array_equal(found, relative_tables(tables, (1, 4, 4), (2, 6, 6)))
  assert tables.shape == (2, 52, 2) and longer.config.layout.grid == (2, 6, 6)
