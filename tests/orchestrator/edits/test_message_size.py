"""What is allowed by pixels is not refused by bytes; what is too large is refused unsent."""

import asyncio
import io
from functools import cache

import grpc
import numpy as np
import pytest
from muse_client import InvalidRequest, MuseClient, inpainting
from muse_client.calls import MAX_REQUEST_BYTES, generate_request
from PIL import Image

from services.orchestrator.__main__ import Settings
from services.orchestrator.edits.limits import MAX_PIXELS
from tests.small_stages import House

SIDE = 4096


@cache
def noisy_png(mode: str) -> bytes:
    """Returns the largest picture that is allowed, as a PNG that cannot be compressed."""
    assert SIDE * SIDE == MAX_PIXELS
    channels = len(mode)
    values = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, channels), np.uint8)
    content = io.BytesIO()
    Image.fromarray(values.squeeze()).save(content, "PNG", compress_level=0)
    return content.getvalue()


def test_the_largest_picture_and_its_mask_fit_into_a_message() -> None:
    picture, mask = noisy_png("RGBA"), noisy_png("L")
    assert len(picture) > 64 * 2**20
    request = generate_request("a fox", {"inpaint": inpainting(picture, mask)}, progress=False)
    assert request.ByteSize() > 80 * 2**20
    assert Settings().max_message_mib * 2**20 == MAX_REQUEST_BYTES


async def test_the_largest_picture_is_not_refused_for_its_bytes(house: House) -> None:
    # The mask's size differs, which the orchestrator finds once the whole request has arrived.
    small = io.BytesIO()
    Image.new("L", (16, 16), 255).save(small, "PNG")
    with (
        MuseClient(house.address) as client,
        pytest.raises(InvalidRequest, match=r"^inpaint\.mask: expected the picture's 4096 x 4096"),
    ):
        await asyncio.to_thread(client.inpaint, noisy_png("RGBA"), small.getvalue(), "a fox")


def test_a_request_that_is_too_large_is_refused_before_it_is_sent() -> None:
    with (
        MuseClient("127.0.0.1:1") as client,  # where no server answers
        pytest.raises(
            InvalidRequest, match=r"^vary: .* at most 88 MiB, got 89\.0: send"
        ) as refused,
    ):
        client.vary(bytes(89 * 2**20), "a fox")
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in refused.value.violations] == ["vary"]


async def test_a_smaller_limit_of_a_server_is_no_overload(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muse_client.calls.MAX_REQUEST_BYTES", 2**30)
    with (
        MuseClient(house.address) as client,
        pytest.raises(InvalidRequest, match="larger than max") as refused,
    ):
        await asyncio.to_thread(client.vary, bytes(100 * 2**20), "a fox")
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
