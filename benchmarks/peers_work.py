"""What `peers.py` has both sides do: their models, the same weights, clips and masks, their steps.

JAX and PyTorch are imported where they are used, so that no process has both.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])  # ImageNet's
OPTIMIZER = dict(lr=1e-4, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05)
MASKED = 0.9
FRAMES = {"pretrain": 16, "forward": 32}


@dataclasses.dataclass(frozen=True)
class Peer:
  """How PyTorch does the work."""

  attention: str
  compiled: bool


PEERS = {"eager": Peer("eager", False), "sdpa": Peer("sdpa", False), "compiled": Peer("sdpa", True)}


@dataclasses.dataclass(frozen=True)
class Task:
  """What is to be done by all: `work` is a key of FRAMES, folder holds the first weights."""

  work: str
  size: str
  pixels: int
  batch: int
  dtype: str
  device: str
  folder: str

  def clips(self) -> np.ndarray:
    """uint8[B, T, S, S, 3], the same for all sides."""
    shape = (self.batch, FRAMES[self.work], self.pixels, self.pixels, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

  def encoder(self) -> Any:
    """The EncoderConfig."""
    from vfe.models.vivit import EncoderConfig

    return EncoderConfig.of(self.size, FRAMES[self.work], self.pixels)

  def visible(self) -> np.ndarray:
    """int32[B, K], sorted: a tube mask a clip."""
    layout = self.encoder().layout
    rng, keep = np.random.default_rng(1), max(1, round(layout.per_frame * (1 - MASKED)))
    places = np.sort([rng.permutation(layout.per_frame)[:keep] for _ in range(self.batch)])
    times = np.arange(layout.grid[0])[:, None] * layout.per_frame
    return (times + places[:, None]).reshape(self.batch, -1).astype(np.int32)

  def masked(self) -> np.ndarray:
    """bool[B, N]: all the others."""
    mask = np.ones((self.batch, self.encoder().layout.size), bool)
    mask[np.arange(self.batch)[:, None], self.visible()] = False
    return mask


# A side is made once and is then `run(steps) -> loss of the last`, which waits for the device.
Run = Callable[[int], float]


def ours(task: Task) -> Run:
  """Our step, jitted."""
  import jax

  run = _our_pretraining(task) if task.work == "pretrain" else _our_forward(task)

  def steps(count: int) -> float:
    for _ in range(count):
      out = run()
    return float(jax.block_until_ready(out).ravel()[0])

  return steps


def _our_pretraining(task: Task) -> Callable[[], Any]:
  import jax
  import jax.numpy as jnp

  from vfe.interop import videomae
  from vfe.learn import optimizer, state
  from vfe.learn.step import Update, apply, gradients
  from vfe.models.mae import MAE, DecoderConfig, masked_mse, pixel_targets
  from vfe.nn.blocks import Execution
  from vfe.tokens.tubelets import gather_tubelets

  encoder = task.encoder()
  layout = encoder.layout
  model = MAE(encoder, DecoderConfig.of(task.size), layout.channels, Execution(task.dtype))
  _, _, params = videomae.read_export(pathlib.Path(task.folder))
  params = jax.device_put(params)
  rule = {**OPTIMIZER, "base_lr": OPTIMIZER["lr"], "schedule": "constant"}
  del rule["lr"]
  made, schedule = optimizer.make_optimizer(
    rule | {"batch_reference": task.batch}, params, steps=1000, batch=task.batch
  )
  update = Update(made, schedule)
  held = [state.create({"model": params}, {"model": made})]
  batch = jax.device_put(
    {
      "video": task.clips(),
      "visible": task.visible(),
      "asked": np.nonzero(task.masked())[1].reshape(task.batch, -1).astype(np.int32),
    }
  )

  def loss(params, extra, batch):
    patches = gather_tubelets(batch["video"], layout, batch["visible"])
    predicted = model.apply({"params": params}, patches, batch["visible"], batch["asked"])
    target = pixel_targets(batch["video"], layout, batch["asked"])
    return *masked_mse(predicted, target, jnp.ones(batch["asked"].shape)), {}, extra

  def step(before, batch):
    found = gradients(loss, before.groups["model"].params, before.extra, batch)
    after, _ = apply(before, "model", found.grads, found.loss, update)
    return after, found.loss

  compiled = jax.jit(step, donate_argnums=0)

  def run():
    held[0], value = compiled(held[0], batch)
    return value

  return run


def _our_forward(task: Task) -> Callable[[], Any]:
  import jax
  import jax.numpy as jnp

  from vfe.models.vivit import Encoder
  from vfe.nn.blocks import Execution
  from vfe.tokens.selection import everything
  from vfe.tokens.tubelets import tubelets

  encoder = task.encoder()
  model = Encoder(encoder, Execution(task.dtype))
  patches, one = jnp.zeros((1, 1, encoder.layout.channels), jnp.uint8), jnp.zeros((1, 1), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), patches, one)
  video = jax.device_put(task.clips())

  @jax.jit
  def forward(params, video):
    every = everything(len(video), encoder.layout.size)
    return model.apply(params, tubelets(video, encoder.layout), every)

  return lambda: forward(params, video)


def theirs(task: Task, peer: Peer) -> Run:
  """transformers' step in PyTorch."""
  import torch
  import transformers

  transformers.utils.logging.disable_progress_bar()
  torch.set_num_threads(cores())
  torch.set_float32_matmul_precision("high")  # as JAX does on a GPU that has it
  device = "cuda" if task.device == "gpu" else "cpu"
  clips = (task.clips().astype(np.float32) / 255 - MEAN) / STD
  pixels = torch.from_numpy(np.ascontiguousarray(clips.transpose(0, 1, 4, 2, 3))).to(device)
  del clips
  half = torch.autocast(device, torch.bfloat16, enabled=task.dtype == "bfloat16")
  made = _their_pretraining if task.work == "pretrain" else _their_forward
  run = made(task, peer, device, pixels, half)

  def steps(count: int) -> float:
    for _ in range(count):
      out = run()
    return out.flatten()[0].item()  # waits for the device

  return steps


def _their_pretraining(task: Task, peer: Peer, device: str, pixels: Any, half: Any):
  import torch
  import transformers

  model = transformers.VideoMAEForPreTraining.from_pretrained(
    task.folder, attn_implementation=peer.attention, dtype=torch.float32
  )
  model = model.to(device).train()
  groups: dict[bool, list[Any]] = {True: [], False: []}
  for name, parameter in model.named_parameters():
    groups[parameter.ndim > 1 and not name.endswith("mask_token")].append(parameter)
  decay = OPTIMIZER["weight_decay"]
  optimizer = torch.optim.AdamW(
    [{"params": part, "weight_decay": decay * kind} for kind, part in groups.items()],
    lr=OPTIMIZER["lr"], betas=(OPTIMIZER["b1"], OPTIMIZER["b2"]), eps=OPTIMIZER["eps"], fused=True,
  )  # fmt: skip
  masked = torch.from_numpy(task.masked()).to(device)
  forward = torch.compile(model) if peer.compiled else model

  def run():
    optimizer.zero_grad(set_to_none=True)
    with half:
      loss = forward(pixel_values=pixels, bool_masked_pos=masked).loss
    loss.backward()
    optimizer.step()
    return loss.detach()

  return run


def _their_forward(task: Task, peer: Peer, device: str, pixels: Any, half: Any):
  import torch
  import transformers

  encoder = task.encoder()
  config = transformers.VivitConfig(
    image_size=encoder.size,
    num_frames=encoder.frames,
    tubelet_size=encoder.tubelet,
    hidden_size=encoder.width,
    num_hidden_layers=encoder.depth,
    num_attention_heads=encoder.heads,
    intermediate_size=encoder.mlp,
    attn_implementation=peer.attention,
  )
  model = transformers.VivitModel(config, add_pooling_layer=False).to(device).eval()
  forward = torch.compile(model) if peer.compiled else model

  @torch.inference_mode()
  def run():
    with half:
      return forward(pixel_values=pixels).last_hidden_state

  return run


def describe(size: str, pixels: int, folder: str) -> dict[str, str]:
  """Writes the weights that both sides begin with; returns the name and kind of the device."""
  import jax

  from vfe.interop import videomae
  from vfe.models.mae import MAE, DecoderConfig
  from vfe.nn.platform import platform as device

  encoder = Task("pretrain", size, pixels, 1, "float32", "", folder).encoder()
  decoder, target_dim = DecoderConfig.of(size), encoder.layout.channels
  patches, one = np.zeros((1, 1, target_dim), np.uint8), np.zeros((1, 1), np.int32)
  model = MAE(encoder, decoder, target_dim)
  params = jax.device_get(jax.jit(model.init)(jax.random.key(0), patches, one, one)["params"])
  about = {"encoder": dataclasses.asdict(encoder), "decoder": dataclasses.asdict(decoder)}
  about |= {"target_dim": target_dim, "target": "pixels"}
  videomae.write_export(pathlib.Path(folder), "mae", about, params)
  return {"device": device(), "kind": jax.devices()[0].device_kind}


def cores() -> int:
  """Those that this process may use: as many threads has PyTorch, and XLA by itself."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
