"""An image file is a video of one frame, as a browser shows it."""

import io

import numpy as np
import pytest
from PIL import Image

from vfe.data import augment
from vfe.data.decode import VideoInfo, probe, read_clip, read_views
from vfe.data.faults import Fault, FaultError
from vfe.data.image import ImageFile
from vfe.data.record import VideoRecord
from vfe.data.sampling import Sampling
from vfe.data.video import open_video

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def picture():
  """Smooth, so that lossy formats keep it, and unlike itself turned in any way."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  return np.stack([3 * x, 4 * y, 2 * x + y], axis=-1).astype(np.uint8)


def saved(image, form="PNG", **options):
  out = io.BytesIO()
  (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(out, form, **options)
  return out.getvalue()


def record(data, **span):
  return VideoRecord(name="made", data=data, **span)


def read(data):
  return read_clip(record(data), 1, Sampling(), None).frames[0]


@pytest.mark.parametrize(
  ("form", "options", "tolerance"),
  [
    ("PNG", {}, 0), ("BMP", {}, 0), ("WEBP", {"lossless": True}, 0),
    # Colours are halved in width and height, and rounded twice.
    ("JPEG", {"quality": 95}, 12), ("WEBP", {"quality": 95}, 16),
    ("JPEG", {"quality": 95, "progressive": True}, 12),
  ],
)
def test_every_format_is_read_as_it_is_meant(picture, form, options, tolerance, tmp_path):
  data = saved(picture, form, **options)
  difference = np.abs(read(data).astype(int) - picture)
  assert difference.max() <= tolerance and difference.mean() <= tolerance / 8
  path = tmp_path / "%03d of any name"
  path.write_bytes(data)
  at_path = read_clip(VideoRecord(name="a", path=str(path)), 1, Sampling(), None).frames[0]
  np.testing.assert_array_equal(at_path, read(data))


def test_an_image_is_probed(picture):
  assert probe(record(saved(picture, "JPEG"))) == VideoInfo(
    frames=1, fps=1.0, seconds=1.0, height=HEIGHT, width=WIDTH, pixel_aspect=1.0, codec="jpeg",
    seekable=True,
  )


# EXIF's orientation, and what a viewer shows of the stored picture.
TURNED = {
  1: lambda p: p,
  2: lambda p: p[:, ::-1],
  3: lambda p: np.rot90(p, 2),
  4: lambda p: p[::-1],
  5: lambda p: p.transpose(1, 0, 2),
  6: lambda p: np.rot90(p, -1),
  7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
  8: lambda p: np.rot90(p),
  9: lambda p: p,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_orientation_is_applied(picture, form, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  upright, turned = read(saved(picture, form)), read(saved(picture, form, exif=exif))
  np.testing.assert_array_equal(turned, TURNED[orientation](upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_turns_nothing(picture):
  data = saved(picture, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
  np.testing.assert_array_equal(read(data), read(saved(picture, "JPEG")))


def test_transparent_pixels_are_white_in_every_mode(picture):
  alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
  alpha[:, :10] = 0
  clear = Image.fromarray(np.dstack([picture, alpha]))
  for made in (clear, clear.convert("LA"), clear.quantize()):
    shown = read(saved(made, "PNG"))
    assert (shown[:, :10] == 255).all() and (shown[:, 30] != 255).any()
  grey = Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8))
  assert (read(saved(grey, "PNG", transparency=7)) == 255).all()


def test_grey_palette_bits_and_sixteen_bits_become_rgb(picture):
  grey = picture[..., 0]
  expected = np.repeat(grey[..., None], 3, axis=-1)
  np.testing.assert_array_equal(read(saved(grey)), expected)
  np.testing.assert_array_equal(read(saved(grey.astype(np.uint16) * 256 + 99)), expected)
  np.testing.assert_array_equal(read(saved(Image.fromarray(grey).convert("P"))), expected)
  assert set(read(saved(Image.fromarray(grey).convert("1"))).ravel().tolist()) == {0, 255}


def test_cmyk_becomes_rgb(picture):
  shown = read(saved(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95))
  assert np.abs(shown.astype(int) - picture).mean() < 3


def test_the_first_picture_of_an_animation_is_shown(picture):
  more = [Image.fromarray(255 - picture)]
  for form in ("WEBP", "PNG"):
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(picture, form, save_all=True, append_images=more, **options)
    np.testing.assert_array_equal(read(data), picture)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_large_images_are_shrunk_on_leaving_the_decoder(form, picture):
  large = np.asarray(Image.fromarray(picture).resize((WIDTH * 20, HEIGHT * 20)))
  with open_video(record(saved(large, form)), short_side=100) as opened:
    [(_, small)] = opened.read([0])
  assert 100 <= min(small.shape[:2]) < 200
  expected = Image.fromarray(large).resize(small.shape[1::-1], Image.Resampling.BOX)
  assert np.abs(small.astype(int) - np.asarray(expected)).mean() < 2


def test_a_clip_of_an_image_repeats_it_at_every_rate(picture):
  for sampling in (Sampling(), Sampling("first", fps=1.0), Sampling("uniform"), Sampling(fps=2.0)):
    views = read_views(
      record(saved(picture)), 4, sampling, np.random.default_rng(0),
      lambda height, width: [augment.center(height, width, 16)],
    )
    assert views[0].repeated == 3 and (views[0].frames == views[0].frames[0]).all()


@pytest.mark.parametrize(
  ("make", "fault"),
  [
    (lambda data: data[: len(data) // 2], Fault.DAMAGED),
    (lambda data: data[:20], Fault.UNOPENABLE),
    (lambda data: data[:60] + b"\xff" * (len(data) - 60), Fault.DAMAGED),
  ],
)
def test_a_broken_png_is_a_fault(picture, make, fault):
  with pytest.raises(FaultError, match="made: ") as caught:
    read(make(saved(picture)))
  assert caught.value.fault is fault


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP"])
def test_an_image_cut_short_is_a_fault(picture, form):
  data = saved(picture, form)
  with pytest.raises(FaultError) as caught:
    read(data[: len(data) * 3 // 4])
  assert caught.value.fault in (Fault.DAMAGED, Fault.UNOPENABLE)


def test_an_absurd_size_is_refused_by_the_header(monkeypatch, picture):
  monkeypatch.setattr(ImageFile, "_picture", lambda self: pytest.fail("it was decoded"))
  for size, most in (((30_000, 30_000), 10**9), ((200, 100), 19_999), ((7, 100), 10**6)):
    data = saved(Image.new("1", size))
    with pytest.raises(FaultError) as caught, open_video(record(data), max_pixels=most) as opened:
      next(opened.play())
    assert caught.value.fault is Fault.ABSURD_SIZE


def test_the_frame_of_an_image_is_at_second_0(picture):
  data = saved(picture)
  with open_video(record(data, start=0.0, end=0.1)) as opened:
    assert opened.count == 1 and opened.times().tolist() == [0.0]
  with pytest.raises(FaultError) as caught, open_video(record(data, start=0.5)):
    pass
  assert caught.value.fault is Fault.EMPTY_CLIP


def test_a_missing_image_is_missing(tmp_path):
  with pytest.raises(FaultError) as caught:
    read_clip(VideoRecord(name="a", path=str(tmp_path / "a.jpg")), 1, Sampling(), None)
  assert caught.value.fault is Fault.MISSING
