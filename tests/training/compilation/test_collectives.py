"""Collectives are read from the text of a compiled program."""

import pytest

from training.compilation.collectives import Collectives, collectives_of

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter.1 (input: f32[64,8]) -> f32[16,8] {
  %all-reduce.4 = f32[64,8]{1,0} all-reduce(%input), channel_id=6, to_apply=%add
  ROOT %slice = f32[16,8]{1,0} dynamic-slice(%all-reduce.4, %zero)
}

%fused_start (p: bf16[1,8]) -> (bf16[1,8], bf16[4,8]) {
  ROOT %all-gather.1 = (bf16[1,8]{1,0}, bf16[4,8]{1,0}) all-gather-start(%p), channel_id=8
}

%async_collective_fusion.2 (p: bf16[1,8]) -> bf16[4,8] {
  ROOT %all-gather.2 = bf16[4,8]{1,0} all-gather(%p), channel_id=8, dimensions={0}
}

%body (c: (s32[], f32[64,8])) -> (s32[], f32[64,8]) {
  %start = (bf16[1,8]{1,0}, bf16[4,8]{1,0}) fusion(%p), kind=kCustom, calls=%fused_start
  %middle = bf16[4,8]{1,0} fusion(%p), kind=kCustom, calls=%async_collective_fusion.2
  %scattered = f32[16,8]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (c: (s32[], f32[64,8])) -> pred[] {
  %layers = s32[] constant(12)
  ROOT %less = pred[] compare(%i, %layers), direction=LT
}

%never (p: f32[2]) -> f32[2] {
  ROOT %unused = f32[2]{0} all-reduce(%p), channel_id=99, to_apply=%add
}

ENTRY %main (p: f32[64,8]) -> f32[64,8] {
  %loop = (s32[], f32[64,8]) while(%start), condition=%condition, body=%body
  %once = pred[128]{0} all-gather(%flags), channel_id=1, dimensions={0}
}
"""


def test_collectives_of_a_loop_count_as_often_as_it_runs() -> None:
    scattered, gathered = collectives_of(PROGRAM)

    assert scattered == Collectives(
        kind="reduce-scatter", count=12, bytes=12 * 64 * 8 * 4, exposed_bytes=12 * 64 * 8 * 4
    )
    assert gathered == Collectives(
        kind="all-gather", count=13, bytes=12 * 4 * 8 * 2 + 128, exposed_bytes=128
    )


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the text of a compiled program"):
        collectives_of("HloModule nothing")
