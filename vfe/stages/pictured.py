"""Pictures of which tokens go on, and of which meet, of a stage that trains SViTT."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from vfe import config as configs
from vfe.data.record import Source
from vfe.data.sources import ListedSource
from vfe.data.streams import Stream
from vfe.data.text import captions_of
from vfe.evaluate.evaluator import Evaluator
from vfe.evaluate.pictures import ROWS, PrunedTokens
from vfe.learn.state import Params
from vfe.models.vivit import EncoderConfig, meeting
from vfe.stages.stage import Batch
from vfe.tokens.selection import everything, gather_tokens
from vfe.tokens.tubelets import gather_tubelets

LOOKED_AT = 100  # records, for some that have a text


def pruned_tokens(stage: Any, name: str) -> Evaluator:
  """A few clips of `measures.<name>`: after each layer that prunes, and as the first word of a
  text that tells of the clip has it."""
  section = stage.config.measures[name]
  data = configs.laid_over(stage.config.data, section.data, f"config.{stage.name}.measures.{name}")
  source = _some(stage.setting.open_source(data, "validation"), data.text.key)
  stream = Stream.of(source, data, stage.config.eval_batch, text=stage.text_of(data, data.text.key))
  patterns = met(stage.vision)

  def predict(params: Params, frozen: Any, clip: Batch) -> dict[str, Any]:
    kept = _kept(stage, params, clip)
    marks = [_marks(of, stage.vision.layout.size) for of in kept]
    return {"frames": clip["video"][:, :: stage.vision.tubelet[0]], "kept": jnp.stack(marks, 1)}

  collector = lambda: PrunedTokens(stage.vision.layout, patterns)
  return Evaluator("pictures", stream, predict, collector)


def met(config: EncoderConfig) -> list[Bool[np.ndarray, "_M _M"]]:
  """Which blocks meet in each layer, as at evaluation; none without edges."""
  if config.edges is None:
    return []
  found = []
  n = config.layout.size
  counts = config.pruning.counts(n, config.depth) if config.pruning else [n] * config.depth
  for layer, left in enumerate(counts):
    _, patterns = meeting(config, everything(1, left), jax.random.key(0), layer, layer + 1)
    pattern = np.asarray(patterns[0])
    seen = np.zeros((len(pattern), len(pattern)), bool)
    seen[np.arange(len(pattern))[:, None], pattern] = True
    found.append(seen)
  return found


def _some(source: Source, key: str) -> ListedSource:
  """The first records that have a text."""
  there = (source[i] for i in range(min(LOOKED_AT, len(source))))
  told = [record for record in there if captions_of(record, key)][:ROWS]
  return ListedSource(source.name, source.heads, told)


def _kept(stage: Any, params: Params, clip: Batch) -> list[Int[Array, "B _"]]:
  """The tokens that are left, by every choice that is made of them; all, where none is."""
  layout = stage.vision.layout
  kept = [everything(len(clip["video"]), layout.size)]
  patches = gather_tubelets(clip["video"], layout, kept[0])

  def run(*inputs, method):
    out, sown = stage.tested.apply(
      {"params": params}, *inputs, method=method, mutable=["intermediates"]
    )
    return out, sown.get("intermediates", {})

  tokens, sown = run(patches, kept[0], method="tokens_of_video")
  kept += sown.get("vision", {}).get("kept", ())
  ids, mask = clip["text"]["ids"][:, 0], clip["text"]["mask"][:, 0]
  words, _ = run(ids, mask, method="tokens_of_text")
  _, sown = run(words, mask, tokens, method="fuse")
  for chosen in sown.get("text", {}).get("kept_of_video", ()):
    kept.append(gather_tokens(kept[-1], chosen))
  return kept[1:] or kept


def _marks(chosen: Int[Array, "B K"], n: int) -> Bool[Array, "B {n}"]:
  rows = jnp.arange(len(chosen))[:, None]
  return jnp.zeros((len(chosen), n), bool).at[rows, chosen].set(True)
