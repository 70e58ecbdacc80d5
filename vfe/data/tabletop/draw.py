"""A scenario drawn: NumPy only, all frames of a box at once, edges smoothed by their distance.

Everything on the table is a signed distance (negative inside, in pixels) evaluated in a box around
it, turned into coverage by clipping over one pixel, and blended into the uint8 frames.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Float32, UInt8

from vfe.data.tabletop.motion import Camera, Motion, ThingTrack, camera, motion
from vfe.data.tabletop.story import RADIUS, Scenario, Thing
from vfe.data.tabletop.world import COLOURS, SHAPES, TEXTURES, World, generator

HAND = 255  # in masks; background is 0, thing i is i + 1
CHUNK = 1 << 18  # pixels drawn at a time, so that they stay in the processor's cache

RGB = {
  "red": (222, 42, 38),
  "yellow": (250, 214, 30),
  "green": (30, 166, 60),
  "blue": (30, 84, 226),
  "purple": (160, 50, 190),
  "white": (244, 244, 240),
}
FOOT = 0.8  # things tip about a point that many radii below their middle
TABLES = ((88, 102, 112), (98, 112, 98), (74, 78, 86), (104, 98, 110))
SKINS = ((236, 188, 158), (214, 152, 116), (172, 112, 80), (128, 80, 56))
SLEEVES = ((44, 48, 60), (206, 204, 198), (60, 90, 84))
CLOTH, CLOTH_STRIPE = (216, 208, 186), (146, 92, 66)
SHADOW = (18, 18, 22)

Grid = Float32[np.ndarray, "n b b"]


@dataclasses.dataclass
class Canvas:
  """Frames [n, S, S, 3] and their mask [n, S, S] (None when nobody asked), being drawn on."""

  frames: np.ndarray
  mask: np.ndarray | None

  @property
  def size(self) -> int:
    return self.frames.shape[1]


@dataclasses.dataclass
class Box:
  """A square of pixels in some of the canvas's frames.

  pixel: int32[n, b, b], flat index of each pixel, -1 outside the picture.
  x, y: float32[n, b, b] or what broadcasts to it, pixels from the box's middle.
  """

  pixel: np.ndarray
  x: np.ndarray
  y: np.ndarray


def box(canvas: Canvas, frames: np.ndarray, x: np.ndarray, y: np.ndarray, half: float) -> Box:
  """The pixels within `half` of the points (x, y), one point for each of the given frames."""
  size = canvas.size
  side = np.arange(2 * int(np.ceil(half)) + 1, dtype=np.int32)
  columns = np.floor(x - len(side) / 2 + 0.5).astype(np.int32)[:, None] + side
  rows = np.floor(y - len(side) / 2 + 0.5).astype(np.int32)[:, None] + side
  inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None]
  start = frames.astype(np.int32)[:, None] * size
  pixel = np.where(inside, ((start + rows) * size)[:, :, None] + columns[:, None], -1)
  return Box(
    pixel=pixel,
    x=(columns + np.float32(0.5) - x[:, None])[:, None, :].astype(np.float32),
    y=(rows + np.float32(0.5) - y[:, None])[:, :, None].astype(np.float32),
  )


def blend(canvas: Canvas, where: Box, distance: np.ndarray, colour, *, opacity=1.0, label=None):
  """Paints one colour where the distance (pixels, negative inside) says, smooth over one pixel."""
  painted = np.flatnonzero((distance < 0.5) & (where.pixel >= 0))
  pixel = where.pixel.ravel()[painted]
  alpha = np.minimum(np.float32(0.5) - distance.ravel()[painted], 1) * np.float32(opacity)
  flat = canvas.frames.reshape(-1, 3)
  below = flat[pixel].astype(np.float32)
  below += (np.asarray(colour, np.float32) - below) * alpha[:, None]
  flat[pixel] = (below + np.float32(0.5)).astype(np.uint8)
  if label is not None and canvas.mask is not None:
    canvas.mask.reshape(-1)[pixel[alpha > 0.5]] = label


def _shape_distance(shape: str, x: Grid, y: Grid) -> Grid:
  """Signed distance (a bound of it near corners) to a shape of radius 1, its foot at y = 0.85."""
  if shape == "ball":
    return np.sqrt(x * x + y * y) - np.float32(0.92)
  if shape == "ring":
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.63)) - np.float32(0.35)
  across = np.abs(x)
  if shape == "block":
    return np.maximum(across, np.abs(y)) - np.float32(0.82)
  if shape == "cone":
    side = np.float32(0.879) * across - np.float32(0.477) * (y + np.float32(1.05))
    return np.maximum(side, y - np.float32(0.82))
  up = np.abs(y)
  wide, narrow = np.float32(0.98), np.float32(0.4)
  return np.minimum(
    np.maximum(across - wide, up - narrow), np.maximum(across - narrow, up - wide)
  )


def _column(values: np.ndarray) -> np.ndarray:
  return values.astype(np.float32)[:, None, None]


def _project(view: Camera, frames: np.ndarray, x: np.ndarray, y: np.ndarray, size: int):
  """Points of the table (float[n], one for each of the frames) in pixels of the picture."""
  cos, sin = np.cos(view.roll[frames]), np.sin(view.roll[frames])
  across, along = x - 0.5 - view.pan_x[frames], y - 0.5 - view.pan_y[frames]
  scale = view.zoom[frames] * size
  return (
    (across * cos - along * sin) * scale + size / 2,
    (across * sin + along * cos) * scale + size / 2,
  )


def _local(where: Box, angle: np.ndarray, scale: np.ndarray) -> tuple[Grid, Grid]:
  """The box's pixels in a thing's own coordinates, turned by the angle and divided by its size."""
  cos, sin = _column(np.cos(angle) / scale), _column(np.sin(angle) / scale)
  return where.x * cos + where.y * sin, where.y * cos - where.x * sin


def _draw_shadow(canvas: Canvas, view: Camera, thing: Thing, track: ThingTrack) -> None:
  """A flat dark patch on the table: it stays there when the thing is lifted."""
  frames = np.arange(len(canvas.frames))
  foot = track.y + thing.radius * 0.72
  fallen = thing.radius * FOOT * np.sin(track.tip * np.float32(np.pi / 2))
  x, y = _project(view, frames, track.x + fallen, foot, canvas.size)
  radius = thing.radius * canvas.size * view.zoom * (1 - 0.8 * np.minimum(track.height, 0.3))
  where = box(canvas, frames, x, y, 1.15 * float(radius.max()) + 1)
  lx, ly = _local(where, view.roll, radius)
  distance = (np.sqrt(lx * lx * 0.8 + ly * ly * 4) - 1) * _column(radius) * np.float32(0.5)
  blend(canvas, where, distance, SHADOW, opacity=0.45)


def _draw_thing(
  canvas: Canvas,
  view: Camera,
  frames: np.ndarray,
  thing: Thing,
  track: ThingTrack,
  label: int,
) -> None:
  """The thing in the given frames: a dark rim, its colour, a band that shows which way is up."""
  if not len(frames):
    return
  lean = track.tip[frames] * np.float32(np.pi / 2)
  pivot = FOOT * thing.radius
  x = track.x[frames] + pivot * np.sin(lean)
  y = track.y[frames] - track.height[frames] + pivot * (1 - np.cos(lean)) * 0.5
  x, y = _project(view, frames, x, y, canvas.size)
  near = 1 + 0.9 * track.height[frames]
  radius = thing.radius * canvas.size * view.zoom[frames] * near
  where = box(canvas, frames, x, y, 1.2 * float(radius.max()) + 1)
  lx, ly = _local(where, view.roll[frames] + lean + track.spin[frames], radius)
  squash = 1 - track.squash[frames]
  shape = SHAPES[thing.shape]
  distance = _shape_distance(shape, lx, ly / _column(squash)) * _column(radius * squash)
  colour = np.array(RGB[COLOURS[thing.colour]], np.float32)
  rim = max(0.4, 0.1 * thing.radius * canvas.size)  # thin, so that a ring shows its colour too
  band = np.maximum(ly + np.float32(0.38), np.float32(-0.72) - ly) * _column(radius)
  blend(canvas, where, distance, colour * 0.4, label=label)
  blend(canvas, where, distance + np.float32(rim), colour)
  mark = (60, 60, 66) if COLOURS[thing.colour] == "white" else (250, 250, 246)
  blend(canvas, where, np.maximum(distance + np.float32(rim), band), mark, opacity=0.85)


def _draw_cloth(canvas: Canvas, view: Camera, track: ThingTrack) -> None:
  """A striped cloth, larger than any thing, wherever the track says that there is one."""
  frames = np.flatnonzero(~np.isnan(track.cloth_x))
  if not len(frames):
    return
  x, y = _project(view, frames, track.cloth_x[frames], track.cloth_y[frames], canvas.size)
  radius = 1.3 * RADIUS * canvas.size * view.zoom[frames]
  where = box(canvas, frames, x, y, 1.25 * float(radius.max()) + 1)
  lx, ly = _local(where, view.roll[frames], radius)
  scale = _column(radius)
  across, up = np.abs(lx), np.abs(ly)
  distance = np.maximum(np.maximum(across, up) - 1, (across + up) * np.float32(0.71) - 1.2) * scale
  stripe = (np.abs(np.abs(ly) - np.float32(0.5)) - np.float32(0.17)) * scale
  blend(canvas, where, distance, np.multiply(CLOTH, 0.55), label=0)
  inner = distance + np.float32(max(0.7, 0.08 * RADIUS * canvas.size))
  blend(canvas, where, inner, CLOTH)
  blend(canvas, where, np.maximum(inner, stripe), CLOTH_STRIPE)


def _capsule(x, y, ax, ay, bx, by, radius) -> Grid:
  """Signed distance to a line from a to b (float[n, 1, 1] or numbers) with round ends."""
  lx, ly = bx - ax, by - ay
  along = np.clip(((x - ax) * lx + (y - ay) * ly) / (lx * lx + ly * ly), 0, 1)
  dx, dy = x - ax - along * lx, y - ay - along * ly
  return np.sqrt(dx * dx + dy * dy) - radius


def _hand_distance(forward: Grid, aside: Grid) -> Grid:
  """Signed distance, in palms, to palm, three fingers and a thumb.

  forward, aside: pixels' places in palms, from the middle of the palm towards the fingertips and
  to the right.
  """
  distance = np.sqrt(forward * forward + aside * aside * np.float32(1.1)) - 1
  for root, tip, reach in ((-0.62, -0.72, 1.5), (0.0, 0.0, 1.75), (0.62, 0.7, 1.5)):
    finger = _capsule(forward, aside, 0.3, root, reach, tip, np.float32(0.3))
    distance = np.minimum(distance, finger)
  return np.minimum(distance, _capsule(forward, aside, 0.0, -0.6, 0.55, -1.35, np.float32(0.3)))


def _draw_hand(canvas: Canvas, view: Camera, track: Motion, skin, sleeve) -> None:
  """Forearm, sleeve and hand; the arm comes from where the viewer's shoulder would be."""
  size = canvas.size
  every = np.arange(len(canvas.frames))
  x, y = _project(view, every, track.hand_x, track.hand_y, size)
  palm = 0.085 * size
  frames = np.flatnonzero(y < size + 3 * palm)
  if not len(frames):
    return
  x, y = x[frames], y[frames]
  shoulder_x, shoulder_y = 0.35 * x + 0.45 * size, 1.6 * size
  reach = np.hypot(x - shoulder_x, y - shoulder_y)
  ux, uy = (x - shoulder_x) / reach, (y - shoulder_y) / reach  # towards the fingers
  px, py = x - ux * palm, y - uy * palm  # the middle of the palm; (x, y) is in the grip
  rows = np.arange(size, dtype=np.float32)[None, :, None] + np.float32(0.5)
  columns = np.arange(size, dtype=np.float32)[None, None, :] + np.float32(0.5)
  first = int(np.clip(np.floor(py.min()), 0, size - 1))  # no arm above the highest palm
  rows = rows[:, first:]
  pixel = np.arange(size * size, dtype=np.int32).reshape(1, size, size)[:, first:]
  arm = Box(
    pixel=pixel + frames.astype(np.int32)[:, None, None] * (size * size),
    x=columns - _column(px),
    y=rows - _column(py),
  )
  rim = max(0.7, 0.012 * size)
  back = -(arm.x * _column(ux) + arm.y * _column(uy))  # along the arm, from the palm
  off = np.abs(arm.x * _column(uy) - arm.y * _column(ux))
  forearm = np.maximum(off - np.float32(0.72 * palm), -back)
  cuff = np.maximum(off - np.float32(0.95 * palm), np.float32(2.4 * palm) - back)
  where = box(canvas, frames, px, py, 2.2 * palm + 1)
  forward = (where.x * _column(ux) + where.y * _column(uy)) / np.float32(palm)
  aside = (where.y * _column(ux) - where.x * _column(uy)) / np.float32(palm)
  hand = _hand_distance(forward, aside) * np.float32(palm)
  skin, sleeve = np.array(skin, np.float32), np.array(sleeve, np.float32)
  blend(canvas, arm, forearm, skin * 0.45, label=HAND)
  blend(canvas, where, hand, skin * 0.45, label=HAND)
  blend(canvas, arm, forearm + np.float32(rim), skin)
  blend(canvas, where, hand + np.float32(rim), skin)
  blend(canvas, arm, cuff, sleeve * 0.5, label=HAND)
  blend(canvas, arm, cuff + np.float32(rim), sleeve)


@functools.lru_cache(maxsize=64)
def _tile(side: int, pattern: int) -> np.ndarray:
  """uint8[side, side], periodic, mean 128, deviation 32: clouds, grain and the table's boards."""
  rng = np.random.Generator(np.random.PCG64(pattern))
  y, x = np.meshgrid(*[np.fft.fftfreq(side, 1 / side)] * 2, indexing="ij")
  waves = np.hypot(x, y * 1.6)  # a table is seen at a slant
  spectrum = np.where((waves > 1) & (waves < 24), 1 / np.maximum(waves, 1) ** 1.1, 0)
  phase = np.exp(2j * np.pi * rng.random((side, side)))
  clouds = np.fft.ifft2(spectrum * phase).real
  boards = (np.arange(side) * 6 // side) % 2 * 2 - 1.0
  pattern = clouds / clouds.std() + 0.5 * boards[:, None]
  return np.clip(128 + 32 * pattern / pattern.std(), 0, 255).astype(np.uint8)


def _draw_table(canvas: Canvas, view: Camera, pattern: int, colours: np.ndarray) -> None:
  """The table under everything: a tile seen through the camera, four texels to a pixel."""
  size = canvas.size
  side = 1 << int(4 * size - 1).bit_length()
  tile = _tile(side, pattern)
  pixel = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size - np.float32(0.5)
  cos, sin = np.cos(view.roll) / view.zoom * side, np.sin(view.roll) / view.zoom * side
  u = _column(cos) * pixel[None, None, :] + _column(sin) * pixel[None, :, None]
  u += _column((view.pan_x + view.drift_x) * side)
  v = _column(cos) * pixel[None, :, None] - _column(sin) * pixel[None, None, :]
  v += _column((view.pan_y + view.drift_y) * side)
  place = (np.floor(v).astype(np.int32) & (side - 1)) * side
  place += np.floor(u).astype(np.int32) & (side - 1)
  np.take(colours, tile.ravel()[place], axis=0, out=canvas.frames, mode="clip")


def _cut(tracks, window: slice):
  """The same tracks in a stretch of frames."""
  return dataclasses.replace(
    tracks, **{field.name: getattr(tracks, field.name)[window] for field in _arrays(tracks)}
  )


def _arrays(tracks):
  return [f for f in dataclasses.fields(tracks) if isinstance(getattr(tracks, f.name), np.ndarray)]


def _draw_chunk(canvas: Canvas, view: Camera, scene: Scenario, tracks: Motion, look: dict) -> None:
  """Back to front: table, shadows, things that stand, cloths, things in the air, hand."""
  _draw_table(canvas, view, look["pattern"], look["colours"])
  parts = sorted(enumerate(tracks.things), key=lambda part: scene.things[part[0]].cell)
  for i, track in parts:
    _draw_shadow(canvas, view, scene.things[i], track)
  for i, track in parts:
    standing = np.flatnonzero(track.height <= 0.02)
    _draw_thing(canvas, view, standing, scene.things[i], track, i + 1)
  for _, track in parts:
    _draw_cloth(canvas, view, track)
  for i, track in parts:
    raised = np.flatnonzero(track.height > 0.02)
    _draw_thing(canvas, view, raised, scene.things[i], track, i + 1)
  _draw_hand(canvas, view, tracks, look["skin"], look["sleeve"])


def _look(world: World, scene: Scenario) -> dict:
  """What a video looks like: the table's pattern and colours, whose hand it is."""
  rng = generator(world, scene.split, scene.index, "look")
  base = np.array(TABLES[rng.integers(len(TABLES))]) + rng.uniform(-8, 8, 3)
  swing = TEXTURES[world.texture].contrast * (np.arange(256) - 128)[:, None] / 32
  return {
    "pattern": int(rng.integers(8)),
    "colours": np.clip(base + swing, 0, 255).astype(np.uint8),
    "skin": SKINS[rng.integers(len(SKINS))],
    "sleeve": SLEEVES[rng.integers(len(SLEEVES))],
  }


def draw(world: World, scenario: Scenario, *, masks: bool):
  """Frames uint8[T, S, S, 3] RGB and, if asked, masks uint8[T, S, S] (else None)."""
  frames, size = scenario.frames, world.size
  video = np.empty((frames, size, size, 3), np.uint8)
  mask = np.zeros((frames, size, size), np.uint8) if masks else None
  view, tracks = camera(world, scenario), motion(scenario)
  look = _look(world, scenario)
  step = max(1, CHUNK // (size * size))
  for start in range(0, frames, step):
    window = slice(start, start + step)
    cut = _cut(tracks, window)
    cut.things = [_cut(track, window) for track in tracks.things]
    canvas = Canvas(video[window], mask[window] if masks else None)
    _draw_chunk(canvas, _cut(view, window), scenario, cut, look)
  return video, mask


def render(world: World, scenario: Scenario) -> UInt8[np.ndarray, "T S S 3"]:
  """The video, RGB: a pure function of the world, the split and the index."""
  return draw(world, scenario, masks=False)[0]


def masks(world: World, scenario: Scenario) -> UInt8[np.ndarray, "T S S"]:
  """What is seen at each pixel: 0 table or cloth, 1 and up the scenario's things, 255 the hand."""
  return draw(world, scenario, masks=True)[1]


def token_share(
  mask: UInt8[np.ndarray, "T H W"], tubelet: tuple[int, int, int], label: int = HAND
) -> Float[np.ndarray, "N"]:
  """The share of each tubelet's pixels that carry the label, in grid order (t, y, x)."""
  dt, dh, dw = tubelet
  frames, height, width = mask.shape
  blocks = (mask == label).reshape(frames // dt, dt, height // dh, dh, width // dw, dw)
  return blocks.mean(axis=(1, 3, 5)).ravel()
