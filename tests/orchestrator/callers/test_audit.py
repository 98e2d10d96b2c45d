"""The audit log says of each call who made it, how it ended, and what it cost."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from muse.common.v1.caller_pb2 import Caller

from tests.orchestrator.callers.conftest import KeyFile, guarded
from tests.waiting import until

MakeKeys = Callable[..., KeyFile]


async def test_the_audit_log_has_a_line_of_each_call_with_its_cost(
    key_file: MakeKeys, caplog: pytest.LogCaptureFixture
) -> None:
    keys = key_file("acme")
    async with guarded(keys) as house:
        caplog.set_level("INFO", "muse.audit")
        acme = keys.of(house, "acme")
        done = (await acme.events(count=2, caller=Caller(id="alice")))[-1].done
        await house.refusal()
        await acme.refusal(prompt="")
        await until(lambda: len(lines(caplog)) == 3, 60)
    made, stranger, invalid = lines(caplog)
    assert made["caller"] == "acme"
    assert (made["credential"], made["address"]) == ("key", "127.0.0.1")
    assert (made["caller_name"], made["kind"], made["status"]) == ("alice", "generate", "OK")
    assert made["method"] == "/muse.orchestrator.v1.OrchestratorService/Generate"
    assert (made["pictures"], made["pixels"]) == (2, 2 * 8 * 8)
    assert made["request_bytes"] > 0
    assert made["duration_s"] >= done.total_s
    assert made["device_s"] == pytest.approx(sum(done.device_s.values()))
    assert (stranger["caller"], stranger["status"]) == ("", "UNAUTHENTICATED")
    assert (invalid["caller"], invalid["status"]) == ("acme", "INVALID_ARGUMENT")
    assert (invalid["pictures"], invalid["device_s"]) == (0, 0)
    for line in (made, stranger, invalid):
        json.dumps(line)


async def test_the_audit_log_tells_a_call_that_was_cancelled_from_one_that_came_too_late(
    key_file: MakeKeys, caplog: pytest.LogCaptureFixture
) -> None:
    keys, never = key_file("acme"), asyncio.Event()

    async def wait(seed: int) -> None:
        await never.wait()

    async with guarded(keys) as house:
        caplog.set_level("INFO", "muse.audit")
        base, acme = house.stages["base"], keys.of(house, "acme")
        base.around = wait
        running = asyncio.create_task(acme.events())
        await until(lambda: base.asked, 60)
        running.cancel()
        await until(lambda: len(lines(caplog)) == 1, 60)
        assert (await acme.refusal(timeout_s=2.0)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: len(lines(caplog)) == 2, 60)
    cancelled, late = lines(caplog)
    assert (cancelled["status"], late["status"]) == ("CANCELLED", "DEADLINE_EXCEEDED")
    assert cancelled["device_s"] == pytest.approx(2e-6)  # of the text encoder, which had answered


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    wanted = ("caller", "credential", "address", "caller_name", "method", "kind", "status")
    numbers = ("pictures", "pixels", "request_bytes", "duration_s", "device_s")
    records = [vars(each) for each in caplog.records if each.name == "muse.audit"]
    return [{name: each.get(name) for name in (*wanted, *numbers)} for each in records]
