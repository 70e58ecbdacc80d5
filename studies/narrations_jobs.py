"""The work of the study of SViTT-Ego's claims: one condition trained and tested."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from studies import narrations_data as data
from studies.narrations_sizes import CONDITIONS, Condition, Size
from studies.training import Schedule, by_parts, make_trainer, over_seeds, seed_keys
from vfe.models.contrastive import info_nce, scale_of
from vfe.models.egonce import egonce, egonce_positives
from vfe.models.masked_words import Masking, hide, masked_words_loss
from vfe.models.matching import hard_negatives, matching_loss
from vfe.models.svitt import Svitt
from vfe.nn.blocks import Execution
from vfe.nn.random import key
from vfe.tokens.selection import everything
from vfe.tokens.tubelets import gather_tubelets

MASKING = Masking(data.MASK, data.VOCABULARY, (data.CLS,), share=0.5)


@dataclasses.dataclass(frozen=True)
class Run:
  """A condition at a size: its network, what enters it, and its loss."""

  size: Size
  condition: Condition

  @functools.cached_property
  def model(self) -> Svitt:
    config = self.size.model(self.condition, data.VOCABULARY)
    run = Execution(dtype=self.size.dtype)
    return Svitt(config, run, run)

  @property
  def layout(self):
    return self.model.config.vision.layout

  def init(self, rng: jax.Array) -> Any:
    """Parameters drawn anew."""
    patches, one = jnp.zeros((1, self.layout.size, self.layout.channels)), jnp.zeros((1, 1), int)
    chosen = everything(1, self.layout.size)
    return self.model.init(rng, patches, chosen, one, one == 0)["params"]

  def tokens(self, params: Any, clips, mean, scale, rng=None):
    """Of clips uint8[B, seen, H, W, 3], less their videos' mean colour, over their deviation."""
    chosen = everything(len(clips), self.layout.size)
    patches = gather_tubelets(clips, self.layout, chosen).astype(jnp.float32)
    mean = jnp.tile(mean, self.layout.channels // 3)
    patches = (patches - mean[:, None]) / scale[:, None, None]
    return self.model.apply(
      {"params": params}, patches, chosen, None, rng, method="tokens_of_video"
    )

  def loss(self, params: Any, rows: dict, keys: jax.Array) -> jax.Array:
    """Of the losses asked for, the sum of the means."""
    rng, batch = key(keys[0], "step"), self.batch(rows, keys)
    run = functools.partial(self.model.apply, {"params": params})
    mask = batch["ids"] > 0
    tokens = self.tokens(params, batch["clips"], batch["mean"], batch["scale"], key(rng, "edges"))
    words = run(batch["ids"], mask, method="tokens_of_text")
    video, text = run(tokens, method="embed_video"), run(words, method="embed_text")
    scale, positives = scale_of(params["log_scale"]), self.positives(batch)
    if self.condition.contrast == "egonce":
      value, weight, _ = egonce(video, text, scale, positives)
    else:
      value, weight, _ = info_nce(video, text, scale)
    total = value / weight
    if self.condition.reads:
      sides = (video, text, scale, positives)
      total += self._read(run, batch, tokens, words, sides, rng)
    return total

  def positives(self, batch: dict[str, jax.Array]) -> Bool[Array, "M M"]:
    """Pairs that are no negatives of each other: of one clip, or with EgoNCE of one action."""
    nouns = batch["nouns"] & (self.condition.contrast == "egonce")
    return egonce_positives(nouns, batch["verbs"], batch["clip"])

  def _read(self, run, batch, tokens, words, sides, rng) -> jax.Array:
    """Matching, and hidden words."""
    ids, mask = batch["ids"], batch["ids"] > 0
    numbers = jnp.arange(len(ids))
    wrong = hard_negatives(rng, *sides, numbers)
    hidden, asked = hide(rng, ids, mask, numbers, MASKING)
    pairs = [
      (words, mask, tokens),
      (words, mask, tokens[wrong.video]),
      (words[wrong.text], mask[wrong.text], tokens),
      (run(hidden, mask, method="tokens_of_text"), mask, tokens),
    ]
    read = run(*(jnp.concatenate(part) for part in zip(*pairs, strict=True)), method="fuse")
    *judged, said = jnp.split(read, len(pairs))
    judged = (run(of, method="match") for of in judged)
    match, judgements, _ = matching_loss(*judged, wrong.has)
    lost, count, _ = masked_words_loss(run(said, method="words"), ids, asked)
    return match / jnp.maximum(judgements, 1.0) + lost / jnp.maximum(count, 1.0)

  def batch(self, rows: dict, keys: jax.Array) -> dict[str, jax.Array]:
    """Of each video a clip of one event, and with `neighbours` one of another event beside it."""
    drawn = jax.vmap(self._pair)(rows, keys)
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in drawn.items()}

  def _pair(self, row: dict, rng: jax.Array) -> dict[str, jax.Array]:
    pick = lambda name, among: jax.random.categorical(key(rng, name), jnp.where(among, 0, -jnp.inf))
    first = pick("event", row["there"])
    events = jnp.arange(len(row["there"]))
    others = (row["scene"] == row["scene"][first]) & (events != first)
    second = jnp.where(others.any(), pick("neighbour", others), first)
    chosen = jnp.stack([first, second] if self.condition.neighbours else [first])
    frames = jax.random.randint(key(rng, "frames"), (len(chosen), self.size.seen), 0, data.APART)
    frames += data.APART * jnp.arange(self.size.seen)
    of_event = {name: row[name][chosen] for name in ("ids", "nouns", "verbs")}
    of_video = {name: jnp.stack([row[name]] * len(chosen)) for name in ("mean", "scale")}
    clips = row["clips"][chosen[:, None], frames]
    clip = row["number"] * len(events) + chosen
    return {"clips": clips, "clip": clip, **of_event, **of_video}

  def embedded(self, params: Any, rows: dict):
    """(video, text) float32[n, E, W] of all events."""
    count, events = rows["there"].shape
    flat = lambda x: x.reshape(count * events, *x.shape[2:])
    every = lambda x: jnp.repeat(x, events, axis=0)
    clips, ids = flat(rows["clips"][:, :, data.middle(self.size)]), flat(rows["ids"])
    ids = ids.at[:, 0].set(data.CLS)
    tokens = self.tokens(params, clips, every(rows["mean"]), every(rows["scale"]))
    run = functools.partial(self.model.apply, {"params": params})
    words = run(ids, ids > 0, method="tokens_of_text")
    found = run(tokens, method="embed_video"), run(words, method="embed_text")
    return tuple(x.reshape(count, events, -1) for x in found)

  def schedule(self) -> Schedule:
    """A row of the data is a video, which gives two clips where there are neighbours."""
    size = self.size
    rows = size.batch // 2 if self.condition.neighbours else size.batch
    return Schedule(size.steps, rows, size.rate)


def train(size: Size, name: str, seed: int, folder: pathlib.Path) -> dict[str, Any]:
  """Trains a condition and returns the row of its test. cpu: seconds of this process."""
  began = time.process_time()
  run = Run(size, CONDITIONS[name])
  params = jax.jit(over_seeds(run.init, 1))(seed_keys((seed,), "init"))
  rows = jax.device_put(data.draw(size, seed, "train", folder))
  schedule = run.schedule()
  trainer = make_trainer(run.loss, schedule, 1)
  lead = jax.tree.map(lambda x: x[None], rows)
  params, loss = trainer(name, params, lead, seed_keys((seed,), "train"))
  found = test(run, params, seed, folder)
  return {
    "condition": name,
    "seed": seed,
    "steps": schedule.steps,
    "training_loss": float(loss[0]),
    "positives": round(positives(run, rows, seed), 3),
    "cpu": round(time.process_time() - began, 1),
    "scores": found,
  }


def positives(run: Run, rows: dict[str, jax.Array], seed: int) -> float:
  """How many positives a clip has in a batch besides itself: the mean over all videos, once."""
  batch = run.schedule().batch
  batches = max(1, len(rows["number"]) // batch)
  cut = jax.tree.map(lambda x: x[: batches * batch].reshape(batches, -1, *x.shape[1:]), rows)
  keys = jax.random.split(seed_keys((seed,), "positives")[0], (batches, batch))
  count = lambda of: run.positives(run.batch(*of)).sum(1).mean() - 1
  return float(jax.jit(lambda of: jax.lax.map(count, of).mean())((cut, keys)))


def test(run: Run, params: Any, seed: int, folder: pathlib.Path) -> dict[str, float]:
  """The scores of the questions on a seed's test videos."""
  size = run.size
  rows = data.draw(size, seed, "test", folder)
  lead, embed = jax.tree.map(lambda x: x[None], rows), jax.jit(over_seeds(run.embedded, 1))
  video, text = by_parts(embed, params, lead, size.part)
  return data.questions(size, seed, rows["ids"]).answered(video[0], text[0])
