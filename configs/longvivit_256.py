"""LongViViT (arXiv 2312.07395): image -> short video -> long video -> captions and summaries.

    python -m vfe.main --config=configs/longvivit_256.py \\
      --config.image.inputs.encoder=/weights/vit --config.image.inputs.text=/weights/bert \\
      --config.image.data.path=/data/pairs.jsonl --config.short.data.path=/data/clips \\
      --config.long.data.path=/data/long.jsonl --config.caption.inputs.language=/weights/gemma \\
      --config.caption.data.path=/data/long.jsonl \\
      --config.caption.mixture.short.data.path=/data/clips

Hardware: TPUs, as many as `python -m vfe.tools.plan --config=configs/longvivit_256.py` says.
Expect:   MSR-VTT text to video R@1 29.9 of the short stage with ViT-L at 75 % masked, 31.9 unmasked
          (paper, Table 2), YouCook2 ROUGE-L 20.3 of zero-shot summaries and EgoSchema's subset 56.8
          of the caption stage (Table 3); its data are private.
Try:      configs/longvivit_256.py:demo, 15 minutes on 2 CPU cores.

Arguments after a colon: `demo`; size=s|b|l; frames= of the long stage (128 with size=b in the
paper); masked= share of the tokens that the video stages drop in training; data=tabletop, or a
folder, manifest or data set of videos with captions (docs/video-text.md). The authors published no
code and no training settings: what is marked "ours" is our default, "Flamingo's" its older
sibling's (arXiv 2204.14198).
"""

import ml_collections
from ml_collections import config_dict

from vfe.config import captioned_data, choose, data_source, parse_argument

FILE = "configs/longvivit_256.py"
STAGES = ("image", "short", "long", "caption")
SUMMARY, CAPTION = "A summary of the video:", "A caption of the video:"  # ours, as all prompts
QUESTION = "Question: {question} Answer:"
TEXT = {"s": "medium", "b": "medium", "l": "base"}  # 2.8
TEMPLATES = ("{}", "a video of a person {}.", "a video of someone who is {}.")  # ours
JOINT = {"s": 512, "b": 512, "l": 768}  # width of the space in which both towers meet; ours


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """The recipe; see the file's docstring for the argument."""
  chosen = parse_argument(
    FILE, argument, demo=False, size="l", frames=256, masked=0.75, data="tabletop"
  )
  choose(TEXT, chosen.size, f"{FILE}: size")
  config = ml_collections.ConfigDict(
    dict(
      name="longvivit_256",
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
      model=dict(
        size=chosen.size,
        tubelet=(2, 16, 16),  # 2.1
        tubes=config_dict.placeholder(str),  # "tubevit": its four kernels in place of one (2.6)
        positions="learned",  # 2.1
        mixing="joint",  # 2.1; factorised (2.3) and frame (2.4) are its rivals
        cls=False,  # 2.1: the mean over space and time
        pool="mean",
        text=TEXT[chosen.size],
        joint=JOINT[chosen.size],
        remat="full",
        attention="auto",
      ),
      data=_data(chosen),
      image=_image(),
      short=_short(chosen),
      long=_long(chosen),
      caption=_caption(chosen),
      segments=_segments(),
      summaries=_summaries(),
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
    variant=config_dict.placeholder(str),
    heads=config_dict.placeholder(tuple),
    frames=16,  # 2.1
    size=256,  # 2.1, inferred there
    sampling=dict(kind="strided", stride=1, align=1, fps=1.0),  # 2.1
    augment=dict(kind="resized_crop", scale=(0.5, 1.0), ratio=(0.75, 1.3333), flip=True),  # ours
    text=dict(key="caption", length=64),  # ours
    views=1,
    eval_clips=1,
    eval_crops=1,
    workers=8,
    buffer=2,
    max_fault_share=0.05,
    max_pixels=8192 * 4320,
    tabletop=dict(
      rung="order",
      videos=4096,
      eval_videos=512,
      frames=256,
      size=256,
      objects=(2, 4),
      texture="weak",
      seed=0,
    ),
  )


def _trained(**changes) -> dict:
  """What all stages have in common; optimiser ours, by section 3.2."""
  stage = dict(
    accumulate=1,
    epochs=10.0,  # ours
    steps=config_dict.placeholder(int),
    ema=0.0,
    optimizer=dict(
      kind="adamw",
      base_lr=1e-4,
      batch_reference=1024,
      end_lr=0.0,
      b1=0.9,
      b2=0.98,
      weight_decay=1e-2,
      warmup=0.02,
      schedule="cosine",
      clip_norm=1.0,
    ),
  )
  return stage | changes


def _contrast(**changes) -> dict:
  """What the contrastive stages have in common."""
  stage = _trained(
    kind="contrast",
    inputs=dict(
      encoder=config_dict.placeholder(str),
      text=config_dict.placeholder(str),
      vocabulary=config_dict.placeholder(str),
    ),
    data=captioned_data(),
    mixture=dict(videos=dict(share=1.0, weight=1.0, data=captioned_data())),
    retrieval=dict(validation=dict(data=captioned_data())),
    zero_shot=dict(  # classes by their names, where a label head is named
      head=config_dict.placeholder(str), templates=TEMPLATES, data=captioned_data()
    ),
    mask=dict(kind="random", ratio=0.0),
    train="all",
    last_layers=4,  # 2.5, where train is "last"
    adapter=config_dict.placeholder(int),  # where train is "adapters"; default: a quarter of D
    rank=config_dict.placeholder(int),  # where train is "lora"; default: as many parameters
    freeze_text=False,
    inflate="repeat",  # 2.2
    loss="info_nce",
    label_smoothing=0.0,
    eval_batch=64,
  )
  return stage | changes


def _image() -> dict:
  """Image and text, from a ViT, CLIP or SigLIP tower and BERT; Flamingo's settings (B.1.3)."""
  stage = _contrast(
    data=captioned_data(frames=1), batch=16384, label_smoothing=0.1, steps=1_200_000, eval_batch=512
  )
  stage["optimizer"].update(base_lr=1e-3, batch_reference=16384, schedule="linear")
  stage["optimizer"]["clip_norm"] = 10.0
  return stage


def _short(chosen) -> dict:
  """1a: images and clips of 16 frames at 1 FPS together, all weights (3, step 2)."""
  stage = _contrast(
    mixture=dict(  # shares and weights ours
      videos=dict(share=0.5, weight=1.0, data=captioned_data()),
      images=dict(share=0.5, weight=1.0, data=captioned_data(frames=1)),
    ),
    batch=2048,  # ours
  )
  stage["mask"]["ratio"] = chosen.masked
  stage["inputs"].update(encoder="image", text="image")
  return stage


def _long(chosen) -> dict:
  """1b: whole videos and their summaries; the last four layers, text frozen (3, step 3)."""
  stage = _contrast(
    data=captioned_data(frames=chosen.frames, text=dict(key="summary", length=256)),
    batch=256,  # ours
    train="last",
    freeze_text=True,
    eval_batch=16,
  )
  stage["mask"]["ratio"] = chosen.masked
  stage["optimizer"]["base_lr"] = 5e-5
  stage["inputs"].update(encoder="short", text="short")
  return stage


def _caption(chosen) -> dict:
  """2: captions and summaries; resampler and bridge train, all else is frozen (3, step 4)."""
  stage = _trained(
    kind="caption",
    inputs=dict(encoder="long", language=config_dict.placeholder(str)),
    data=captioned_data(frames=chosen.frames, text=dict(key="summary", length=256)),
    mixture=dict(  # shares and weights ours
      long=dict(share=0.5, weight=1.0, template=SUMMARY, data=captioned_data()),
      short=dict(share=0.5, weight=1.0, template=CAPTION, data=_short_clips()),
    ),
    written=dict(  # generated, against what the validation videos have
      summary=_written(SUMMARY, 256, captioned_data()),
      caption=_written(CAPTION, 64, _short_clips()),
    ),
    questions=dict(validation=_questions(QUESTION)),
    masked=0.3,  # 2.7: in training and afterwards
    pool="time",  # 3.3
    spread=True,  # short clips over the long encoder's positions; ours (docs/results.md)
    resampler=dict(  # Flamingo's, at the language model's width (3.3)
      width=config_dict.placeholder(int), queries=64, depth=6, heads=16, head_dim=96, mlp=4
    ),
    bridge=dict(every=1, heads=16, head_dim=64, mlp=0),  # every layer (3.3); the rest ours
    generate=dict(beams=3, temperature=0.0, top_p=1.0),  # Flamingo's beams
    batch=128,  # ours
    eval_batch=16,
  )
  stage["optimizer"].update(base_lr=1e-4, batch_reference=128, b2=0.999)
  return stage


def _segments() -> dict:
  """The paper's rival (4): a language model reads captions of segments of 16 frames; where
  config.stages names it."""
  return dict(
    kind="segments",
    inputs=dict(captioner="caption", language=config_dict.placeholder(str)),
    data=captioned_data(text=dict(key="summary", length=2048)),
    seconds=16.0,  # 4
    prompt="caption",  # the captioner's, by its name in `written`
    written=dict(summary=_written(f"{{segments}} {SUMMARY}", 256, captioned_data())),
    questions=dict(validation=_questions(f"{{segments}} {QUESTION}")),
    generate=dict(beams=3, temperature=0.0, top_p=1.0),
    eval_batch=16,
  )


def _summaries() -> dict:
  """Transcripts to texts to train the long stage on (3.1: HowTo100M Summary); where config.stages
  names it. The paper's prompts are not to be had."""
  return dict(
    kind="summarise",
    inputs=dict(language=config_dict.placeholder(str)),
    data=captioned_data(text=dict(key="caption", length=2048)),
    template="Transcript: {transcript}\nA summary of the video:",
    most=1200,  # words of a transcript
    words=200,
    generate=dict(beams=1, temperature=0.0, top_p=1.0),
    eval_batch=16,
  )


def _written(template: str, words: int, data: dict) -> dict:
  """wrong_video: once more, of videos that are shown another one's clip."""
  return dict(template=template, words=words, wrong_video=False, data=data)


def _questions(template: str) -> dict:
  """Asked where data.source is named: egoschema, nextqa, msrvtt_qa, ..."""
  return dict(
    how="likelihood",  # section 6; or "generated", of open-ended ones
    template=template,
    options=config_dict.placeholder(int),  # open-ended ones among so many frequent answers
    words=16,
    data=captioned_data(),
  )


def _short_clips() -> dict:
  return captioned_data(frames=16, text=dict(key="caption", length=64))


def _demo(config: ml_collections.ConfigDict, own: bool) -> None:
  """The same three stages at 32 pixels, from a vocabulary of the captions; of your `own` videos
  each has the column `caption`, the tabletop world tells more.

  `before` measures the short stage's encoder on the long videos: what the long stage adds is told
  by the table.
  """
  config.stages = ("vocabulary", "image", "short", "before", "long")
  config.model.update(size="demo", tubelet=(2, 8, 8), text="demo", joint=64, remat="none")
  config.data.update(size=32, workers=0)
  config.data.augment.kind = "center"
  config.data.sampling.update(kind="uniform", fps=0.0)
  config.data.text.length = 24
  config.data.tabletop.update(
    rung="order", videos=1024, eval_videos=128, frames=64, size=32, objects=(2, 3)
  )
  config.log.every = 50
  config.checkpoint.every = 500
  for name in ("image", "short", "long"):
    stage = config[name]
    stage.update(batch=32, eval_batch=32, label_smoothing=0.0)
    stage.optimizer.update(base_lr=1e-3, batch_reference=32, warmup=0.1, clip_norm=1.0)
    stage.optimizer.schedule = "cosine"
  images = config.short.mixture.images.data
  for data in (config.image.data, images):
    data.sampling.kind = "strided"  # a picture is a random frame
  keys = ("caption",)
  if not own:
    config.image.data.text.key = images.text.key = "objects"
    config.short.zero_shot.update(head="first", templates=("C {} something",))
    keys += ("summary", "objects", "question", "answers", "segments")
  config.vocabulary = dict(
    kind="vocabulary", size=256, keys_of_text=keys, data=captioned_data()
  )
  if not own:
    config.vocabulary.data.variant = "questions"
  config.image.inputs.vocabulary = "vocabulary"
  config.image.steps = 400
  config.short.update(steps=400, batch=64)
  config.short.mask.ratio = 0.5
  config.long.data.update(frames=64)
  config.long.data.text.update(key="caption" if own else "summary", length=48)
  config.long.update(steps=200, last_layers=2)
  config.before = config.long.copy_and_resolve_references()
  config.before.steps = 0
  _demo_of_words(config, own)


def _demo_of_words(config: ml_collections.ConfigDict, own: bool) -> None:
  """A language model of the captions' own words, the bridge to it, and on the tabletop world the
  rival, whose language model has read what truly happens in segments."""
  config.stages += ("language", "caption") + (() if own else ("segments",))
  config.model.language = "demo"
  told = "{segments} "
  parts = {"caption": (CAPTION, "caption", 40, None)}
  if not own:
    parts |= {
      "summary": (SUMMARY, "summary", 56, None),
      "question": (QUESTION, "answers", 40, "questions"),
      "told_summary": (told + SUMMARY, "summary", 112, None),
      "told_question": (told + QUESTION, "answers", 112, "questions"),
    }
  config.language = _trained(
    kind="language",
    inputs=dict(vocabulary="vocabulary", language=config_dict.placeholder(str)),
    data=captioned_data(text=dict(key="caption", length=128)),
    mixture={
      name: dict(
        share=1 / len(parts),
        weight=1.0,
        template=template,
        data=captioned_data(
          text=dict(key=key, length=length), variant=variant or config_dict.placeholder(str)
        ),
      )
      for name, (template, key, length, variant) in parts.items()
    },
    batch=40,
    eval_batch=40,
    steps=200,
  )
  config.language.optimizer.update(base_lr=2e-3, batch_reference=40, warmup=0.1)
  caption, segments = config.caption, config.segments
  caption.inputs.language = segments.inputs.language = "language"
  caption.data.update(frames=64)
  caption.data.text.update(key=config.long.data.text.key, length=64)
  caption.mixture.long.template = CAPTION if own else SUMMARY
  caption.resampler.update(queries=16, depth=2, heads=4, head_dim=32, mlp=2)
  caption.bridge.update(heads=4, head_dim=32, mlp=2)
  caption.generate.beams = segments.generate.beams = 1
  caption.update(batch=32, eval_batch=32, steps=300)
  caption.optimizer.update(base_lr=2e-3, batch_reference=32, warmup=0.1)
  caption.written.summary.update(template=caption.mixture.long.template, words=48)
  caption.written.caption.update(words=24, wrong_video=True)
  segments.update(eval_batch=32, seconds=1.0)  # 16 frames
  segments.data.text.length = 192
  segments.written.summary.words = 48
  if not own:
    caption.mixture.long.share = caption.mixture.short.share = 0.25
    caption.mixture.question = dict(
      share=0.5,
      weight=1.0,
      template=QUESTION,
      data=captioned_data(variant="questions", text=dict(key="answers")),
    )
    for stage in (caption, segments):
      stage.questions.validation.data.update(source="tabletop", variant="questions")
