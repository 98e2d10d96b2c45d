"""How a request ended: its caller, its span, its metrics and its log name the same status."""

import asyncio
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from services.runtime.observability import span_attributes
from services.runtime.observability.metrics import configure_metrics
from services.runtime.wire.errors import resource_exhausted
from tests.small_stages import House
from tests.waiting import until

ROOT = "muse.orchestrator.v1.OrchestratorService/Generate"
SERIES = re.compile(r"muse_request_duration_seconds_count\{(.*)\} (\S+)")
FOX = GenerateRequest(prompt="a fox")


@pytest.fixture
def traced(spans: InMemorySpanExporter, house: House) -> House:
    """A house that records spans."""
    return house


@pytest.fixture
def counted() -> Iterator[Callable[[], dict[str, int]]]:
    """Returns the number of requests by outcome, as Prometheus scrapes it."""
    port, end = configure_metrics("orchestrator", port=0)

    def scrape() -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            found = SERIES.findall(answer.read().decode())
        labels = [dict(re.findall(r'(\w+)="(\w*)"', each)) for each, _ in found]
        counts = [int(float(count)) for _, count in found]
        return {
            each["outcome"]: count
            for each, count in zip(labels, counts, strict=True)
            if each["kind"] == "generate" and count
        }

    yield scrape
    end()


async def _fail(seed: int) -> None:
    raise RuntimeError("a stage fails")


async def _refuse(seed: int) -> None:
    raise resource_exhausted("64 requests wait", retry_after_s=1)


@pytest.mark.parametrize("ending", ["ok", "cancelled", "late", "invalid", "refused", "failed"])
async def test_caller_span_metrics_and_log_agree(
    traced: House,
    spans: InMemorySpanExporter,
    counted: Callable[[], dict[str, int]],
    caplog: pytest.LogCaptureFixture,
    ending: str,
) -> None:
    base, entered, gate = traced.stages["base"], asyncio.Event(), asyncio.Event()

    async def wait(seed: int) -> None:
        entered.set()
        await gate.wait()

    base.around = {"cancelled": wait, "late": wait, "refused": _refuse, "failed": _fail}.get(ending)
    request = GenerateRequest() if ending == "invalid" else FOX
    with caplog.at_level(logging.INFO):
        call: Any = traced.stub.Generate(request, timeout=0.4 if ending == "late" else 20)
        reading = asyncio.ensure_future(_read(call))
        if ending == "cancelled":
            await asyncio.wait_for(entered.wait(), 10)
            call.cancel()
        await reading
        code = await call.code()
        await until(lambda: any(each.name == ROOT for each in spans.get_finished_spans()))
        await until(lambda: _outcomes(caplog) != [])

    assert (
        code
        is {
            "ok": grpc.StatusCode.OK,
            "cancelled": grpc.StatusCode.CANCELLED,
            "late": grpc.StatusCode.DEADLINE_EXCEEDED,
            "invalid": grpc.StatusCode.INVALID_ARGUMENT,
            "refused": grpc.StatusCode.RESOURCE_EXHAUSTED,
            "failed": grpc.StatusCode.INTERNAL,
        }[ending]
    )
    (root,) = (
        each
        for each in spans.get_finished_spans()
        if each.name == ROOT and each.kind is SpanKind.SERVER
    )
    assert root.attributes is not None
    assert root.attributes[span_attributes.RPC_STATUS] == code.name
    assert root.attributes.get(span_attributes.ERROR_TYPE) == (
        None if ending == "ok" else code.name
    )
    assert (root.status.status_code is StatusCode.ERROR) == (ending != "ok")
    assert _outcomes(caplog) == [code.name]
    assert await asyncio.to_thread(counted) == {code.name: 1}


async def _read(call: Any) -> None:
    try:
        async for _ in call:
            pass
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        return


def _outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        str(getattr(each, "outcome", ""))
        for each in caplog.records
        if each.message == "a request has ended"
    ]


async def test_a_wall_clock_that_jumps_changes_neither_a_request_nor_its_ending(
    traced: House,
    spans: InMemorySpanExporter,
    counted: Callable[[], dict[str, int]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, gate, now = asyncio.Event(), asyncio.Event(), time.time

    async def jump(seed: int) -> None:
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        entered.set()
        await gate.wait()

    traced.stages["base"].around = jump
    with caplog.at_level(logging.INFO):
        finished: Any = traced.stub.Generate(FOX, timeout=20)
        reading = asyncio.ensure_future(_read(finished))
        await asyncio.wait_for(entered.wait(), 10)
        gate.set()
        await reading
        assert await finished.code() is grpc.StatusCode.OK

        for each in (entered, gate):
            each.clear()
        monkeypatch.setattr(time, "time", now)
        call: Any = traced.stub.Generate(FOX, timeout=20)
        reading = asyncio.ensure_future(_read(call))
        await asyncio.wait_for(entered.wait(), 10)
        call.cancel()
        await reading
        await until(lambda: len(_outcomes(caplog)) == 2)
    assert _outcomes(caplog) == ["OK", "CANCELLED"]
    assert await asyncio.to_thread(counted) == {"OK": 1, "CANCELLED": 1}
