"""LVMAE at 128 frames (arXiv 2411.13683): tokenizer -> pretrain -> finetune.

    python -m vfe.main --config=configs/lvmae_128.py --config.data.source=folder \\
      --config.data.path=/videos

Hardware: 128 TPU v5e, about 24 h of pre-training on EPIC-Kitchens-100 (paper, A.5.4). By the TPU's
          compiler a v5e chip holds 16 clips of ViT-L with stored targets; the whole batch on 64 of
          them, tokenizer in the step, wants --config.pretrain.accumulate= (docs/planning.md).
Expect:   Diving48 top-1 89.7 at the 15 % budget with ViT-B (paper, Table 8, second-hand).
Try:      configs/lvmae_128.py:demo, 7 minutes on 2 CPU cores.

Arguments after a colon: `demo`; size=s|b|l; frames=; data=tabletop, a folder of videos, a .csv or
.jsonl manifest, a folder of shards, of a TFDS data set or of Diving48's files. The authors
published no code, and their tables of training settings are not to be had in text: what is marked
"ours" below is our default, not the paper's.
"""

import ml_collections
from ml_collections import config_dict

from vfe.config import choose, data_source, parse_argument, stage_data

FILE = "configs/lvmae_128.py"
STAGES = ("tokenizer", "pretrain", "finetune")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """The recipe; see the file's docstring for the argument."""
  chosen = parse_argument(FILE, argument, demo=False, size="b", frames=128, data="tabletop")
  choose(dict.fromkeys(("s", "b", "l")), chosen.size, f"{FILE}: size")
  config = ml_collections.ConfigDict(
    dict(
      name="lvmae_128",
      variant=argument.replace("=", "").replace("/", "_").replace(",", "-"),
      stages=STAGES,
      seed=0,
      precision="auto",
      mesh=dict(data=-1, fsdp=1, tensor=1, context=1),
      hosts=dict(heartbeat_timeout_seconds=100),  # JAX's default
      log=dict(every=50, tensorboard=True),
      evaluate=dict(every=0),  # 0: at the end of a stage only
      checkpoint=dict(every=1000, keep=1),
      profile=dict(start=10, steps=0),
      guard=dict(steps_in_a_row=20),  # so many updates skipped one after another end the run
      # ViT-B is the paper's for ablations, ViT-L for its best results (A.5.2); a tubelet is a token
      # of the tokenizer's; decoder depth from A.5.2, its width VideoMAE's.
      model=dict(
        size=chosen.size, tubelet=(2, 16, 16), decoder_depth=4, remat="full", attention="auto"
      ),
      data=_data(chosen),
      tokenizer=_tokenizer(),
      pretrain=_pretrain(),
      finetune=_finetune(chosen),
    )
  )
  if chosen.demo:
    _demo(config, chosen)
  return config.lock()


def _data(chosen) -> dict:
  source, path = data_source(chosen.data)
  return dict(
    source=source,
    path=config_dict.placeholder(str) if path is None else path,
    eval_path=config_dict.placeholder(str),
    variant=config_dict.placeholder(str),  # of a data set with several protocols; None: its usual
    heads=config_dict.placeholder(tuple),  # label columns of a manifest; default: all
    frames=chosen.frames,
    size=224,  # derived: 16 frames give 8x14x14 tokens (A.5.1)
    sampling=dict(kind="strided", stride=1, align=1, fps=0.0),  # 128 frames are 5 s (paper 4)
    augment=dict(kind="resized_crop", scale=(0.5, 1.0), ratio=(0.75, 1.3333), flip=True),  # ours
    views=1,
    eval_clips=1,
    eval_crops=1,
    workers=8,
    buffer=2,
    max_fault_share=0.05,
    max_pixels=8192 * 4320,
    tabletop=dict(
      rung="routine",
      videos=4096,
      eval_videos=512,
      frames=chosen.frames,
      size=224,
      objects=(2, 4),
      texture="weak",
      seed=0,
    ),
  )


def _tokenizer() -> dict:
  """FSQ-MagViT with token scorer (3.3, A.1); losses and optimiser MAGVIT's for UCF-101."""
  adam = dict(
    kind="adam",
    base_lr=1e-4,  # at 256 clips, MAGVIT's batch for its L
    b1=0.0,
    b2=0.99,
    weight_decay=0.0,
    warmup=0.002,  # one epoch of 500
    schedule="cosine",
    batch_reference=256,
    clip_norm=0.0,
  )
  return dict(
    kind="tokenizer",
    inputs=dict(perceptual=config_dict.placeholder(str)),  # a folder of microsoft/resnet-50
    data=stage_data(frames=16),  # paper: 16 frames of Kinetics-600 (--config.tokenizer.data.path=)
    model=dict(
      filters=64,
      multipliers=(1, 2, 2, 4, 4),  # ours: five stages give 2x16x16
      temporal_downsample=(True, False, False, False),
      res_blocks=2,
      levels=(8,) * 6,  # 18 bits (A.1); the split over dimensions is ours
      window=16,
      scorer_channels=(64, 128),  # ours
      keep=768 / 1568,  # paper 3.3
      topk="straight_through",  # the paper does not name its algorithm
      remat_stages=2,
    ),
    discriminator=dict(filters=64, multipliers=(2, 4, 4, 4, 4), remat_blocks=2),
    loss=dict(pixel=1.0, perceptual=0.1, adversarial=0.1, discriminator=1.0, r1=10.0),
    batch=256,
    accumulate=1,
    epochs=100.0,  # ours
    steps=config_dict.placeholder(int),
    ema=0.999,
    optimizer=adam,
    discriminator_optimizer=dict(adam),
  )


def _pretrain() -> dict:
  """Dual masking (3.1-3.2); optimiser VideoMAE's."""
  return dict(
    kind="mae",
    inputs=dict(
      tokenizer="tokenizer",
      targets=config_dict.placeholder(str),
      encoder=config_dict.placeholder(str),  # paper 4.4: first Kinetics-710, then the data itself
    ),
    data=stage_data(),
    target="latent",  # Eq. 2
    importance="tokenizer",
    encoder_mask=dict(kind="tube", ratio=0.9),  # 3.2
    decoder_budget=dict(kind="adaptive", importance=0.10, random=0.05),  # 4.2
    batch=2048,
    accumulate=1,
    epochs=1600.0,  # A.5.2
    steps=config_dict.placeholder(int),
    ema=0.0,
    optimizer=dict(
      kind="adamw",
      base_lr=1.5e-4,  # for `batch_reference` clips
      batch_reference=256,
      end_lr=1e-5,
      b1=0.9,
      b2=0.95,
      weight_decay=0.05,
      warmup=0.025,  # 40 of 1600 epochs
      schedule="cosine",
      clip_norm=0.0,
    ),
  )


def _finetune(chosen) -> dict:
  """Fine-tuning (A.5.3); optimiser and regularisation VideoMAE's."""
  large = chosen.size == "l"
  return dict(
    kind="classify",
    inputs=dict(encoder="pretrain"),
    data=stage_data(),
    freeze=False,
    pool="class_attention" if large else "mean",  # A.5.3
    token_drop=(0.25 if large else 0.2) if chosen.frames >= 128 else 0.0,  # A.5.3, Table 2
    drop_path=0.1,
    edges=dict(local=1, random=3, size=0),  # SViTT's blocks (docs/recipes.md); size=0: all meet
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
    batch=64,
    eval_batch=64,
    accumulate=1,
    epochs=50.0 if large else 200.0,  # Diving48 (A.5.3)
    steps=config_dict.placeholder(int),
    ema=0.0,
    optimizer=dict(
      kind="adamw",
      base_lr=5e-4,
      batch_reference=256,
      end_lr=1e-6,
      b1=0.9,
      b2=0.999,
      weight_decay=0.05,
      layer_decay=0.75,
      warmup=0.05,
      schedule="cosine",
      clip_norm=0.0,
    ),
  )


def _demo(config: ml_collections.ConfigDict, chosen) -> None:
  """The same recipe at 32 pixels on the tabletop world's lowest rung: what is in the picture.

  128 frames a clip, decoded from files. Targets are stored once, so crops are the centre's.
  """
  config.stages = ("tokenizer", "targets", "pretrain", "finetune")
  config.model.update(size="demo", tubelet=(4, 4, 4), decoder_depth=2, remat="none")
  config.data.update(size=32, workers=0)
  config.data.sampling.align = 16
  config.data.augment.kind = "center"
  config.data.tabletop.update(rung="appearance", videos=192, eval_videos=64, size=32)
  config.targets = dict(
    kind="targets", inputs=dict(tokenizer="tokenizer"), data=stage_data(), batch=4
  )
  config.log.every = 10
  config.checkpoint.every = 100

  config.tokenizer.update(batch=4, steps=400, ema=0.98)
  config.tokenizer.model.update(
    filters=8,
    multipliers=(1, 2, 4),
    temporal_downsample=(True, True),
    res_blocks=1,
    scorer_channels=(16, 32),
    remat_stages=0,
  )
  config.tokenizer.discriminator.update(filters=8, multipliers=(2, 4, 4), remat_blocks=0)
  for optimizer in (config.tokenizer.optimizer, config.tokenizer.discriminator_optimizer):
    optimizer.update(base_lr=1e-3, batch_reference=4)
  config.pretrain.inputs.update(targets="targets", tokenizer="")
  config.pretrain.update(batch=8, steps=300)
  config.pretrain.optimizer.update(base_lr=1e-3, batch_reference=8, warmup=0.1)
  config.finetune.update(batch=8, eval_batch=8, steps=200, mixup=0.0, cutmix=0.0, drop_path=0.0)
  config.finetune.token_drop = 0.5
  config.finetune.optimizer.update(base_lr=1e-3, batch_reference=8, warmup=0.1)
