"""Makes tests/golden/fused_bert.npz: BERT whose last two layers also see a video.

    python tests/golden/make_fused_bert.py    # where torch and transformers are

Two `BertLayer`s of transformers, then two with `add_cross_attention`, and its head of masked words,
on the weights and inputs of the functions here, which the test calls too. `first` is after the
layers without a video, `last` after all, `logits` are the head's; `given` is what the first layer
with a video lets each word give to each of its tokens, the mean over heads; `pruned` is `last`
where of the video only its first token and the four others that the first word gives most reach the
last layer. The arrays kept here are of transformers 5.23.0 and torch 2.13.0 (CPU, float32).
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).resolve().parent / "fused_bert.npz"
WIDTH, HEADS, MLP, WORDS, POSITIONS, VIDEO_WIDTH = 32, 2, 48, 50, 10, 24
DEPTH, FUSED, KEPT = 4, 2, 4
ATTENTION = dict(query=(WIDTH, WIDTH), key=(WIDTH, WIDTH), value=(WIDTH, WIDTH), out=(WIDTH, WIDTH))
CROSS = ATTENTION | dict(key=(VIDEO_WIDTH, WIDTH), value=(VIDEO_WIDTH, WIDTH))


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """ids int32[3, 7] and mask bool[3, 7], of texts of 7, 4 and 1 words; video float32[3, 13, 24]."""
  random = np.random.default_rng(1)
  mask = np.arange(7) < np.array([[7], [4], [1]])
  ids = np.where(mask, random.integers(1, WORDS, mask.shape), 0).astype(np.int32)
  return ids, mask, random.standard_normal((3, 13, VIDEO_WIDTH), np.float32)


def weights() -> dict:
  """Parameters of `vfe.models.fused_text.FusedText`, far from where they would begin."""
  random = np.random.default_rng(2)

  def norm(*stack):
    scale = 1 + 0.2 * random.standard_normal((*stack, WIDTH), np.float32)
    return {"scale": scale, "bias": 0.2 * random.standard_normal((*stack, WIDTH), np.float32)}

  def dense(rows, columns, *stack, bias=True):
    kernel = 1.5 * random.standard_normal((*stack, rows, columns), np.float32) / rows**0.5
    shift = 0.3 * random.standard_normal((*stack, columns), np.float32)
    return {"kernel": kernel, "bias": shift} if bias else {"kernel": kernel}

  def attention(shapes, layers):
    return {name: dense(*of, layers, bias=name != "key") for name, of in shapes.items()}

  table = lambda rows: random.standard_normal((rows, WIDTH), np.float32)
  made = {
    "word": {"embedding": table(WORDS)},
    "position": table(POSITIONS),
    "type": table(2),
    "norm": norm(),
    "blocks": {
      "attention": attention(ATTENTION, DEPTH),
      "attention_norm": norm(DEPTH),
      "mlp": {"up": dense(WIDTH, MLP, DEPTH), "down": dense(MLP, WIDTH, DEPTH)},
      "mlp_norm": norm(DEPTH),
    },
    "cross": {"cross": attention(CROSS, FUSED), "cross_norm": norm(FUSED)},
    "head": {"transform": dense(WIDTH, WIDTH), "norm": norm()},
  }
  made["head"]["bias"] = random.standard_normal((WORDS,), np.float32)
  return made


def theirs(torch, transformers):
  """transformers' embeddings, layers and head, with our weights and biases on keys besides."""
  from transformers.models.bert import modeling_bert as bert

  config = transformers.BertConfig(
    hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=MLP, vocab_size=WORDS,
    max_position_embeddings=POSITIONS, is_decoder=True, add_cross_attention=True,
    attn_implementation="eager",
  )  # fmt: skip
  plain = transformers.BertConfig(**{
    **config.to_dict(), "is_decoder": False, "add_cross_attention": False,
  }, attn_implementation="eager")  # fmt: skip
  ours = weights()

  def fill(module, of):
    with torch.no_grad():
      for name, value in of.items():
        value = torch.tensor(value)
        if name == "kernel":
          module.weight.copy_(value.T)
        else:
          getattr(module, {"scale": "weight"}.get(name, name)).copy_(value)

  def fill_attention(module, of, norm):
    parts = dict(query=module.self.query, value=module.self.value, out=module.output.dense)
    for name, part in parts.items():
      fill(part, of[name])
    fill(module.self.key, {**of["key"], "bias": np.arange(WIDTH, dtype=np.float32) / WIDTH})
    fill(module.output.LayerNorm, norm)

  def layer(index):
    first = DEPTH - FUSED
    made = bert.BertLayer(plain if index < first else config)
    own = lambda tree, at: {
      name: own(leaf, at) if isinstance(leaf, dict) else leaf[at] for name, leaf in tree.items()
    }
    of = own(ours["blocks"], index)
    fill_attention(made.attention, of["attention"], of["attention_norm"])
    fill(made.intermediate.dense, of["mlp"]["up"])
    fill(made.output.dense, of["mlp"]["down"])
    fill(made.output.LayerNorm, of["mlp_norm"])
    if index >= first:
      cross = own(ours["cross"], index - first)
      # The video has a width of its own.
      for name in ("key", "value"):
        setattr(made.crossattention.self, name, torch.nn.Linear(VIDEO_WIDTH, WIDTH))
      fill_attention(made.crossattention, cross["cross"], cross["cross_norm"])
    return made.eval()

  embed = bert.BertEmbeddings(plain).eval()
  for name in ("word", "position", "type"):
    table = ours[name]["embedding"] if name == "word" else ours[name]
    part = f"{'token_type' if name == 'type' else name}_embeddings"
    fill(getattr(embed, part), {"weight": table})
  fill(embed.LayerNorm, ours["norm"])
  head = bert.BertLMPredictionHead(plain).eval()
  fill(head.transform.dense, ours["head"]["transform"])
  fill(head.transform.LayerNorm, ours["head"]["norm"])
  fill(head.decoder, {"weight": ours["word"]["embedding"], "bias": ours["head"]["bias"]})
  return embed, [layer(index) for index in range(DEPTH)], head


def main():
  import torch
  import transformers

  ids, mask, video = (torch.tensor(of) for of in inputs())
  embed, layers, head = theirs(torch, transformers)
  seen = torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]
  shares = []
  layers[DEPTH - FUSED].crossattention.self.register_forward_hook(
    lambda module, given, found: shares.append(found[1].mean(1))
  )
  run = lambda layer, words, video: layer(words, seen, encoder_hidden_states=video)
  with torch.no_grad():
    words = embed(ids.long())
    for layer in layers[: DEPTH - FUSED]:
      words = layer(words, seen)
    arrays = {"first": words}
    words = run(layers[-2], words, video)
    given = shares[0]
    best = given[:, 0, 1:].topk(KEPT).indices.sort().values
    pairs = zip(video, best, strict=True)
    left = torch.stack([row[[0, *(1 + kept).tolist()]] for row, kept in pairs])
    arrays |= {"given": given, "pruned": run(layers[-1], words, left)}
    arrays["last"] = run(layers[-1], words, video)
    arrays["logits"] = head(arrays["last"])
  np.savez_compressed(FILE, **{name: value.numpy() for name, value in arrays.items()})


if __name__ == "__main__":
  main()
