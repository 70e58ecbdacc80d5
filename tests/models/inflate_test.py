import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.paths import named_leaves
from vfe.models.inflate import fitted, inflated, positions
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn import relative
from vfe.tokens.edges import Edges
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

IMAGE = EncoderConfig.of("test", 1, 16, (1, 8, 8), positions="learned", pixels="half")
VIDEO = EncoderConfig.of("test", 8, 16, (2, 8, 8), positions="learned", pixels="half")
BEIT = dataclasses.replace(IMAGE, positions="relative", layer_scale=0.1, final_norm=False)
SVITT = dataclasses.replace(BEIT, frames=4, edges=Edges(1, 1, 4), final_norm=True)
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16, 3), np.uint8)


def encode(config, params, video):
  layout = config.layout if video.shape[1] > 1 else config.image_layout
  chosen = everything(len(video), layout.size)
  patches = gather_tubelets(jnp.asarray(video), layout, chosen)
  return jax.jit(Encoder(config).apply)({"params": params}, patches, chosen)


def fresh(config):
  patches = jnp.zeros((1, 1, config.layout.channels), jnp.uint8)
  one = jnp.zeros((1, 1), jnp.int32)
  init = jax.jit(Encoder(config).init, static_argnames="frames")
  return init(jax.random.key(0), patches, one, frames=1)["params"]


@pytest.fixture(scope="module")
def image():
  """An encoder of images; positions and biases that show when one is lost."""
  params, rng = fresh(IMAGE), np.random.default_rng(1)
  scatter = lambda leaf: np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape, np.float32)
  return jax.tree.map(scatter, params)


@pytest.fixture(scope="module")
def of_image(image):
  return np.asarray(encode(IMAGE, image, PICTURES))


def begun(image, want, how="repeat"):
  return jax.tree.map(jnp.asarray, fresh(want) | _merged(fresh(want), image, want, how))


def _merged(new, image, want, how):
  given = inflated(image, IMAGE, want, place="here", how=how)
  return {
    name: {**new[name], **of} if isinstance(of, dict) else of for name, of in given.items()
  }


@pytest.mark.parametrize("mixing", ["joint", "factorised", "frame"])
def test_a_still_clip_has_the_tokens_of_its_picture(image, of_image, mixing):
  """Whatever meets: joint attention over equal frames is that over one of them."""
  want = dataclasses.replace(VIDEO, mixing=mixing)
  still = encode(want, begun(image, want), np.repeat(PICTURES, 8, axis=1))
  np.testing.assert_allclose(still.reshape(2, 4, 4, -1), of_image[:, None].repeat(4, 1), atol=2e-5)


def test_central_inflation_sees_the_middle_frame_only(image, of_image):
  clip = np.random.default_rng(2).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
  clip[:, 1::2] = PICTURES
  found = encode(VIDEO, begun(image, VIDEO, "central"), clip)
  np.testing.assert_allclose(found.reshape(2, 4, 4, -1), of_image[:, None].repeat(4, 1), atol=2e-5)


@pytest.fixture(scope="module")
def beit(image):
  """An image encoder with relative positions, as BEiT's weights may be: without a norm at the end.
  It has no class token, which would weigh less among the tokens of more frames."""
  draw = np.random.default_rng(1).standard_normal
  blocks = image["blocks"] | {
    "relative": draw((3, relative.entries(BEIT.layout.grid), 2), np.float32),
    "attention_scale": draw((3, BEIT.width), np.float32),
    "mlp_scale": draw((3, BEIT.width), np.float32),
  }
  return {"embed": image["embed"], "blocks": blocks}


def test_relative_positions_begin_blind_to_time(beit):
  """The bias of two tokens is that of their places in the picture, whatever frames they are of."""
  given = inflated(beit, BEIT, SVITT, place="here")["blocks"]["relative"]

  def biases(layout, tables):
    codes = relative.codes(layout.places(jnp.arange(layout.size)), layout.grid)
    entries = relative.between(codes[:, None], codes[None], relative.entries(layout.grid))
    return np.asarray(tables)[:, entries]

  of_picture = biases(BEIT.layout, beit["blocks"]["relative"])
  np.testing.assert_array_equal(biases(SVITT.layout, given), np.tile(of_picture, (1, 4, 4, 1)))
  np.testing.assert_array_equal(given[:, -3:], beit["blocks"]["relative"][:, -3:])


def test_a_still_clip_has_the_tokens_of_its_picture_by_relative_positions(beit):
  params = inflated(beit, BEIT, SVITT, place="here")
  assert "norm" not in params
  want = dataclasses.replace(SVITT, final_norm=False)  # blocks of 4 tokens are frames
  still = encode(want, params, np.repeat(PICTURES, 4, axis=1))
  expected = np.asarray(encode(BEIT, beit, PICTURES))
  np.testing.assert_allclose(still.reshape(2, 4, 4, -1), expected[:, None].repeat(4, 1), atol=2e-5)


@pytest.mark.parametrize("changes", [dict(frames=8), dict(frames=2, size=32)])
def test_every_layers_table_goes_to_other_clips_and_pictures(beit, changes):
  clip = inflated(beit, BEIT, SVITT, place="here")
  rng = np.random.default_rng(2)
  table = rng.standard_normal(clip["blocks"]["relative"].shape, np.float32)
  clip["blocks"] = clip["blocks"] | {"relative": table}
  want = dataclasses.replace(SVITT, **changes)
  found = inflated(clip, SVITT, want, place="here")["blocks"]["relative"]
  assert found.shape == (3, relative.entries(want.layout.grid), 2)
  for layer, mine in zip(found, jnp.asarray(table), strict=True):
    t, *sides = want.layout.grid
    other = relative.rescaled(relative.resized(mine, 4, t), (t, 2, 2), tuple(sides))
    np.testing.assert_allclose(layer, other, atol=1e-6)


def test_layer_scales_and_tables_of_relative_positions_belong_to_the_weights():
  found = fitted(BEIT, dataclasses.replace(VIDEO, pixels="clip"))
  assert (found.positions, found.layer_scale, found.pixels) == ("relative", 0.1, "half")
  assert found.edges is None and found.final_norm


def test_images_go_through_an_embedding_of_their_own_and_share_all_else(image, of_image):
  want = dataclasses.replace(VIDEO, images=True)
  params = begun(image, want)
  np.testing.assert_allclose(encode(want, params, PICTURES), of_image, atol=2e-5)
  params["embed_image"] = jax.tree.map(jnp.zeros_like, params["embed_image"])
  assert not np.allclose(encode(want, params, PICTURES), of_image, atol=1e-2)
  still = np.repeat(PICTURES, 8, axis=1)
  np.testing.assert_allclose(encode(want, params, still)[:, :4], of_image, atol=2e-5)


@pytest.mark.parametrize("tubelet", [(4, 8, 8), (2, 16, 16), (4, 16, 16)])
def test_a_coarser_tubelet_embeds_what_the_finer_one_does_of_a_plain_picture(image, tubelet):
  want = dataclasses.replace(VIDEO, tubelet=tubelet)
  given = inflated(image, IMAGE, want, place="here")
  plain = np.full((1, want.layout.channels), 0.3, np.float32)
  fine = np.full((1, IMAGE.layout.channels), 0.3, np.float32)
  np.testing.assert_allclose(
    plain @ given["embed"]["kernel"], fine @ np.asarray(image["embed"]["kernel"]), atol=1e-5
  )
  assert given["position"].shape == (want.layout.grid[0], want.layout.per_frame, want.width)


def test_positions_of_longer_clips_are_linear_between_those_of_short_ones():
  """Against NumPy's interpolation at the centres of the latent frames."""
  table = np.random.default_rng(3).standard_normal((4, 4, 6))
  table = jnp.asarray(table, jnp.float32)
  found = positions(table, (16, 2, 2))
  centres = (np.arange(16) + 0.5) / 4 - 0.5
  each = [np.interp(centres, range(4), table[:, i, d]) for i in range(4) for d in range(6)]
  np.testing.assert_allclose(found, np.stack(each, 1).reshape(16, 4, 6), atol=1e-6)
  np.testing.assert_array_equal(positions(table, (4, 2, 2)), table)
  assert positions(table, (4, 4, 4)).shape == (4, 16, 6)


def test_what_was_not_there_is_left_to_begin_fresh(image):
  want = dataclasses.replace(VIDEO, mixing="factorised", adapter=4, lora=2)
  new, given = named_leaves(fresh(want)), named_leaves(inflated(image, IMAGE, want, place="here"))
  assert {n.split("/")[1] for n in set(new) - set(given)} == {"adapter", "gate"} | {
    n.split("/")[1] for n in new if "_lora" in n
  }
  assert all(given[name].shape == new[name].shape for name in given)


def test_details_of_the_weights_are_kept_and_choices_are_not():
  have = dataclasses.replace(IMAGE, activation="quick_gelu", norm_eps=1e-5, pre_norm=True, cls=True)
  found = fitted(have, dataclasses.replace(VIDEO, mixing="frame"))
  assert (found.activation, found.norm_eps, found.pre_norm) == ("quick_gelu", 1e-5, True)
  assert (found.cls, found.mixing, found.frames) == (False, "frame", 8)


@pytest.mark.parametrize(
  "have, want, message",
  [
    ({}, dict(width=64), "here has an encoder of width=32, config.model asks for 64"),
    (dict(tubelet=(2, 8, 8), frames=8), dict(tubelet=(3, 8, 8), frames=9), "no multiple"),
    ({}, dict(layer_scale=0.1), "an encoder of layer_scale=0.0, config.model asks for 0.1"),
    ({}, dict(positions="relative"), "positions=learned, config.model asks for relative"),
    (dict(positions="relative"), {}, "positions=relative, config.model asks for learned"),
    (dict(positions="sincos1d"), {}, r"here has fixed positions \(sincos1d\)"),
    (dict(tubelet=(2, 8, 8), frames=8), dict(images=True), "embeds tubelets of 2 frames and no"),
  ],
)
def test_what_does_not_fit_is_named(image, have, want, message):
  have = dataclasses.replace(IMAGE, **have)
  params = image if have.tubelet == IMAGE.tubelet else fresh(have)
  with pytest.raises(UserError, match=message):
    inflated(params, have, dataclasses.replace(VIDEO, **want), place="here")
