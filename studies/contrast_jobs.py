"""The work of the contrastive study: one condition trained and tested, for some seeds at once."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from studies import contrast_data
from studies.contrast_sizes import CONDITIONS, FORMS_OF, Condition, Size, place
from studies.training import Schedule, by_parts, make_trainer, over_seeds, seed_keys
from vfe.learn.trained import ALL, Trained
from vfe.models.contrastive import info_nce, scale_of
from vfe.models.dual_encoder import DualEncoder
from vfe.models.inflate import inflated
from vfe.models.vivit import EncoderConfig
from vfe.nn.blocks import Execution
from vfe.nn.positions import sincos3d
from vfe.nn.random import key
from vfe.tokens import selection
from vfe.tokens.layout import Layout
from vfe.tokens.tubelets import gather_tubelets

Seeds = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
  """A condition at a size: its network, what enters it, and its loss."""

  size: Size
  condition: Condition

  @functools.cached_property
  def vision(self) -> EncoderConfig:
    return self.size.vision(self.condition.stage, self.condition.mixing)

  @functools.cached_property
  def model(self) -> DualEncoder:
    dual = self.size.dual(self.vision, len(contrast_data.vocabulary(self.size)))
    run = Execution(dtype=self.size.dtype, first_trained=self.trained.first)
    return DualEncoder(dual, run, dataclasses.replace(run, first_trained=0))

  @functools.cached_property
  def trained(self) -> Trained:
    """All; in the long stage the video tower, with the text frozen, or the last of its layers."""
    if self.condition.stage != "long":
      return ALL
    if not self.condition.last:
      return Trained("^vision|^log_scale")
    first = self.size.depth - self.size.last
    return Trained("^vision/(blocks|norm)/|^vision_projection|^log_scale", "^vision/blocks/", first)

  def layout(self, stream: str) -> Layout:
    """Of clips, or of images."""
    return self.vision.image_layout if stream == "image" else self.vision.layout

  def init(self, rng: jax.Array) -> Any:
    """Parameters drawn anew."""
    patches = jnp.zeros((1, 1, self.vision.layout.channels))
    one = jnp.zeros((1, 1), jnp.int32)
    params = self.model.init(rng, patches, one, one, one > 0, frames=1)["params"]
    layout = self.vision.layout
    return with_position(params, self._sincos(jnp.arange(layout.size)))

  def _sincos(self, index: Int[Array, "N"]) -> Float[Array, "t n D"]:
    """Where the learned positions begin: drawn at random they are far too small to be read soon."""
    layout = self.vision.layout
    table = 2 * sincos3d(layout.places(index), layout.grid, self.vision.width)
    return table.reshape(layout.grid[0], layout.per_frame, -1)

  def begun(self, params: Any, earlier: Any, have: EncoderConfig) -> Any:
    """Parameters of which all that an earlier condition has are its own.

    Positions of images are repeated over time; where videos are trained on, what tells time is
    added, and differences, which images do not have, begin with weights drawn anew.
    """
    how = "repeat" if self.condition.input == "pixels" else "central"
    vision = inflated(earlier["vision"], have, self.vision, place="the run before", how=how)
    blocks = params["vision"]["blocks"] | vision["blocks"]
    begun = params | earlier | {"vision": params["vision"] | vision | {"blocks": blocks}}
    if have.frames > 1 or "video" not in self.condition.streams:
      return begun
    if how == "central":
      drawn, kernel = params["vision"]["embed"]["kernel"], vision["embed"]["kernel"]
      kernel = jnp.concatenate([drawn[: len(drawn) // 2], kernel[len(drawn) // 2 :]])
      begun["vision"]["embed"] = vision["embed"] | {"kernel": kernel}
    index = jnp.arange(self.vision.layout.size)
    time = self._sincos(index) - self._sincos(index % self.vision.layout.per_frame)
    return with_position(begun, vision["position"] + time)

  def embedded(self, params: Any, stream: str, rows: dict, chosen: Int[Array, "B K"]):
    """Clips or images, of the tokens that are chosen."""
    layout = self.layout(stream)
    patches = inputs(rows, layout, chosen, self.condition.input)
    if self.vision.mixing == "frame":  # an encoder of images does not know when a frame is
      chosen = chosen % layout.per_frame
    method = DualEncoder.embed_video
    return self.model.apply(
      {"params": params}, patches, chosen, frames=layout.grid[0], method=method
    )

  def said(self, params: Any, ids: Int[Array, "B L"]) -> Float[Array, "B D"]:
    """Texts; 0 is padding."""
    return self.model.apply({"params": params}, ids, ids > 0, method=DualEncoder.embed_text)

  def chosen(self, stream: str, keys: jax.Array) -> Int[Array, "B K"]:
    """Tokens that enter in training; as many of each frame, where frames are encoded apart."""
    layout, mask = self.layout(stream), self.condition.mask
    if stream == "image" or not mask:
      return selection.everything(len(keys), layout.size)
    if self.vision.mixing == "joint":
      return selection.random(keys, layout.size, selection.visible(layout.size, mask))
    keep = selection.visible(layout.per_frame, mask)
    return selection.random_of_frames(keys, layout, keep)

  def loss(self, params: Any, rows: dict, keys: jax.Array) -> Float[Array, ""]:
    """The sum of the streams' means. A clip's text is one of its forms, drawn anew each time."""
    total, scale = jnp.float32(0), scale_of(params["log_scale"])
    for stream in self.condition.streams:
      own = jax.vmap(lambda k, stream=stream: key(k, stream))(keys)
      clips = self.embedded(params, stream, rows[stream], self.chosen(stream, own))
      texts = self.said(params, jax.vmap(one_of)(own, rows[f"{stream} texts"]))
      value, weight, _ = info_nce(clips, texts, scale)
      total += value / weight
    return total

  def schedule(self) -> Schedule:
    """Steps, rows of a stream in each, and rate of the condition's stage."""
    size = self.size
    return {
      "image": Schedule(size.image_steps, size.image_batch, size.rate),
      "short": Schedule(size.steps, size.batch, size.rate),
      "long": Schedule(size.long_steps, size.long_batch, size.long_rate),
    }[self.condition.stage]


def with_position(params: Any, table: Float[Array, "t n D"]) -> Any:
  """The parameters with this table of positions."""
  return params | {"vision": params["vision"] | {"position": table}}


def one_of(rng: jax.Array, forms: Int[Array, "C L"]) -> Int[Array, "L"]:
  """One of the forms of a text."""
  return forms[jax.random.randint(key(rng, "form"), (), 0, len(forms))]


def inputs(rows: dict, layout: Layout, chosen: Int[Array, "B K"], kind: str):
  """float32[B, K, P] of the tubelets: standardised pixels, or of two frames the difference.

  "difference" has in the place of the first frame log(1 + |second - first|) / 2, from 0 to 2.8, and
  in that of the second its pixels. P is the same. Standardised, what moves would be so much larger
  than a position that its time would be lost.
  """
  frames = layout.tubelet[0]
  raw = gather_tubelets(rows["video"], layout, chosen).astype(jnp.float32)
  raw = raw.reshape(*chosen.shape, frames, -1, 3)
  wide = lambda x: x.reshape(len(x), *[1] * 3, -1)
  pixels = (raw - wide(rows["mean"])) / wide(rows["scale"])
  if kind == "difference" and frames == 2:
    change = jnp.log1p(jnp.abs(raw[:, :, 1:] - raw[:, :, :1])) / 2
    pixels = jnp.concatenate([change, pixels[:, :, 1:]], axis=2)
  return pixels.reshape(*chosen.shape, -1)


# The work


def train(size: Size, name: str, seeds: Seeds, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Trains a condition, leaves its parameters in `folder`, returns a row a seed of its tests."""
  began = time.monotonic()
  run = Run(size, CONDITIONS[name])
  condition = run.condition
  params = jax.jit(over_seeds(run.init, len(seeds)))(seed_keys(seeds, "init"))
  rows = {}
  if condition.after:
    have = Run(size, CONDITIONS[condition.after]).vision
    earlier = load(folder, condition.after, seeds)
    params = over_seeds(lambda new, old: run.begun(new, old, have), len(seeds))(params, earlier)
  if condition.stage == "long" and not condition.last:
    rows["before"] = test(run, params, seeds, folder)
  data = training_data(run, seeds, folder)
  schedule = run.schedule()
  trainer = make_trainer(run.loss, schedule, len(seeds), run.trained)
  training = time.monotonic()
  params, loss = trainer(name, params, jax.device_put(data), seed_keys(seeds, "train"))
  training = time.monotonic() - training
  save(folder, name, seeds, params)
  rows[name] = test(run, params, seeds, folder)
  spent = {"seconds": (time.monotonic() - began) / len(seeds), "training": training / len(seeds)}
  return [
    {"condition": of, "seed": seed, "stage": condition.stage}
    | ({} if of == "before" else {"steps": schedule.steps, "training_loss": float(loss[i])})
    | {part: round(value, 1) for part, value in spent.items() if of != "before"}
    | {"n_test": size.tests, "forms": {form: value[i] for form, value in forms.items()}}
    for of, forms in rows.items()
    for i, seed in enumerate(seeds)
  ]


def training_data(run: Run, seeds: Seeds, folder: pathlib.Path) -> dict[str, Any]:
  """{stream: clips, "<stream> texts": ids[S, n, forms, L]} of the condition's streams.

  All streams have as many rows, the shorter ones over again.
  """
  size, stage, found = run.size, run.condition.stage, {}
  kinds = {"video": stage, "image": "image"}
  most = max(size.count(kinds[stream], "train") for stream in run.condition.streams)
  again = lambda x: x[np.arange(most) % len(x)]
  stack = lambda trees: jax.tree.map(lambda *x: np.stack([again(y) for y in x]), *trees)
  for stream in run.condition.streams:
    drawn = [contrast_data.draw(size, kinds[stream], s, "train", folder) for s in seeds]
    forms = FORMS_OF[run.condition.text if stream == "video" else "objects"][stage]
    texts = [np.stack([texts[form]["ids"] for form in forms], 1) for _, texts in drawn]
    found |= {stream: stack([clips for clips, _ in drawn]), f"{stream} texts": stack(texts)}
  return found


def test(run: Run, params: Any, seeds: Seeds, folder: pathlib.Path) -> dict[str, list[dict]]:
  """{form: [scores of each seed]} on test clips, whose tokens all enter."""
  size, stage = run.size, run.condition.stage
  stream = "image" if stage == "image" else "video"
  drawn = [contrast_data.draw(size, stage, seed, "test", folder) for seed in seeds]
  stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  clips, texts = stack([clips for clips, _ in drawn]), stack([texts for _, texts in drawn])

  def embed(params, rows):
    everything = selection.everything(len(rows["video"]), run.layout(stream).size)
    return run.embedded(params, stream, rows, everything)

  say = jax.jit(over_seeds(run.said, len(seeds)))
  video = by_parts(jax.jit(over_seeds(embed, len(seeds))), params, clips, size.part)
  found = {}
  for form in FORMS_OF["tested"][stage]:
    ids = texts[form]["ids"], texts[form]["swapped_ids"]
    true, other = (by_parts(say, params, x, size.part) for x in ids)
    each = zip(video, true, other, texts[form]["ids"], strict=True)
    found[form] = [scores(*of, contrast_data.noun_ids(size)) for of in each]
  return found


def scores(
  video: Float[np.ndarray, "n D"],
  text: Float[np.ndarray, "n D"],
  swapped: Float[np.ndarray, "n D"],
  ids: Int[np.ndarray, "n L"],
  nouns: tuple[int, ...],
) -> dict[str, float]:
  """R@1 both ways, the choice between a text and it with its events swapped, and what they are
  beside.

  Of equal texts each is right; otherwise one that scores the same is a miss, and in the choice half
  of one. objects_only and words_only are R@1 of one who knows which objects each text names
  (`nouns`), or all its words, but not their order, and guesses among the texts that have the same.
  """
  unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  video, text, swapped = unit(video), unit(text), unit(swapped)
  same = (ids[:, None] == ids[None]).all(-1)
  known = {"objects_only": np.where(np.isin(ids, nouns), ids, 0), "words_only": ids}
  bags = {name: np.sort(of, 1) for name, of in known.items()}
  alike = {name: (of[:, None] == of[None]).all(-1).sum(1) for name, of in bags.items()}
  sims = video @ text.T
  best = lambda sims: np.where(same, sims, -np.inf).max(1) > np.where(same, -np.inf, sims).max(1)
  own, other = np.sum(video * text, 1), np.sum(video * swapped, 1)
  return {
    "text_to_video": float(best(sims.T).mean()),
    "video_to_text": float(best(sims).mean()),
    "order": float(np.mean((own > other) + 0.5 * (own == other))),
    "chance": float(np.mean(same.mean(1))),
    **{name: float(np.mean(same.sum(1) / count)) for name, count in alike.items()},
  }


def save(folder: pathlib.Path, name: str, seeds: Seeds, params: Any) -> None:
  """Writes each seed's parameters as a file of its own."""
  folder.mkdir(parents=True, exist_ok=True)
  flat = flax.traverse_util.flatten_dict(jax.device_get(params), sep="/")
  for i, seed in enumerate(seeds):
    np.savez(place(folder, name, seed), **{leaf: value[i] for leaf, value in flat.items()})


def load(folder: pathlib.Path, name: str, seeds: Seeds) -> Any:
  """The parameters of the seeds, leaves [S, ...]."""
  files = [np.load(place(folder, name, seed)) for seed in seeds]
  flat = {leaf: jnp.stack([file[leaf] for file in files]) for leaf in files[0].files}
  return flax.traverse_util.unflatten_dict(flat, sep="/")
