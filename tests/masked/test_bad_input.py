"""Bad input is refused by its field, and the next request works."""

from typing import Any

import grpc
import numpy as np
import pytest
from muse.common.v1 import caller_pb2, decoding_pb2

from services.presets import preset
from services.runtime.wire.errors import read_error
from services.runtime.wire.tensors import pack_embedding, pack_grid
from tests.masked.conftest import Stage

TINY = preset("tiny")
ENCODER, LOW, HIGH = "t5:1", "codebook:low", "codebook:high"
TEXT = np.random.default_rng(0).normal(size=(5, TINY.base.text_hidden)).astype(np.float32)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUNCATED = pack_embedding(TEXT, ENCODER)
TRUNCATED.values.data = TRUNCATED.values.data[:-3]
RESUMED: dict[str, Any] = {
    "tokens": pack_grid(np.zeros((4, 4), int), LOW),
    "known": bytes(16),
    "unknown": 16,
}
CONTRADICTION = decoding_pb2.DecodeState(**RESUMED, step=3)


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"sampling": decoding_pb2.Sampling(steps=0)}, "INVALID_ARGUMENT", "sampling.steps"),
        ({"sampling": decoding_pb2.Sampling(steps=10_000)}, "INVALID_ARGUMENT", "sampling.steps"),
        (
            {"resume": decoding_pb2.DecodeState(**RESUMED, step=1, total=10_000)},
            "INVALID_ARGUMENT",
            "resume.total",
        ),
        (
            {"sampling": decoding_pb2.Sampling(steps=4, min_steps=5)},
            "INVALID_ARGUMENT",
            "sampling.min_steps",
        ),
        (
            {"sampling": decoding_pb2.Sampling(guidance_scale=float("nan"))},
            "INVALID_ARGUMENT",
            "sampling.guidance_scale",
        ),
        (
            {"sampling": decoding_pb2.Sampling(temperature=-1.0)},
            "INVALID_ARGUMENT",
            "sampling.temperature",
        ),
        ({"prompt": TRUNCATED}, "INVALID_ARGUMENT", "prompt.values.data"),
        ({"prompt": pack_embedding(TEXT * np.nan, ENCODER)}, "INVALID_ARGUMENT", "prompt.values"),
        ({"prompt": pack_embedding(TEXT, "t5:other")}, "FAILED_PRECONDITION", "t5:other"),
        ({"resume": CONTRADICTION}, "INVALID_ARGUMENT", "resume"),
        ({"caller": caller_pb2.Caller(id="x" * 65)}, "INVALID_ARGUMENT", "caller.id"),
        ({"caller": caller_pb2.Caller(priority=7)}, "INVALID_ARGUMENT", "caller.priority"),
    ],
)
async def test_bad_input_is_refused_by_name_and_the_next_request_works(
    base: Stage, changes: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await base.events(base.request(**changes))
    refusal = read_error(caught.value)

    assert refusal.code.name == code
    assert named in refusal.message
    if code == "INVALID_ARGUMENT":
        assert refusal.violations[0].field == named
    assert (await base.events(base.request()))[-1].HasField("result")


async def test_low_tokens_of_another_codebook_are_refused_with_both_names(superres: Stage) -> None:
    grid = pack_grid(np.zeros((4, 4), int), HIGH)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await superres.events(superres.request(low_tokens=grid))

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert LOW in str(caught.value.details())
    assert HIGH in str(caught.value.details())
