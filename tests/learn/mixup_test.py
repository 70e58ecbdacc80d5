import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.learn.mixup import mix, soft_targets

CLASSES = {"verb": 3, "noun": 5}
LABELS = {"verb": jnp.array([0, 1, 2, 1]), "noun": jnp.array([4, 3, 2, -1])}


@pytest.fixture
def video():
  return jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 2, 12, 16, 3)), jnp.uint8)


def mixed(seed, video, **options):
  # One jit a set of options: the many seeds below share its program.
  run = jax.jit(lambda rng, video: mix(rng, video, LABELS, CLASSES, **options))
  return jax.vmap(run, (0, None))(jax.vmap(jax.random.key)(jnp.arange(seed)), video)


def test_soft_targets():
  np.testing.assert_allclose(
    soft_targets(jnp.array([1, -1]), 4, 0.2), [[0.05, 0.85, 0.05, 0.05], [0, 0, 0, 0]], rtol=1e-6
  )


def test_off_is_the_batch_itself(video):
  same, targets = mix(jax.random.key(0), video, LABELS, CLASSES, mixup=0.0, cutmix=0.0)
  assert same is video
  np.testing.assert_array_equal(targets["verb"], soft_targets(LABELS["verb"], 3, 0.1))


def test_mixup_blends_each_row_with_its_mirror_image_in_the_batch(video):
  out, targets = mixed(8, video, cutmix=0.0, smoothing=0.0)
  shares = targets["noun"][:, 0, 4]  # row 0 alone has class 4, its partner has no label
  assert len(np.unique(shares)) == 8 and (shares >= 0).all() and (shares <= 1).all()
  for share, blended in zip(shares, out, strict=True):
    expected = share * video + (1 - share) * video[::-1].astype(jnp.float32)
    # Rounding, and one more unit where float32 falls on the other side of a half.
    assert np.abs(np.asarray(blended, np.float32) - expected).max() <= 0.5 + 1e-3


def test_cutmix_puts_in_a_box_of_the_other_and_counts_its_pixels(video):
  out, targets = mixed(16, video, mixup=0.0, smoothing=0.0)
  sizes = set()
  for cut, share in zip(np.asarray(out), targets["noun"][:, 0, 4], strict=True):
    own = (cut == np.asarray(video)).all((0, 1, 4))
    other = (cut == np.asarray(video[::-1])).all((0, 1, 4))
    assert (own ^ other).all()  # the same pixels in every row and frame
    rows, columns = other.any(1), other.any(0)
    np.testing.assert_array_equal(other, rows[:, None] & columns[None, :])
    np.testing.assert_allclose(share, own.mean(), rtol=1e-6)
    sizes.add(int(other.sum()))
  assert len(sizes) > 5


def test_targets_of_several_heads_are_mixed_by_the_same_share(video):
  _, targets = mixed(8, video, smoothing=0.1)
  for verb, noun in zip(targets["verb"], targets["noun"], strict=True):
    np.testing.assert_allclose(verb.sum(-1), 1, rtol=1e-6)
    share = noun[0].sum()  # of row 0, whose partner has no noun
    np.testing.assert_allclose(noun[3].sum(), 1 - share, atol=1e-6)
    one, two = soft_targets(LABELS["verb"], 3, 0.1)[jnp.array([0, 3])]
    np.testing.assert_allclose(verb[0], share * one + (1 - share) * two, atol=1e-6)


def test_both_are_taken_in_turn(video):
  out, _ = mixed(24, video)
  cut = [bool(((np.asarray(o) == video) | (np.asarray(o) == video[::-1])).all()) for o in out]
  assert (
    4 < sum(cut) < 20
  )  # binomial(24, 1/2): outside with a chance of 1e-3, and the keys are fixed
