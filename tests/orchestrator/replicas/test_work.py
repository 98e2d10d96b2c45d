"""What a call asks of a replica."""

from typing import Any

import pytest
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.base.v1.base_pb2 import Resampling
from muse.common.v1.decoding_pb2 import DecodeState, Sampling
from muse.superres.v1.superres_pb2 import GenerateRequest as SuperresRequest
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest

from services.orchestrator.replicas.work import work_of

GUIDED, PLAIN = Sampling(steps=24, guidance=4), Sampling(steps=24, guidance=0)


@pytest.mark.parametrize(
    ("request_", "work"),
    [
        (BaseRequest(sampling=GUIDED), 48),
        (BaseRequest(sampling=PLAIN), 24),
        (SuperresRequest(sampling=Sampling(steps=8, first_guidance=1)), 16),
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
    edit = BaseRequest(sampling=PLAIN, resume=DecodeState(total=3), resample=Resampling())

    assert work_of(edit) == 24
