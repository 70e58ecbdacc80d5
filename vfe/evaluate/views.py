"""What several views of a record give, as one."""

import numpy as np
from jaxtyping import Float, Int, Shaped


def mean_over_views(
  rows: Int[np.ndarray, "n 2"], values: Float[np.ndarray, "n *D"]
) -> tuple[Shaped[np.ndarray, "N"], Float[np.ndarray, "N *D"]]:
  """(records ascending, the mean over each record's views) of rows of (record, view).

  A row that comes twice counts once.
  """
  rows, first = np.unique(rows, axis=0, return_index=True)
  records, starts = np.unique(rows[:, 0], return_index=True)
  values = values[first]
  if not len(values):
    return records, values
  views = np.diff(np.append(starts, len(rows))).reshape(-1, *(1,) * (values.ndim - 1))
  return records, np.add.reduceat(values, starts, axis=0) / views
