"""What a call asks of a replica."""

from typing import Any

import pytest
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import MaskFreeEdit
from muse.common.v1.decoding_pb2 import PROGRESS_DETAIL_STEPS, DecodeState, Sampling
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest
from muse.tokenizer.v1.tokenizer_pb2 import DecodeRequest

from services.orchestrator.replicas.work import latency_key, work_before_response, work_of

GUIDED, PLAIN = Sampling(steps=24, guidance_scale=4), Sampling(steps=24, guidance_scale=0)


@pytest.mark.parametrize(
    ("request_", "work"),
    [
        (BaseRequest(sampling=GUIDED), 48),
        (BaseRequest(sampling=PLAIN), 24),
        (SuperresRequest(sampling=Sampling(steps=8, guidance_scale_start=1)), 16),
        (BaseRequest(sampling=PLAIN, resume=DecodeState(step=20)), 4),
        (BaseRequest(sampling=PLAIN, resume=DecodeState(step=9, total=10)), 1),
        (BaseRequest(sampling=PLAIN, resume=DecodeState(step=24)), 1),
        (BaseRequest(), 1),
        (EncodeRequest(texts=["a", "b"]), 1),
    ],
)
def test_it_is_steps_that_are_left_times_rows(request_: Any, work: int) -> None:
    assert work_of(request_) == work


def test_a_mask_free_edit_takes_all_its_iterations() -> None:
    edit = BaseRequest(sampling=PLAIN, resume=DecodeState(total=3), mask_free_edit=MaskFreeEdit())

    assert work_of(edit) == 24


def test_calls_of_one_kind_have_work_that_can_be_compared() -> None:
    streamed = BaseRequest(sampling=Sampling(steps=1), progress=PROGRESS_DETAIL_STEPS)
    tokens = TokenGrid(codebook="codebook:low")
    assert latency_key(DecodeRequest(tokens=tokens)) == "codebook:low"
    assert latency_key(BaseRequest(sampling=Sampling(steps=1))) != latency_key(streamed)
    guided = BaseRequest(sampling=Sampling(steps=12, guidance_scale=4))
    assert work_before_response(guided) == 24
    guided.progress = PROGRESS_DETAIL_STEPS
    assert work_before_response(guided) == 1
    assert work_before_response(EncodeRequest(texts=["a", "b"])) == 2
