import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vfe.errors import UserError
from vfe.learn import state as states
from vfe.learn.paths import named_leaves
from vfe.learn.step import Update, apply, cached_gradients, gradients
from vfe.learn.trained import Trained

PARAMS = {
  "video": {
    "blocks": {"kernel": jnp.arange(1.0, 13.0).reshape(4, 3)},
    "embed": {"kernel": jnp.ones((2, 3))},
  },
  "text": {"blocks": {"kernel": 0.5 * jnp.ones((2, 3))}, "norm": {"scale": jnp.ones(3)}},
}
LAST_TWO = Trained("^video/blocks|norm", cut="^video", first=2)


def test_the_trained_part_holds_its_leaves_and_layers_only():
  part = named_leaves(LAST_TWO.of(PARAMS))
  assert {name: leaf.shape for name, leaf in part.items()} == {
    "video/blocks/kernel": (2, 3),
    "text/norm/scale": (3,),
  }
  kernel = PARAMS["video"]["blocks"]["kernel"]
  np.testing.assert_array_equal(part["video/blocks/kernel"], kernel[2:])
  assert LAST_TWO.count(PARAMS) == (9, 12 + 6 + 6 + 3)
  shapes = LAST_TWO.of(jax.eval_shape(lambda: PARAMS))
  assert {name: leaf.shape for name, leaf in named_leaves(shapes).items()} == {
    name: leaf.shape for name, leaf in part.items()
  }


def test_merging_the_part_gives_the_whole_again():
  merged = LAST_TWO.merged(LAST_TWO.of(PARAMS), PARAMS)
  jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


def square(params, extra, batch):
  total = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
  return total * batch["weight"].sum(), batch["weight"].sum(), {}, extra


def test_gradients_are_those_of_the_whole_where_they_are_wanted():
  batch = {"weight": jnp.ones(4)}
  whole = gradients(square, PARAMS, None, batch)
  part = gradients(square, PARAMS, None, batch, accumulate=2, trained=LAST_TWO)
  jax.tree.map(np.testing.assert_allclose, part.grads, LAST_TWO.of(whole.grads))
  embed = lambda params, rows: rows["weight"][:, None] * params["video"]["blocks"]["kernel"].sum(0)
  loss = lambda params, embedded, extra, batch: (
    jnp.sum(jnp.square(embedded)) * params["text"]["norm"]["scale"].sum(), jnp.float32(4), {}, extra
  )
  cached = lambda trained: cached_gradients(
    embed, loss, PARAMS, None, batch, parts=2, trained=trained
  ).grads
  jax.tree.map(np.testing.assert_allclose, cached(LAST_TWO), LAST_TWO.of(cached(Trained())))


def test_an_update_moves_what_is_trained_and_has_state_for_nothing_else():
  update = Update(optax.adam(0.1), lambda step: 0.1, trained=LAST_TWO)
  state = states.create({"model": PARAMS}, {"model": update})
  moments = [leaf for name, leaf in named_leaves(state.groups["model"].opt_state).items()
             if "/mu/" in name]
  assert sum(leaf.size for leaf in moments) == 9
  found = gradients(square, PARAMS, None, {"weight": jnp.ones(4)}, trained=LAST_TWO)
  after, _ = apply(state, "model", found.grads, found.loss, update)
  moved = jax.tree.map(lambda a, b: np.asarray(a != b), after.groups["model"].params, PARAMS)
  assert {name: leaf.tolist() for name, leaf in named_leaves(moved).items()} == {
    "video/blocks/kernel": [[False] * 3] * 2 + [[True] * 3] * 2,
    "video/embed/kernel": [[False] * 3] * 2,
    "text/blocks/kernel": [[False] * 3] * 2,
    "text/norm/scale": [True] * 3,
  }


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: Trained("haed").of(PARAMS), "optimizer.trainable='haed' matches none of the param"),
    (lambda: Trained("("), "optimizer.trainable='\\(' is not a regex"),
  ],
)
def test_bad_patterns_are_named(make, message):
  with pytest.raises(UserError, match=message):
    make()
