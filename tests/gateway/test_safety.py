"""The safety policy of the orchestrator, as callers of the gateway see it."""

import base64

import openai
import pytest

from tests.gateway.conftest import running_gateway
from tests.orchestrator.test_safety import EXPLICIT, guarded
from tests.picture_files import file_of, noise, packet_of

GENERATE = "/v1/muse/generate"


async def test_a_blocked_picture_is_a_warning_and_none_left_is_403(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with guarded(monkeypatch, "tag") as house, running_gateway(house) as gateway:
        body = {"prompt": "a fox", "seed": 7, "count": 2, "safety_policy": "block"}
        answer = (await gateway.http.post(GENERATE, json=body)).json()
        assert [(each["seed"], each["safety_score"]) for each in answer["images"]] == [(7, 0.1)]
        assert [each["reason"] for each in answer["warnings"]] == ["PICTURE_BLOCKED"]

        refused = await gateway.http.post(GENERATE, json={**body, "seed": EXPLICIT, "count": 1})
        assert refused.status_code == 403
        assert "every picture was blocked" in refused.json()["error"]["message"]


async def test_a_blurred_picture_says_so_in_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "blur") as house, running_gateway(house) as gateway:
        for output_format in ("png", "jpeg", "webp"):
            body = {"prompt": "a fox", "seed": EXPLICIT, "output_format": output_format}
            (image,) = (await gateway.http.post(GENERATE, json=body)).json()["images"]
            assert image["blurred"]
            packet = packet_of(base64.b64decode(image["image"]))
            assert 'muse:safety_action="blurred"' in packet


async def test_openais_client_hears_that_every_picture_was_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with guarded(monkeypatch, "block") as house, running_gateway(house) as gateway:
        with pytest.raises(openai.PermissionDeniedError, match="every picture was blocked"):
            await gateway.openai.images.generate(prompt="a fox", extra_body={"seed": EXPLICIT})


async def test_openais_client_asks_for_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "tag") as house, running_gateway(house) as gateway:
        muse = {"seed": 7, "safety_policy": "block"}
        answer = await gateway.openai.images.generate(prompt="a fox", n=2, extra_body=muse)
        assert answer.data is not None
        assert [each.model_extra["seed"] for each in answer.data if each.model_extra] == [7]
        assert answer.model_extra is not None
        (warning,) = answer.model_extra["warnings"]
        assert warning.startswith("picture 1 (seed 8) was not sent")
        with pytest.raises(openai.BadRequestError, match="safety_policy"):
            await gateway.openai.images.edit(
                image=file_of(noise()), prompt="a fox", extra_body={"safety_policy": "off"}
            )
        with pytest.raises(openai.PermissionDeniedError, match="every picture was blocked"):
            await gateway.openai.images.generate(
                prompt="a fox", extra_body={**muse, "seed": EXPLICIT}
            )


async def test_a_laxer_policy_than_the_servers_is_400(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded(monkeypatch, "block") as house, running_gateway(house) as gateway:
        body = {"prompt": "a fox", "safety_policy": "blur"}
        refused = await gateway.http.post(GENERATE, json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "safety_policy")
    assert "since this server has block" in error["message"]
