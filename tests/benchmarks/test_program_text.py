"""What the text of a program compiled for a TPU says: copies, float32 products, loops, bytes."""

# ruff: noqa: E501 -- the compiler's lines are as long as they are

from benchmarks.tpu_programs.findings import Copy, findings_of
from benchmarks.tpu_programs.program_text import ProgramText
from benchmarks.tpu_programs.traffic import bytes_moved

MIB = 2**20

# A loop over 12 layers of a stack that the program has copied in another order of bytes, and one
# over rows to look up; a product in float32, one in bfloat16.
PROGRAM = r"""HloModule jit_step, is_scheduled=true

%slice_of_stack (param_0: bf16[12,512,1024], param_1: s32[]) -> bf16[1,512,1024] {
  %param_0 = bf16[12,512,1024]{1,2,0:T(8,128)(2,1)} parameter(0)
  %bitcast.1 = bf16[12,512,1024]{1,2,0:T(8,128)(2,1)} bitcast(%param_0)
  %param_1 = s32[] parameter(1)
  ROOT %layer = bf16[1,512,1024]{1,2,0:T(8,128)(2,1)S(1)} dynamic-slice(%bitcast.1, %param_1)
}

%turned (param_0.1: bf16[1,512,1024]) -> bf16[1,1024,512] {
  %param_0.1 = bf16[1,512,1024]{1,2,0} parameter(0)
  ROOT %transpose.1 = bf16[1,1024,512]{2,1,0} transpose(%param_0.1), dimensions={0,2,1}
}

%body (carry: (s32[], bf16[12,512,1024], f32[8,512])) -> (s32[], bf16[12,512,1024], f32[8,512]) {
  %carry = (s32[], bf16[12,512,1024]{1,2,0}, f32[8,512]{1,0:S(1)}) parameter(0)
  %index = s32[] get-tuple-element(%carry), index=0
  %stack = bf16[12,512,1024]{1,2,0} get-tuple-element(%carry), index=1
  %tokens = f32[8,512]{1,0:S(1)} get-tuple-element(%carry), index=2
  %read = bf16[1,512,1024]{1,2,0:S(1)} fusion(%stack, %index), kind=kLoop, calls=%slice_of_stack
  %turned.2 = bf16[1,1024,512]{2,1,0} fusion(%read), kind=kLoop, calls=%turned
  %narrow = bf16[8,512]{1,0:S(1)} convert(%tokens)
  %product.1 = f32[8,1024]{1,0:S(1)} convolution(%narrow, %read), dim_labels=bf_io->bf
  %product.2 = f32[8,512]{1,0:S(1)} convolution(%tokens, %tokens), dim_labels=bf_io->bf, operand_precision={highest,highest}
  ROOT %next = (s32[], bf16[12,512,1024]{1,2,0}, f32[8,512]{1,0:S(1)}) tuple(%index, %stack, %product.2)
}

%condition (carry.1: (s32[], bf16[12,512,1024], f32[8,512])) -> pred[] {
  %carry.1 = (s32[], bf16[12,512,1024]{1,2,0}, f32[8,512]{1,0:S(1)}) parameter(0)
  %layers = s32[] constant(12)
  %index.1 = s32[] get-tuple-element(%carry.1), index=0
  ROOT %less = pred[] compare(%index.1, %layers), direction=LT
}

ENTRY %main (weights: bf16[12,512,1024], tokens.1: f32[8,512], table: f32[1024,1024]) -> f32[8,512] {
  %weights = bf16[12,512,1024]{2,1,0} parameter(0), metadata={op_name="weights[\'kernel\']"}
  %tokens.1 = f32[8,512]{1,0} parameter(1), metadata={op_name="tokens"}
  %table = f32[1024,1024]{1,0} parameter(2), metadata={op_name="table"}
  %zero = s32[] constant(0)
  %copy.1 = bf16[12,512,1024]{1,2,0} copy(%weights)
  %doubled = f32[1024,1024]{1,0} add(%table, %table)
  %copy.2 = f32[1024,1024]{0,1} copy(%doubled)
  %fetched = (f32[8,512]{1,0:S(1)}, f32[8,512]{1,0}, u32[]) copy-start(%tokens.1)
  %there = f32[8,512]{1,0:S(1)} copy-done(%fetched)
  %start = (s32[], bf16[12,512,1024]{1,2,0}, f32[8,512]{1,0:S(1)}) tuple(%zero, %copy.1, %there)
  %loop = (s32[], bf16[12,512,1024]{1,2,0}, f32[8,512]{1,0:S(1)}) while(%start), condition=%condition, body=%body
  %looked = f32[8,512]{1,0} while(%there), condition=%condition.2, body=%body.2, metadata={op_name="jit(step)/gather"}
  %sent = () send(%there), channel_id=1
  %called = f32[8]{0} custom-call(%there), custom_call_target="xla_python_callback"
  %bounded = s32[8]{0} custom-call(%zero), custom_call_target="AssumeGatherIndicesInBound"
  ROOT %result = f32[8,512]{1,0} get-tuple-element(%loop), index=2
}
"""


def test_copies_of_arguments_are_named_and_those_of_results_are_not() -> None:
    whole, layer = findings_of(ProgramText(PROGRAM)).copies

    assert whole == Copy(argument="weights['kernel']", bytes=12 * MIB, runs=1, in_loop=False)
    assert layer == Copy(argument="weights['kernel']", bytes=MIB, runs=12, in_loop=True)


def test_float32_factors_loops_of_gathers_and_calls_of_the_host_are_found() -> None:
    findings = findings_of(ProgramText(PROGRAM))

    assert findings.float32_products == 1
    assert findings.loops == ("jit(step)/gather",)
    assert findings.host_calls == ("sent", "called")


def test_a_slice_is_read_as_often_as_its_loop_runs_and_on_chip_memory_is_free() -> None:
    copied = 2 * 12 * MIB  # the stack, read and written
    layers = 12 * (MIB + MIB)  # a layer read into the chip, and written again in another order
    doubled = (4 + 4 + 4) * MIB + (4 + 4) * MIB  # the table twice and its sum; the sum's copy
    tokens = 8 * 512 * 4

    moved = bytes_moved(ProgramText(PROGRAM))

    scalars = moved - (copied + layers + doubled + tokens)
    assert 0 <= scalars < 1000
