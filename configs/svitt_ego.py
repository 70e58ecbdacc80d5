"""SViTT-Ego (arXiv 2406.09462): sparse video-text pre-training on narrated first-person video.

    python -m vfe.main --config=configs/svitt_ego.py:data=egoclip --config.data.path=/data/ego4d \\
      --config.pretrain.inputs.encoder=/weights/beit-base-patch16-224-pt22k-ft22k \\
      --config.pretrain.inputs.text=/weights/bert-base-uncased

Hardware: 8 GPUs of 12 GB (paper); what a chip holds of it is in docs/planning.md.
Expect:   EgoMCQ 92.9 between videos and 65.9 within one, of 39,751 questions (paper, Table 2).
Try:      configs/svitt_ego.py:demo, 6 minutes on 2 CPU cores.

Arguments after a colon: `demo`; size=s|b; random= blocks that each block sees beside its own (5, or
3); data=tabletop, egoclip, or another source of videos with captions (docs/video-text.md);
`curriculum` adds SViTT's second stage, twice the frames from the first one's weights. The paper
leaves settings out: "not in it" marks those of the authors' demo or of SViTT's configs, "ours" our
defaults.
"""

import ml_collections
from ml_collections import config_dict

from vfe.config import captioned_data, choose, data_source, parse_argument

FILE = "configs/svitt_ego.py"
TEXT = {"s": "medium", "b": "base"}
TEMPLATES = ("{}", "a video of a person {}.", "a video of someone who is {}.")  # ours


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """The recipe; see the file's docstring for the argument."""
  chosen = parse_argument(
    FILE, argument, demo=False, curriculum=False, size="b", random=5, data="tabletop"
  )
  choose(TEXT, chosen.size, f"{FILE}: size")
  config = ml_collections.ConfigDict(
    dict(
      name="svitt_ego",
      variant=argument.replace("=", "").replace("/", "_").replace(",", "-"),
      stages=("pretrain", "expand") if chosen.curriculum else ("pretrain",),
      seed=0,
      precision="auto",
      mesh=dict(data=-1, fsdp=1, tensor=1, context=1),
      hosts=dict(heartbeat_timeout_seconds=100),  # JAX's default
      log=dict(every=50, tensorboard=True),
      evaluate=dict(every=0),  # 0: at the end of a stage only
      checkpoint=dict(every=1000, keep=1),
      profile=dict(start=10, steps=0),
      guard=dict(steps_in_a_row=20),  # so many updates skipped one after another end the run
      model=dict(
        size=chosen.size,
        tubelet=(1, 16, 16),  # 2.1
        pool="cls",  # the paper's; SViTT's code: "mean" (2.5)
        text=TEXT[chosen.size],
        fused=3,  # the text encoder's last layers, which read the video (2.6)
        joint=256,  # not in it: the authors' demo
        remat="full",
        attention="auto",
      ),
      data=_data(chosen),
      pretrain=_pretrain(chosen),
      expand=_expand(chosen),
    )
  )
  if chosen.demo:
    _demo(config, own=chosen.data != "tabletop")
  return config.lock()


def _data(chosen) -> dict:
  source, path = data_source(chosen.data)
  return dict(
    source=source,
    path=config_dict.placeholder(str) if path is None else path,
    eval_path=config_dict.placeholder(str),
    variant="narrations" if source == "tabletop" else config_dict.placeholder(str),
    heads=config_dict.placeholder(tuple),
    frames=4,
    size=224,
    sampling=dict(kind="segment", stride=1, align=1, fps=0.0),  # 2.8
    augment=dict(kind="resized_crop", scale=(0.5, 1.0), ratio=(0.75, 1.3333), flip=True),  # 2.8
    text=dict(key="caption", length=32, clean=True),  # not in it: SViTT's
    views=1,
    eval_clips=1,
    eval_crops=1,
    workers=8,
    buffer=2,
    max_fault_share=0.05,
    max_pixels=8192 * 4320,
    tabletop=dict(
      rung="routine",  # long enough for questions within a video
      videos=4096,
      eval_videos=512,
      frames=256,
      size=224,
      objects=(2, 4),
      texture="weak",
      seed=0,
    ),
  )


def _pretrain(chosen) -> dict:
  """EgoNCE, matching and hidden words (3); the optimiser, which is not in it, is SViTT's."""
  return dict(
    kind="sparse_video_text",
    inputs=dict(
      encoder=config_dict.placeholder(str),
      text=config_dict.placeholder(str),
      vocabulary=config_dict.placeholder(str),
    ),
    data=captioned_data(),
    contrast="egonce",  # or "info_nce", SViTT's
    neighbours=data_source(chosen.data)[0] in ("tabletop", "egoclip"),  # hard negatives (3.1)
    weights=dict(contrast=1.0, match=1.0, words=1.0),  # 2.7
    hidden=0.5,  # share of the words (2.7)
    temperature=0.18,  # not in it: the authors' demo; SViTT's is 0.07, EgoVLP's 0.05
    learn_temperature=True,
    edges=dict(local=1, random=chosen.random, size=56),  # not in it: 5 and 3; size=0: dense
    pruning=dict(after=(3, 6, 9), keep=0.7, by="cls_attention"),  # 2.4; keep=1: none
    fused_pruning=dict(after=(1,), keep=0.1, by="cls_attention"),  # 2.6; of the fused layers
    drop_path=0.1,  # 2.1
    batch=128,  # 8 a GPU on 8 (paper), and as many neighbours
    accumulate=1,
    epochs=10.0,
    steps=config_dict.placeholder(int),
    ema=0.0,
    eval_batch=64,
    optimizer=dict(
      kind="adamw",
      base_lr=3e-5,
      batch_reference=128,
      end_lr=3e-7,
      b1=0.9,
      b2=0.999,
      weight_decay=0.02,
      warmup=0.1,  # one epoch (paper)
      schedule="cosine",
      clip_norm=0.0,
    ),
    measures=_measures(data_source(chosen.data)[0]),
  )


def _measures(source: str) -> dict:
  """EgoMCQ on the recipe's own data; the others where their data.source and data.path are named."""
  mcq = source if source in ("tabletop", "egoclip") else config_dict.placeholder(str)
  other = lambda kind: dict(kind=kind, templates=TEMPLATES, data=captioned_data())
  return dict(
    egomcq=dict(kind="egomcq", data=captioned_data(source=mcq)),
    judged=dict(kind="judged_egomcq", data=captioned_data()),  # by matching
    epic_kitchens=other("multi_instance"),
    charades_ego=other("multi_label"),
    retrieval=other("retrieval"),  # of the parent SViTT: msrvtt, didemo, ssv2
  )


def _expand(chosen) -> dict:
  """SViTT's temporal expansion (2.8): 8 frames, fewer of the tokens go on."""
  stage = _pretrain(chosen)
  stage["inputs"].update(encoder="pretrain", text="pretrain")
  stage["data"]["frames"] = 8
  stage["pruning"]["keep"] = 0.6
  return stage


def _demo(config: ml_collections.ConfigDict, own: bool) -> None:
  """The same at 32 pixels from nothing, the words of the narrations its vocabulary."""
  config.stages = ("vocabulary", *config.stages)
  config.vocabulary = dict(
    kind="vocabulary", size=256, keys_of_text=("caption",), data=captioned_data()
  )
  config.model.update(size="demo", tubelet=(1, 8, 8), text="demo", fused=1, joint=64, remat="none")
  config.data.update(size=32, workers=0)
  config.data.augment.update(kind="center", flip=False)  # left is not right
  config.data.text.length = 16
  config.data.tabletop.update(videos=256, eval_videos=64, size=32, objects=(2, 2))
  config.checkpoint.every = 500
  for name in ("pretrain", "expand"):
    stage = config[name]
    stage.update(batch=64, eval_batch=64, steps=400, temperature=0.07, drop_path=0.0)
    stage.edges.update(size=4, random=3)  # a row of a frame
    stage.pruning.after = (1, 2)
    stage.fused_pruning.update(after=(0,), keep=0.5)
    stage.optimizer.update(base_lr=1e-3, batch_reference=64, end_lr=0.0, clip_norm=1.0)
    if not own:
      stage.measures.judged.data.source = "tabletop"
  config.pretrain.inputs.vocabulary = "vocabulary"
