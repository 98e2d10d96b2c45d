"""Numbers at random: every request is checked to its end, or refused by a field of its own."""

import io
from contextlib import suppress
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, Outpaint
from PIL import Image

from services.orchestrator.edits.mask_free import iterations_of, kept_of
from services.orchestrator.edits.sources import read_source, result_pixels
from services.orchestrator.requests import checked
from services.runtime.wire.errors import RequestError
from services.stages import DECODING
from tests.orchestrator.edits.drawn import WORD, edits


@settings(max_examples=300, deadline=None)
@given(edits(st.binary(max_size=9)), WORD, WORD, WORD)
def test_fields_at_random_are_checked_or_refused(
    edit: dict[str, Any], count: int, best_of: int, preview_every: int
) -> None:
    request = GenerateRequest(
        prompt="a fox", count=count, best_of=best_of, preview_every=preview_every, **edit
    )
    with suppress(RequestError):
        valid = checked(request, DECODING)
        assert 1 <= iterations_of(valid.mask_free_edit) <= 256
        assert all(0 <= each <= 256 for each in kept_of(valid.mask_free_edit))
        assert not (valid.best_of and valid.best_of < valid.count)
    with pytest.raises(RequestError) as refused:  # there is no picture in any of them
        result_pixels(checked(request, DECODING))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(refused.value.violations) == 1


def test_a_picture_is_read_after_its_head_was_counted() -> None:
    content = io.BytesIO()
    Image.new("RGB", (30, 20)).save(content, "PNG")
    request = GenerateRequest(
        prompt="a fox",
        count=2,
        outpaint=Outpaint(image=content.getvalue(), right_px=10),
    )
    valid = checked(request, DECODING)
    assert result_pixels(valid) == 2 * max(40 * 20, 30 * 30)
    assert read_source(valid).rgb.shape == (20, 30, 3)
