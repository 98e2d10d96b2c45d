"""Spans that go to a collector over gRPC: all of them, whole, and never waited for."""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanContext, TraceFlags

from services.runtime.observability import span_attributes, span_export, tracing
from services.runtime.observability.completed_spans import NEW_TRACE, record_span
from services.runtime.observability.span_export import LinkSampler, exporting_provider
from services.runtime.observability.tracing import caller_baggage, span
from services.runtime.scheduling.batching import Batcher, BatchShape
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from tests.conftest import Collector
from tests.runtime.conftest import Countdown, FakeDevice
from tests.runtime.observability.open_spans import OpenSpans
from tests.waiting import until

CANCELS, AT_A_TIME = 1000, 20


@pytest.fixture
def exported(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[Any]]]:
    """Has everything exported to the collector; sends what waits and returns what arrived."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100000")
    collector.spans.clear()
    provider, end = exporting_provider("otlp", "muse.test")
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))

    def arrived() -> list[Any]:
        assert provider.force_flush()
        assert {service for service, _ in collector.spans} == {"muse.test"}
        return [each for _, each in collector.spans]

    yield arrived
    end()


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    device_thread = DeviceThread()
    yield device_thread
    device_thread.close()


def named(spans: list[Any], name: str) -> list[Any]:
    return sorted(
        (each for each in spans if each.name == name), key=lambda each: each.start_time_unix_nano
    )


def attributes_of(span: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


def orphans(spans: list[Any]) -> list[str]:
    known = {b"", *(each.span_id for each in spans)}
    return [each.name for each in spans if each.parent_span_id not in known]


async def test_a_dispatch_is_a_span_linked_to_its_requests_and_each_has_its_own_steps(
    exported: Any, fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    device = fake_device(slots=4)
    device.device_to_host_s = 1e-6
    batcher: InflightBatcher[Any, Any] = InflightBatcher(device, thread, max_queued=8)
    device.gate.clear()

    async def request(name: str, steps: int) -> None:
        with span(name):
            async with aclosing(batcher.events(countdown(name, steps), stream=True)) as events:
                async for _ in events:
                    pass

    tasks = [asyncio.create_task(request(name, steps)) for name, steps in (("a", 3), ("b", 5))]
    await until(lambda: batcher.load().queued + batcher.load().active == 2)
    device.gate.set()
    await asyncio.gather(*tasks)

    spans = exported()
    assert orphans(spans) == []
    batches = {each.span_id: each for each in named(spans, "batch")}
    for name, steps in (("a", 3), ("b", 5)):
        (root,) = named(spans, name)
        below = [each for each in spans if each.trace_id == root.trace_id]
        (queue,), (compute,) = named(below, "queue"), named(below, "compute")
        assert queue.parent_span_id == compute.parent_span_id == root.span_id
        assert queue.end_time_unix_nano == compute.start_time_unix_nano
        inside = [each for each in below if each.parent_span_id == compute.span_id]
        assert {each.name for each in inside} == {"prefill", "dispatch", "device-to-host"}
        taken = [
            step
            for each in named(inside, "dispatch")
            for step in range(
                attributes_of(each)["muse.first_step"], attributes_of(each)["muse.last_step"] + 1
            )
        ]
        assert taken == list(range(1, steps + 1))
        for each in named(inside, "dispatch"):
            (link,) = each.links
            batch = batches[link.span_id]
            assert root.span_id in [link.span_id for link in batch.links]
            assert batch.trace_id != root.trace_id
            assert attributes_of(batch)["muse.requests"] == len(batch.links)
            assert attributes_of(batch)["muse.bucket"] == len(
                batch.links
            )  # none at rest is computed
            assert attributes_of(batch)["muse.padding"] == 0
    assert max(len(batch.links) for batch in batches.values()) == 2


async def test_requests_of_one_batch_are_linked_to_it_and_it_says_its_padding(
    exported: Any, thread: DeviceThread
) -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda numbers: [2 * number for number in numbers],
        thread,
        max_batch_size=3,
        max_wait_s=5.0,
        max_queued=8,
        shape_of=lambda numbers: BatchShape(rows=len(numbers), bucket=8),
    )

    async def request(number: int) -> int:
        with span("request"):
            return (await batcher.submit(number)).result

    assert await asyncio.gather(*(request(number) for number in range(3))) == [0, 2, 4]

    spans = exported()
    (batch,) = named(spans, "batch")
    requests = {each.span_id for each in named(spans, "request")}
    assert {link.span_id for link in batch.links} == requests
    assert attributes_of(batch)["muse.padding"] == pytest.approx(5 / 8)
    assert [link.span_id for each in named(spans, "dispatch") for link in each.links] == [
        batch.span_id
    ] * 3
    assert orphans(spans) == []


async def test_after_1000_cancels_no_span_is_open_none_is_lost_and_none_is_an_orphan(
    exported: Any, fake_device: type[FakeDevice], countdown: type[Countdown], thread: DeviceThread
) -> None:
    counted, device = OpenSpans(), fake_device(slots=4)
    advance = device.advance

    def slowly(steps: int, *slots: Any) -> Any:  # instant steps would outrun the readers
        time.sleep(0.0005)
        return advance(steps, *slots)

    device.advance = slowly
    provider: Any = tracing.tracer
    provider.span_processor.add_span_processor(counted)
    batcher: InflightBatcher[Any, Any] = InflightBatcher(device, thread, max_queued=100)
    chance, names = random.Random(4), iter(range(CANCELS))

    async def request(name: int) -> None:
        with span("request"):
            endless = countdown(str(name), 10**6)
            async with aclosing(batcher.events(endless, stream=True)) as events:
                async for _ in events:
                    await asyncio.sleep(0)

    async def caller() -> None:
        for name in names:
            task = asyncio.create_task(request(name))
            for _ in range(chance.randrange(1, 20)):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    await batcher.drain()

    spans = exported()
    assert counted.open == set()
    assert len(spans) == counted.ended
    assert len(named(spans, "request")) == CANCELS
    assert orphans(spans) == []


def sampled(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> float:
    """Returns the share of new traces that a provider samples, among 2000."""
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    monkeypatch.delenv("OTEL_TRACES_SAMPLER_ARG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provider, end = exporting_provider("otlp", "muse.test")
    tracer = provider.get_tracer("test")
    roots = [tracer.start_span("root") for _ in range(2000)]
    below = [
        tracer.start_span("below", trace.set_span_in_context(root)).is_recording() for root in roots
    ]
    assert below == [root.is_recording() for root in roots]
    end()
    return sum(root.is_recording() for root in roots) / len(roots)


def test_a_tenth_of_new_traces_is_sampled_unless_the_standard_variables_select_a_sampler(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)

    assert sampled({}, monkeypatch) == pytest.approx(0.1, abs=0.04)
    assert sampled({"OTEL_TRACES_SAMPLER": "always_on"}, monkeypatch) == 1.0
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    assert sampled(ratio, monkeypatch) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("root", [ALWAYS_ON, ALWAYS_OFF], ids=["always on", "always off"])
def test_a_completed_span_follows_its_parent_and_without_one_the_spans_it_is_linked_to(
    root: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=LinkSampler(ParentBased(root)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    kept, dropped = (SpanContext(1, 2, False, TraceFlags(flag)) for flag in (1, 0))

    record_span("batch", 5, 7, parent=NEW_TRACE, links=[dropped])
    batch = record_span("batch", 5, 7, parent=NEW_TRACE, links=[dropped, kept])
    record_span("below", 5, 7, parent=dropped, links=[kept])
    below = record_span("below", 5, 7, parent=kept)

    assert [each.context for each in exporter.get_finished_spans()] == [batch, below]
    assert below.trace_id == kept.trace_id != batch.trace_id
    assert below.span_id != kept.span_id


def test_a_completed_span_keeps_its_times_links_and_attributes_and_never_ends_before_its_start(
    exported: Any,
) -> None:
    linked = SpanContext(1, 2, False, TraceFlags(1))
    with span("root"):
        record_span("queue", 7, 5, links=[linked], attributes={"text": "a", "whole": 1})

    (queue,), (root,) = (named(exported(), name) for name in ("queue", "root"))
    assert (queue.start_time_unix_nano, queue.end_time_unix_nano) == (7, 7)
    assert queue.parent_span_id == root.span_id
    assert [link.span_id for link in queue.links] == [(2).to_bytes(8)]
    assert attributes_of(queue) == {"text": "a", "whole": 1}


def test_nothing_is_recorded_where_nothing_is_exported() -> None:
    assert not record_span("queue", 5, 7).is_valid


def test_without_a_collector_nothing_waits_and_what_is_lost_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:  # bound and not listened to, so that no server answers there
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")
        monkeypatch.setattr(span_export, "LAST_EXPORT_S", 0.5)
        provider, end = exporting_provider("otlp", "muse.test")
        monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
        with caplog.at_level(logging.WARNING):
            longest_s = 0.0
            for _ in range(1000):
                begun_s = time.perf_counter()
                with span("request"):
                    pass
                longest_s = max(longest_s, time.perf_counter() - begun_s)
            begun_s = time.perf_counter()
            end()
            ended_s = time.perf_counter() - begun_s

    assert longest_s < 1.0  # an export takes up to ten seconds
    assert ended_s < 5.0
    logged = [each for each in caplog.messages if each == "Queue full, dropping Span."]
    assert 1 <= len(logged) <= 2  # one in 20 s, not one a span


async def test_every_span_below_names_the_caller_and_the_tenant(exported: Any) -> None:
    token = attach(baggage.set_baggage(span_attributes.TENANT, "t" * 100))
    try:
        with span("root"), caller_baggage("nightly"), span("below"):
            pass
    finally:
        detach(token)

    root, below = (
        attributes_of(each) for name in ("root", "below") for each in named(exported(), name)
    )
    assert root[span_attributes.CALLER] == below[span_attributes.CALLER] == "nightly"
    assert root[span_attributes.TENANT] == below[span_attributes.TENANT] == "t" * 64


def test_the_names_are_those_of_the_installed_conventions() -> None:
    assert span_attributes.RPC_SYSTEM_NAME == rpc_attributes.RPC_SYSTEM_NAME
    assert span_attributes.RPC_METHOD == rpc_attributes.RPC_METHOD
    assert span_attributes.RPC_STATUS == rpc_attributes.RPC_RESPONSE_STATUS_CODE
    assert span_attributes.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert span_attributes.SCHEMA_URL in {each.value for each in Schemas}
