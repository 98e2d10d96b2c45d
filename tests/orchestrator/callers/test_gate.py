"""Credentials are required of every call but health checks, and decide what a caller may do."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from muse.common.v1.caller_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Caller
from muse.orchestrator.v1.orchestrator_pb2 import GetStatusRequest
from muse_client import (
    AsyncMuseClient,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
)
from muse_client.edits import outpainting
from PIL import Image

from services.orchestrator.callers.api_keys import ApiKey, digest_of, new_key, parse_expiry
from services.runtime.wire.errors import read_error
from tests.orchestrator.callers.conftest import KeyFile, bearer, guarded
from tests.orchestrator.callers.issuing import AUDIENCE, ISSUER, jwks, served, token
from tests.small_stages import House, open_house
from tests.waiting import until

MakeKeys = Callable[..., KeyFile]
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def introspects(house: House) -> list[Callable[[], Any]]:
    """Calls of reflection and channelz."""
    channel = grpc.aio.insecure_channel(house.address)
    query = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    channelz = channelz_pb2_grpc.ChannelzStub(channel)

    async def reflect() -> None:
        async for _ in reflection.ServerReflectionInfo(iter([query]), metadata=house.metadata):
            return

    async def look() -> None:
        await channelz.GetServers(channelz_pb2.GetServersRequest(), metadata=house.metadata)

    return [reflect, look]


async def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_call_but_a_health_check_needs_a_key(key_file: MakeKeys) -> None:
    keys = key_file("acme")
    async with guarded(keys) as house:
        asked: list[Callable[[], Any]] = [
            house.events,
            lambda: house.stub.GetStatus(GetStatusRequest()),
            *introspects(house),
        ]
        assert [await code_of(each) for each in asked] == [UNAUTHENTICATED] * 4
        assert house.calls() == 0
        health = await house.health.Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING

        acme = keys.of(house, "acme")
        assert await acme.works()
        await house.stub.GetStatus(GetStatusRequest(), metadata=acme.metadata)
        passed_on = [house.stages[name].asked[-1].caller.id for name in ("base", "superres")]
        assert passed_on == ["acme", "acme"]


async def test_a_key_of_another_server_one_that_expired_and_garbage_prove_nothing(
    key_file: MakeKeys,
) -> None:
    keys, old = key_file("acme"), new_key()
    expired = ApiKey(caller="acme", digest=digest_of(old), expires=parse_expiry("2020-01-31"))
    with keys.path.open("a") as file:
        file.write(expired.line())
    wrong = {
        "the API key is unknown": bearer(new_key()),
        "the API key expired at 2020-01-31": bearer(old),
        "expected one header `authorization`, got 2": bearer(keys.keys["acme"]) * 2,
        "expected an API key, which begins with muse_": bearer(token()),
        "got another form": (("authorization", "Basic " + keys.keys["acme"]),),
        "got none": (("x-api-key", keys.keys["acme"]),),
        "expected a header of at most 4096 characters": bearer("x" * 5000),
    }
    async with guarded(keys) as house:
        for problem, metadata in wrong.items():
            refused = await replace(house, metadata=metadata).refusal()
            assert refused.code is UNAUTHENTICATED
            assert problem in refused.message
            assert not any(value in refused.message for _, value in metadata)
        huge = replace(house, metadata=bearer("x" * 10_000))
        # More than 8 KiB of headers gRPC may refuse itself.
        assert (await huge.refusal()).code in (
            UNAUTHENTICATED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        assert house.calls() == 0
        assert await keys.of(house, "acme").works()


async def test_keys_are_read_again_and_a_file_that_vanishes_changes_nothing(
    key_file: MakeKeys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.orchestrator.callers.gate.POLL_S", 0.01)
    first = key_file("acme")
    async with guarded(first) as house:
        assert await first.of(house, "acme").works()
        first.path.unlink()
        await until(lambda: "its last good content stays in force" in caplog.text, 60)
        assert await first.of(house, "acme").works()

        second = key_file("acme", "other")
        async with asyncio.timeout(60):
            while await code_of(second.of(house, "acme").events) is UNAUTHENTICATED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await first.of(house, "acme").refusal()).code is UNAUTHENTICATED
        assert await second.of(house, "other").works()


async def test_tokens_of_the_issuer_are_taken_beside_keys(key_file: MakeKeys) -> None:
    keys = key_file("acme")
    with served(jwks()) as endpoint:
        settings = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": endpoint.url}
        async with guarded(keys, **settings) as house:
            assert await keys.of(house, "acme").works()
            assert await replace(house, metadata=bearer(token(sub="robot"))).works()
            assert house.stages["base"].asked[-1].caller.id == "robot"
            refused = await replace(house, metadata=bearer(token(aud="billing"))).refusal()
    assert refused.code is UNAUTHENTICATED
    assert "it is for another audience" in refused.message


async def test_the_credential_says_who_calls_whatever_the_message_says(
    key_file: MakeKeys,
) -> None:
    keys = key_file("acme", "gateway")
    policies = "[policy.gateway]\nnames_callers = true\n[callers]\ngateway = 'gateway'\n"
    async with guarded(keys, policies) as house:
        for caller in ("acme", "gateway"):
            await keys.of(house, caller).events(caller=Caller(id="victim"))
    assert [request.caller.id for request in house.stages["base"].asked] == [
        "acme",
        "gateway/victim",
    ]


async def test_a_policy_says_who_may_call_get_status_reflection_and_channelz(
    key_file: MakeKeys,
) -> None:
    keys = key_file("plain", "closed", "operator")
    policies = """
        [policy.closed]
        status = false
        [policy.operator]
        introspection = true
        [callers]
        closed = "closed"
        operator = "operator"
    """
    denied, ok = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK
    async with guarded(keys, policies) as house:
        for caller, status, introspection in (
            ("plain", ok, denied),
            ("closed", denied, denied),
            ("operator", ok, ok),
        ):
            called = keys.of(house, caller)
            query = partial(house.stub.GetStatus, GetStatusRequest(), metadata=called.metadata)
            assert await code_of(query) is status
            assert [await code_of(each) for each in introspects(called)] == [introspection] * 2
            assert await called.works()


async def test_a_more_urgent_priority_than_the_policy_allows_is_denied_and_the_default_is_lowered(
    key_file: MakeKeys,
) -> None:
    keys = key_file("nightly")
    async with guarded(keys, "[policy.default]\nmax_priority = 'batch'\n") as house:
        nightly = keys.of(house, "nightly")
        refused = await nightly.refusal(caller=Caller(priority=PRIORITY_INTERACTIVE))
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert "name batch, or none" in refused.message
        assert house.calls() == 0
        await nightly.events()
        await nightly.events(caller=Caller(priority=PRIORITY_BATCH))
    assert [each.caller.priority for each in house.stages["base"].asked] == [PRIORITY_BATCH] * 2


QUOTAS: list[tuple[str, int, dict[str, Any]]] = [
    ("requests_per_minute", 0, {}),
    ("pictures_per_minute", 0, {}),
    ("pictures_per_minute", 3, {"count": 4}),
    ("bytes_per_minute", 100, {"prompt": "fox " * 30}),
    ("concurrent_streams", 0, {}),
    ("steps_in_flight", 15, {"count": 2}),  # 2 x (5 + 3)
]


@pytest.mark.parametrize(("quota", "limit", "request_fields"), QUOTAS)
async def test_a_quota_that_never_allows_a_request_is_named_with_its_limit(
    key_file: MakeKeys, quota: str, limit: int, request_fields: dict[str, Any]
) -> None:
    keys = key_file("acme")
    async with guarded(keys, f"[policy.default]\n{quota} = {limit}\n") as house:
        acme = keys.of(house, "acme")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await acme.events(**request_fields)
        assert house.calls() == 0
        status: Any = rpc_status.from_call(caught.value)
        refused = read_error(caught.value)
    (detail,) = status.details
    failure = QuotaFailure()
    assert detail.Unpack(failure)
    (violation,) = failure.violations
    assert (violation.quota_metric, violation.quota_value) == (quota, limit)
    assert violation.subject == "caller:acme"
    assert violation.description == status.message
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.message.startswith(f"the quota {quota} of caller 'acme' is {limit}, ")
    assert refused.message.endswith("it allows none" if limit == 0 else "ask for less")


async def test_a_quota_that_is_used_up_says_when_to_come_back_and_bad_requests_cost_nothing(
    key_file: MakeKeys,
) -> None:
    keys = key_file("acme", "other")
    policies = "[policy.default]\nrequests_per_minute = 3\npictures_per_minute = 4\n"
    async with guarded(keys, policies) as house:
        acme, other = keys.of(house, "acme"), keys.of(house, "other")
        for _ in range(10):
            assert (await acme.refusal(prompt="")).code is grpc.StatusCode.INVALID_ARGUMENT
        await acme.events(count=2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await acme.events(count=3)
        status: Any = rpc_status.from_call(caught.value)
        kinds = [detail.TypeName().rpartition(".")[2] for detail in status.details]
        assert kinds == ["QuotaFailure", "RetryInfo"]
        retry = RetryInfo()
        status.details[1].Unpack(retry)
        assert 0 < retry.retry_delay.ToNanoseconds() / 1e9 <= 15.1  # one picture of 4 a minute
        await acme.events(count=1)
        await acme.events(count=1)
        exceeded = await acme.refusal()
        assert exceeded.quota is not None
        assert exceeded.quota.quota == "requests_per_minute"
        assert await other.works()


async def test_a_request_that_a_stage_refuses_costs_nothing_and_one_that_was_served_does(
    key_file: MakeKeys,
) -> None:
    keys = key_file("acme")
    async with guarded(keys, "[policy.default]\npictures_per_minute = 2\n") as house:
        acme = keys.of(house, "acme")
        for _ in range(5):
            assert (await acme.refusal(prompt="fox " * 33)).quota is None  # too many tokens
        await acme.events(count=2)
        assert (await acme.refusal()).quota is not None


async def test_steps_of_every_window_and_result_count(key_file: MakeKeys) -> None:
    keys = key_file("acme")
    edit = outpainting(Image.new("RGB", (32, 32)), right_px=32)  # two windows
    async with guarded(keys, "[policy.default]\nsteps_in_flight = 15\n") as house:
        refused = await keys.of(house, "acme").refusal(outpaint=edit)
    assert "steps_in_flight of caller 'acme' is 15, and this call needs 16" in refused.message


async def test_open_calls_of_a_caller_are_counted_until_they_end(key_file: MakeKeys) -> None:
    keys, release = key_file("acme"), asyncio.Event()

    async def wait(seed: int) -> None:
        await release.wait()

    async with guarded(keys, "[policy.default]\nconcurrent_streams = 2\n") as house:
        house.stages["base"].around = wait
        acme = keys.of(house, "acme")
        running = [asyncio.create_task(acme.works()) for _ in range(2)]
        await until(lambda: len(house.stages["base"].asked) == 2, 60)
        refused = await acme.refusal()
        assert refused.quota is not None
        assert refused.retry_after_s == 1.0
        release.set()
        assert await asyncio.gather(*running) == [True, True]
        assert await acme.works()


async def test_the_sdk_presents_a_key_and_names_each_refusal(
    key_file: MakeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = key_file("acme")
    policies = "[policy.default]\nrequests_per_minute = 1\nstatus = false\n"
    async with guarded(keys, policies) as house:
        async with AsyncMuseClient(house.address) as stranger:
            with pytest.raises(Unauthenticated, match="got none"):
                await stranger.generate("a fox")
        async with AsyncMuseClient(house.address, api_key=keys.keys["acme"]) as client:
            assert keys.keys["acme"] not in repr(client)
            with pytest.raises(PermissionDenied, match="does not allow GetStatus"):
                await client.status()
            assert len(await client.generate("a fox")) == 1
        monkeypatch.setenv("MUSE_API_KEY", keys.keys["acme"])
        async with AsyncMuseClient(house.address) as client:
            with pytest.raises(QuotaExceeded, match="requests_per_minute") as caught:
                await client.generate("a fox")
    assert caught.value.retry_after_s == pytest.approx(60, abs=30)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"api_keys_file": Path("none.jsonl")}, "none.jsonl cannot be read"),
        ({"policies_file": Path("none.toml")}, "none.toml cannot be read"),
        (
            {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": "none.json"},
            "none.json cannot be read",
        ),
        ({"jwt_issuer": ISSUER}, "jwt_audience: expected a value beside the other jwt_ settings"),
        ({"jwt_algorithms": ("HS256",)}, "jwt_algorithms: expected some of RS256"),
        ({"jwt_algorithms": ()}, "jwt_algorithms: expected at least one"),
        ({"jwt_algorithms": ("none",)}, "jwt_algorithms: expected some of RS256"),
        ({"jwt_leeway_s": 3600.0}, "jwt_leeway_s: expected 0 to 60"),
        ({"jwt_caller_claim": ""}, "jwt_caller_claim: expected the name of a claim"),
    ],
)
async def test_settings_that_cannot_be_obeyed_end_the_start(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Exception, match=problem):
        async with open_house(**settings):
            pass


async def test_a_key_whose_policy_is_not_there_ends_the_start(key_file: MakeKeys) -> None:
    keys = key_file("acme")
    entry = ApiKey(caller="acme", digest=digest_of("muse_other"), policy="gold")
    keys.path.write_text(entry.line())
    with pytest.raises(Exception, match=r"keys have the policies \['gold'\]"):
        async with guarded(keys):
            pass
