"""Every refusal: the right status, one sentence in OpenAI's shape, and nothing else disturbed."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from tests.gateway.conftest import Gateway, Start, running_gateway
from tests.orchestrator.callers.conftest import KeyFile, guarded
from tests.small_stages import House

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
REFUSED: dict[str, tuple[Any, int, str | None, str, str]] = {
    # body, status, param, code, words of the message
    "no JSON": ("{", 400, None, "invalid_json", "no JSON"),
    "a list": ([], 400, None, "invalid_value", "body: "),
    "no prompt": ({}, 400, "prompt", "missing_required_parameter", "prompt: "),
    "an empty prompt": ({"prompt": ""}, 400, "prompt", "invalid_value", "prompt"),
    "a number for a prompt": ({"prompt": 3}, 400, "prompt", "invalid_value", "got '3'"),
    "half a character": ('{"prompt": "\\ud800"}', 400, "prompt", "invalid_value", "prompt"),
    "an unknown field": (
        {"prompt": "a fox", "stepz": 3},
        400,
        "stepz",
        "unknown_parameter",
        "stepz: ",
    ),
    "another model": (
        {"prompt": "a fox", "model": "dall-e-3"},
        404,
        "model",
        "model_not_found",
        "model: expected tiny, got dall-e-3",
    ),
    "another size": (
        {"prompt": "a fox", "size": "1024x1024"},
        400,
        "size",
        "invalid_value",
        "size: expected auto or 8x8, got 1024x1024",
    ),
    "no picture": ({"prompt": "a fox", "n": 0}, 400, "n", "invalid_value", "got '0'"),
    "too many pictures": ({"prompt": "a fox", "n": 17}, 400, "n", "invalid_value", "1 to 16"),
    "an address": (
        {"prompt": "a fox", "response_format": "url"},
        400,
        "response_format",
        "invalid_value",
        "b64_json",
    ),
    "transparency": (
        {"prompt": "a fox", "background": "transparent"},
        400,
        "background",
        "invalid_value",
        "opaque",
    ),
    "steps out of range": (
        {"prompt": "a fox", "steps": 1000},
        400,
        "base.steps",
        "invalid_value",
        "base.steps",
    ),
    "negative steps": ({"prompt": "a fox", "steps": -1}, 400, "steps", "invalid_value", "got -1"),
    "steps twice": (
        {"prompt": "a fox", "steps": 3, "base": {"steps": 3}},
        400,
        "steps",
        "invalid_value",
        "either steps or base.steps",
    ),
    "a name too long": (
        {"prompt": "a fox", "user": 65 * "a"},
        400,
        "user",
        "invalid_value",
        "at most 64 characters",
    ),
    "an unknown adapter": (
        {"prompt": "a fox", "adapters": {"cat": 1}},
        404,
        "adapters[0].name",
        "not_found",
        "cat",
    ),
    "candidates without a scorer": (
        {"prompt": "a fox", "best_of": 2},
        501,
        None,
        "not_served",
        "scorer",
    ),
}


def refusal_of(response: httpx2.Response) -> dict[str, Any]:
    """The error, which has OpenAI's shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


async def sent_raw(gateway: Gateway, header: bytes, body: bytes) -> bytes:
    """What is answered to a body that no client would send; the connection is closed then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.split(":")[-1]))
    writer.write(b"POST %s HTTP/1.1\r\nHost: muse\r\n" % GENERATIONS.encode())
    writer.write(header + b"\r\n\r\n" + body)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_is_wrong_is_refused(gateway: Gateway, name: str, stream: bool) -> None:
    body, status, param, code, words = REFUSED[name]
    if isinstance(body, dict):
        body = {**body, "stream": stream}
    content = body if isinstance(body, str) else json.dumps(body)
    response = await gateway.http.post(
        GENERATIONS, content=content, headers={"Content-Type": "application/json"}
    )

    error = refusal_of(response)
    assert response.status_code == status, error
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]
    assert (await gateway.http.post(GENERATIONS, json={"prompt": "a fox"})).status_code == 200


async def test_what_is_not_there_has_the_shape_of_an_error(gateway: Gateway) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", GENERATIONS, 405),
        ("GET", "/v1/models/dall-e-3", 404),
        ("POST", EDITS, 415),
    ):
        response = await gateway.http.request(method, path)
        assert response.status_code == status
        assert refusal_of(response)["type"] == "invalid_request_error"


async def test_a_body_too_large_is_refused_before_it_is_read(start: Start) -> None:
    async with start(max_body_mib=1) as gateway:
        declared = await gateway.http.post(GENERATIONS, content=bytes(2**20 + 1))
        assert declared.status_code == 413
        assert refusal_of(declared)["code"] == "request_too_large"
        chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"  # of a body that does not say how large it is
        answer = await sent_raw(gateway, b"Transfer-Encoding: chunked", 17 * chunk)
        assert answer.startswith(b"HTTP/1.1 413")
        assert (await gateway.http.post(GENERATIONS, json={"prompt": "a fox"})).status_code == 200


async def test_bodies_that_are_too_large_together_are_refused(house: House, start: Start) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        entered.set()
        await gate.wait()

    house.stages["base"].around = held
    pixels = np.random.default_rng(1).integers(0, 256, (480, 480, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")  # of noise, so that two have more than 1 MiB
    files = {"image": ("noise.png", content.getvalue(), "image/png")}
    async with start(max_bodies_mib=1) as gateway:
        first = asyncio.create_task(gateway.http.post(VARIATIONS, files=files))
        await entered.wait()
        second = await gateway.http.post(VARIATIONS, files=files)
        assert second.status_code == 503
        assert "larger than 1 MiB together" in refusal_of(second)["message"]
        gate.set()
        assert (await first).status_code == 200
        assert (await gateway.http.post(VARIATIONS, files=files)).status_code == 200


async def test_a_body_that_does_not_arrive_is_given_up(start: Start) -> None:
    async with start(receive_timeout_s=0.2) as gateway:
        answer = await sent_raw(gateway, b"Content-Length: 100", b"{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"expected the whole body within 0.2 s" in answer


async def test_requests_beyond_the_limit_are_refused_and_probes_are_not(
    house: House, start: Start
) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def held(_: int) -> None:
        entered.set()
        await gate.wait()

    house.stages["base"].around = held
    async with start(max_requests=1) as gateway:
        first = asyncio.create_task(gateway.http.post(GENERATIONS, json={"prompt": "a fox"}))
        await entered.wait()
        second = await gateway.http.post(GENERATIONS, json={"prompt": "a fox"})
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
        assert refusal_of(second)["code"] == "overloaded"
        assert (await gateway.http.get("/healthz")).text == "ok"
        gate.set()
        assert (await first).status_code == 200


async def test_an_orchestrator_that_is_away_is_503_and_not_ready(
    house: House, gateway: Gateway
) -> None:
    assert (await gateway.http.get("/readyz")).text == "ok"
    await house.lines["superres"].cut()

    response = await gateway.http.post(GENERATIONS, json={"prompt": "a fox"})
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "superres" in refusal_of(response)["message"]


async def test_the_official_client_raises_its_own_errors(house: House, start: Start) -> None:
    async with start(timeout_s=0.3) as gateway:
        with pytest.raises(openai.BadRequestError):
            await gateway.openai.images.generate(prompt="a fox", size="1024x1024")
        with pytest.raises(openai.NotFoundError):
            await gateway.openai.images.generate(prompt="a fox", model="dall-e-3")
        house.stages["base"].around = lambda _: asyncio.Event().wait()
        with pytest.raises(openai.InternalServerError) as caught:
            await gateway.openai.images.generate(prompt="a fox")
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


async def test_credentials_are_passed_on_and_the_orchestrator_judges_them(
    key_file: Callable[..., KeyFile],
) -> None:
    keys = key_file("gateway", "jo")
    async with (
        guarded(keys) as house,
        running_gateway(house, api_key=keys.keys["gateway"]) as gateway,
    ):

        async def status(*headers: tuple[str, bytes]) -> tuple[int, str]:
            response = await gateway.http.post(
                GENERATIONS, json={"prompt": "a fox"}, headers=list(headers)
            )
            code = "" if response.status_code == 200 else refusal_of(response)["code"]
            return response.status_code, code

        assert await status() == (401, "invalid_api_key")  # the gateway lends its own to no one
        for wrong in (b"Basic abc", b"Bearer", b"Bearer none", b"Bearer \xe9"):
            assert await status(("Authorization", wrong)) == (401, "invalid_api_key")
        assert await status(("Authorization", f"Bearer {keys.keys['jo']}".encode())) == (200, "")
