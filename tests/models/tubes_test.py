"""An encoder of tubes: an embedding a kernel, fixed positions at the tubes' centres."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vfe.errors import UserError
from vfe.learn.paths import named_leaves
from vfe.models.inflate import fitted, inflated
from vfe.models.vivit import Encoder, EncoderConfig
from vfe.nn.positions import sincos1d
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets
from vfe.tokens.tubes import random_of_tubes, tubevit

OF = functools.partial(EncoderConfig.of, "test", size=32, positions="sincos3d")
CONFIG = OF(frames=16, tubes=tubevit(16, 8), images=True)
IMAGE = OF(frames=1, tubes=tubevit(1, 8))
VIDEO = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def params():
  chosen = everything(2, CONFIG.layout.size)
  patches = gather_tubelets(VIDEO, CONFIG.layout, chosen)
  shapes = jax.eval_shape(Encoder(CONFIG).init, jax.random.key(0), patches, chosen)["params"]
  random = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: 0.2 * random.standard_normal(leaf.shape, "f4"), shapes)


def test_every_kernel_has_an_embedding_and_a_gradient(params):
  @jax.jit
  @jax.grad
  def gradient(params):
    chosen = random_of_tubes(jax.random.split(jax.random.key(0), 2), CONFIG.layout, 14)
    patches = gather_tubelets(VIDEO, CONFIG.layout, chosen)
    return jnp.mean(Encoder(CONFIG).apply({"params": params}, patches, chosen)[..., :3] ** 2)

  names = {f"embed_{i}/{leaf}" for i in range(4) for leaf in ("kernel", "bias")}
  found = named_leaves(gradient(params))
  assert names <= found.keys() and not any(name.startswith("position") for name in found)
  assert all(np.abs(found[name]).max() > 0 for name in names)


def test_tokens_are_of_their_own_pixels_and_places(params):
  """Without blocks and norm, a token is its tube's embedding and its centre's position."""
  bare = dataclasses.replace(CONFIG, depth=0, final_norm=False, images=False)
  chosen = everything(2, bare.layout.size)
  patches = tuple(x / jnp.float32(255) for x in gather_tubelets(VIDEO, bare.layout, chosen))
  params = params | {"blocks": jax.tree.map(lambda leaf: leaf[:0], params["blocks"])}
  tokens = jax.jit(Encoder(bare).apply)({"params": params}, patches, chosen)
  starts, at = bare.layout.starts, bare.layout.coordinates()
  for i, start in enumerate(starts):
    own = patches[i][:, 1] @ params[f"embed_{i}"]["kernel"] + params[f"embed_{i}"]["bias"]
    t, y, x = (jnp.asarray(2 * c, jnp.int32) for c in at[start + 1])
    place = [sincos1d(c, w, 64, 0.5) for c, w in zip((t, y, x), (12, 10, 10), strict=True)]
    np.testing.assert_allclose(tokens[:, start + 1], own + jnp.concatenate(place), atol=1e-4)
  first = sincos1d(jnp.asarray([7]), 4, 64, 0.5)[0]
  expected = [np.sin(3.5), np.cos(3.5), np.sin(0.035), np.cos(0.035)]
  np.testing.assert_allclose(first, expected, rtol=1e-5)


def test_an_image_has_the_tubes_of_one_frame(params):
  """Its tokens are those of an encoder of images with the same parameters."""
  layout, image = CONFIG.image_layout, VIDEO[:, :1]
  assert layout.size == 16 and layout.tubes == CONFIG.tubes[3:]
  chosen = everything(2, 16)
  found = jax.jit(Encoder(CONFIG).apply)(
    {"params": params}, gather_tubelets(image, layout, chosen), chosen
  )
  own = {name: leaf for name, leaf in params.items() if not name.startswith("embed")}
  own["embed_0"] = params["embed_3"]
  patches = gather_tubelets(image, IMAGE.layout, chosen)
  expected = jax.jit(Encoder(IMAGE).apply)({"params": own}, patches, chosen)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("how", ["repeat", "central"])
def test_kernels_begin_with_an_image_encoders_interpolated(how):
  """An even clip has the same embedding in all of them."""
  have = OF(frames=1, tubelet=(1, 8, 8), positions="learned", pixels="half")
  want = fitted(have, OF(frames=16, tubes=tubevit(16, 8)))
  assert (want.positions, want.pixels) == ("sincos3d", "half")
  random = np.random.default_rng(0)
  embed = {"kernel": random.standard_normal((192, 32), "f4"), "bias": np.zeros(32, "f4")}
  given = {"embed": embed, "position": np.zeros((1, 16, 32)), "blocks": {}}
  found = inflated(given, have, want, place="here", how=how)
  assert found.keys() == {"blocks", *(f"embed_{i}" for i in range(4))}
  colour = embed["kernel"].reshape(64, 3, 32).sum(0)
  for i, tube in enumerate(want.tubes):
    kernel = found[f"embed_{i}"]["kernel"]
    assert kernel.shape == (tube.channels, 32)
    np.testing.assert_allclose(kernel.reshape(-1, 3, 32).sum(0), colour, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(found["embed_3"]["kernel"], embed["kernel"])


def test_longer_clips_keep_the_embeddings(params):
  longer = OF(frames=64, tubes=tubevit(64, 8), images=True)
  found = inflated(params, CONFIG, longer, place="here")
  for i in range(4):
    np.testing.assert_array_equal(found[f"embed_{i}"]["kernel"], params[f"embed_{i}"]["kernel"])
  with pytest.raises(UserError, match=r"set config\.model\.tubes"):
    inflated(params, CONFIG, OF(frames=16, tubelet=(2, 8, 8)), place="here")


def test_a_config_goes_through_json_and_refuses_grids():
  text = json.dumps(dataclasses.asdict(CONFIG))
  assert EncoderConfig.from_dict(json.loads(text)) == CONFIG
  with pytest.raises(UserError, match="mixing='frame' and positions='sincos3d'"):
    dataclasses.replace(CONFIG, mixing="frame")
  with pytest.raises(UserError, match="must have one frame, not all"):
    dataclasses.replace(IMAGE, images=True)
