"""Collectives are read from a program's text: by kind, with their bytes, as often as they run."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from vfe.learn.sharding import make_mesh
from vfe.train.hlo import Collective, Traffic, traffic

# As the TPU's compiler writes them, shortened.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%started (p: bf16[4,8]) -> bf16[8,8] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={0}
}

%async_collective_fusion.3 (q: bf16[4,8]) -> bf16[8,8] {
  %q = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,8]{1,0} all-gather(%q), channel_id=7, dimensions={0}
}

%all-reduce-scatter.4 (r: f32[16]) -> f32[4] {
  %r = f32[16]{0:T(128)} parameter(0)
  %all-reduce.5 = f32[16]{0:T(128)} all-reduce(%r), channel_id=1, to_apply=%add
  ROOT %slice = f32[4]{0} dynamic-slice(%all-reduce.5), dynamic_slice_sizes={4}
}

%body (s: (s32[], bf16[4,8], f32[16])) -> (s32[], bf16[4,8], f32[16]) {
  %s = (s32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)}, /*index=2*/f32[16]{0:T(128)}) parameter(0)
  %w = bf16[4,8]{1,0} get-tuple-element(%s), index=1, frontend_attributes={kernel_metadata={
"block": 640
}}, metadata={op_name="kernel"}
  %g = f32[16]{0} get-tuple-element(%s), index=2
  %async-collective-start = (bf16[4,8], bf16[8,8]) fusion(%w), kind=kCustom, calls=%started
  %fusion.2 = bf16[8,8]{1,0} fusion(%w), kind=kOutput, calls=%async_collective_fusion.3
  %async-collective-done = bf16[8,8]{1,0} fusion(%w), kind=kCustom, calls=%started
  %fusion.3 = f32[4]{0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.4
  ROOT %out = (s32[], bf16[4,8], f32[16]) tuple(%s, %w, %g)
}

%below (t: (s32[], bf16[4,8], f32[16])) -> pred[] {
  %t = (s32[], bf16[4,8]{1,0}, f32[16]{0}) parameter(0)
  %twelve = s32[]{:T(128)} constant(12)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %twelve), direction=LT
}

ENTRY %main (x: f32[4], u: (s32[], bf16[4,8], f32[16])) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %u = (s32[], bf16[4,8]{1,0}, f32[16]{0}) parameter(1)
  %permute = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=3
  %permuted = f32[4]{0} collective-permute-done(%permute)
  %loop = (s32[], bf16[4,8], f32[16]) while(%u), condition=%below, body=%bodyKNOWN
  ROOT %all = f32[4]{0} all-reduce(%permuted), channel_id=4, to_apply=%add
}
"""
FOUND = [
  Collective("all-reduce", 1, 16),
  Collective("all-gather", 12, 12 * 8 * 8 * 2),
  Collective("reduce-scatter", 12, 12 * 16 * 4),
  Collective("collective-permute", 1, 16 + 8),  # with the two words of its own
]


def test_a_loop_counts_as_often_as_its_condition_says():
  assert traffic(PROGRAM.replace("KNOWN", "")) == Traffic(FOUND, exact=True)


def test_the_length_that_is_written_beside_a_loop_is_believed():
  written = ', backend_config={"known_trip_count":{"n":"3"}}'
  found = traffic(PROGRAM.replace("KNOWN", written)).collectives
  assert [one.count for one in found] == [1, 3, 3, 1]


def test_a_loop_of_unknown_length_counts_once_and_is_told():
  found = traffic(PROGRAM.replace("KNOWN", "").replace("constant(12)", "parameter(1)"))
  assert [one.count for one in found.collectives] == [1, 1, 1, 1] and not found.exact


def test_a_real_program_reduces_its_gradient_once_a_layer():
  mesh = make_mesh({"data": 8})
  spread = NamedSharding(mesh, PartitionSpec("data"))
  rows = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=spread)
  weights = jax.ShapeDtypeStruct((5, 32, 32), jnp.float32)

  def total(weights, x):
    out = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]
    return jnp.sum(out)

  text = jax.jit(jax.grad(total)).lower(weights, rows).compile().as_text()
  found = traffic(text)
  assert found.exact
  assert sum(one.bytes for one in found.collectives if one.kind == "all-reduce") == 5 * 32 * 32 * 4
