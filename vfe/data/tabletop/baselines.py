"""What a result on the world stands beside: baselines that cost a second, NumPy only."""

import numpy as np
from jaxtyping import Float, Float32, Int, Num, UInt8


def chance(train: Int[np.ndarray, "n"], test: Int[np.ndarray, "m"]) -> float:
  """Accuracy of always saying the class that is most frequent in training."""
  return float(np.mean(test == np.bincount(train).argmax()))


def difference_tokens(
  video: UInt8[np.ndarray, "B T H W 3"], tubelet: tuple[int, int, int]
) -> Float32[np.ndarray, "B N"]:
  """log(1 + mean |frame difference|) of each tubelet in grid order; the first frame has none."""
  dt, dh, dw = tubelet
  batch, frames, height, width, _ = video.shape
  grid = (frames // dt, height // dh, width // dw)
  tokens = np.empty((batch, int(np.prod(grid))), np.float32)
  for row, clip in zip(tokens, video, strict=True):
    signed = clip.astype(np.int16)
    change = np.abs(np.diff(signed, axis=0, prepend=signed[:1])).mean(axis=-1)
    blocks = change.reshape(grid[0], dt, grid[1], dh, grid[2], dw)
    row[:] = np.log1p(blocks.mean(axis=(1, 3, 5))).ravel()
  return tokens


def standardise(
  train: Num[np.ndarray, "n *F"], test: Num[np.ndarray, "m *F"]
) -> tuple[Float32[np.ndarray, "n *F"], Float32[np.ndarray, "m *F"]]:
  """Both, less the training mean and divided by the training deviation of each feature."""
  mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
  return tuple(((x - mean) / deviation).astype(np.float32) for x in (train, test))


def standardised_pixels(
  video: UInt8[np.ndarray, "B T H W 3"], train: UInt8[np.ndarray, "n t H W 3"]
) -> Float32[np.ndarray, "B T H W 3"]:
  """Pixels with the training set's mean 0 and deviation 1 in each colour."""
  mean = train.mean(axis=(0, 1, 2, 3), dtype=np.float64)
  deviation = train.std(axis=(0, 1, 2, 3), dtype=np.float64)
  return ((video - mean.astype(np.float32)) / deviation.astype(np.float32)).astype(np.float32)


def dataset_mean_loss(
  train: Float[np.ndarray, "n t *F"], test: Float[np.ndarray, "m t *F"]
) -> float:
  """Mean squared error of predicting the training set's mean at each place.

  Targets of any kind, time on axis 1: standardised pixels, pixels normalised in a tubelet, latents.
  """
  return float(np.mean(np.square(test - train.mean(axis=(0, 1)))))


def static_scene_loss(test: Float[np.ndarray, "m t *F"]) -> float:
  """Mean squared error of predicting, at each place, the clip's own mean over time.

  A model that has not passed it need not have learned anything of motion.
  """
  return float(np.mean(np.square(test - test.mean(axis=1, keepdims=True))))


def mlp_accuracy(
  train: tuple[Float[np.ndarray, "n F"], Int[np.ndarray, "n"]],
  test: tuple[Float[np.ndarray, "m F"], Int[np.ndarray, "m"]],
  *,
  hidden: int = 64,
  steps: int = 600,
  batch: int = 64,
  rate: float = 2e-3,
  decay: float = 1e-2,
  seed: int = 0,
) -> float:
  """Test accuracy of a network with one hidden layer, trained with AdamW on standardised features.

  train, test: (features, classes). The rate falls linearly to 0.
  """
  rng = np.random.Generator(np.random.PCG64(seed))
  x, x_test = standardise(train[0], test[0])
  classes = int(max(train[1].max(), test[1].max())) + 1
  wide = x.shape[1]
  params = [
    rng.normal(0, wide**-0.5, (wide, hidden)).astype(np.float32),
    np.zeros(hidden, np.float32),
    np.zeros((hidden, classes), np.float32),
    np.zeros(classes, np.float32),
  ]
  first, second = [0.0 * p for p in params], [0.0 * p for p in params]
  for step in range(1, steps + 1):
    rows = rng.integers(len(x), size=batch)
    gradients = _gradients(params, x[rows], train[1][rows])
    for i, gradient in enumerate(gradients):
      first[i] = 0.9 * first[i] + 0.1 * gradient
      second[i] = 0.99 * second[i] + 0.01 * gradient**2
      update = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-8)
      shrink = decay * params[i] if params[i].ndim == 2 else 0.0
      params[i] = params[i] - rate * (1 - step / steps) * (update + shrink)
  return float(np.mean(_logits(params, x_test)[1].argmax(axis=1) == test[1]))


def _logits(params, x):
  hidden = np.maximum(x @ params[0] + params[1], 0)
  return hidden, hidden @ params[2] + params[3]


def _gradients(params, x, labels):
  """Of the mean cross-entropy, in the order of the parameters."""
  hidden, logits = _logits(params, x)
  error = np.exp(logits - logits.max(axis=1, keepdims=True))
  error /= error.sum(axis=1, keepdims=True)
  error[np.arange(len(x)), labels] -= 1
  error /= len(x)
  back = (error @ params[2].T) * (hidden > 0)
  return x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)
