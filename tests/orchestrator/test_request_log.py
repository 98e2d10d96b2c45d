"""Where the time of a request went: response, log and trace say the same, and it adds up."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from muse.common.v1.caller_pb2 import Caller
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageTiming
from muse.orchestrator.v1.orchestrator_pb2 import GeneratedImage, MaskFreeEdit
from muse_client.edits import inpainting
from muse_client.picture_files import file_bytes
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from PIL import Image

from services.orchestrator.timeline import Call, Timeline
from services.runtime.observability import span_attributes, tracing
from services.runtime.observability.span_attributes import muse
from services.runtime.wire.errors import failed_precondition
from services.stages import STAGES
from tests.small_stages import House
from tests.waiting import until

REQUESTS, CANCELS, AT_A_TIME = 500, 200, 16
WITHIN = 0.01
ROOT = "muse.orchestrator.v1.OrchestratorService/Generate"
PARTS = ("queue_s", "compute_s", "transfer_s")


class Open(SpanProcessor):
    """Keeps the spans that were begun and not ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.spans: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.begun += 1
        self.spans[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self.spans[span.context.span_id]


@pytest.fixture
def traced(spans: InMemorySpanExporter, house: House) -> Any:
    """A house that records spans."""
    return house


def busy(stage: str, chance: random.Random, most_s: float) -> Callable[[int], Any]:
    """Returns what takes a random time in a queue and on a device, and measures both."""

    async def around(seed: int) -> StageTiming:
        times = [time.monotonic()]
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.0, most_s))
            times.append(time.monotonic())
        queue_s, compute_s = np.diff(times)
        return StageTiming(
            stage=stage, queue_s=queue_s, compute_s=compute_s, device_s=compute_s / 2
        )

    return around


def made_busy(house: House, most_s: float) -> None:
    chance = random.Random(5)
    for name, behaviour in house.stages.items():
        behaviour.around = busy(name, chance, most_s)


def parts_s(image: GeneratedImage) -> float:
    return image.overhead_s + sum(getattr(row, part) for row in image.timings for part in PARTS)


def random_request(chance: random.Random) -> dict[str, Any]:
    """Any request for one picture."""
    image = np.random.default_rng(chance.randrange(99)).integers(0, 256, (32, 32, 3), np.uint8)
    picture = Image.fromarray(image)
    kind: dict[str, Any] = chance.choice(
        [
            {},
            {"negative_prompt": "rain"},
            {"preview_every": 2},
            {"inpaint": inpainting(picture, Image.new("L", (32, 32), 255))},
            {"mask_free_edit": MaskFreeEdit(image=file_bytes(picture), iterations=3)},
        ]
    )
    if "mask_free_edit" not in kind:
        kind = {**kind, "base": Sampling(steps=chance.randrange(1, 6))}
    return {"progress": chance.random() < 0.5, "seed": chance.randrange(250), **kind}


async def test_the_parts_of_500_random_requests_add_up_to_their_wall_time(house: House) -> None:
    made_busy(house, 0.004)
    chance = random.Random(3)
    requests = iter([random_request(chance) for _ in range(REQUESTS)])
    ratios = []

    async def caller() -> None:
        for request in requests:
            *_, image, done = await house.events(**request)
            picture = image.image
            assert min(getattr(row, part) for row in picture.timings for part in PARTS) >= 0
            assert 0 < picture.overhead_s < picture.wall_s <= done.done.total_s
            ratios.append(parts_s(picture) / picture.wall_s)

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))

    assert len(ratios) == REQUESTS
    assert max(abs(1 - ratio) for ratio in ratios) < WITHIN


async def test_the_callers_own_clock_says_the_same_of_requests_that_take_a_while(
    house: House,
) -> None:
    made_busy(house, 2.0)
    assert await house.works()  # so that everything is connected

    async def ratio(seed: int) -> float:
        begun_s = time.monotonic()
        *_, image, _ = await house.events(seed=seed)
        return parts_s(image.image) / (time.monotonic() - begun_s)

    ratios = await asyncio.gather(*(ratio(seed) for seed in range(5)))
    assert max(ratios) > 1 - WITHIN  # of the one that was disturbed least on its way
    assert max(ratios) <= 1 + 1e-6


def test_of_calls_made_at_once_only_the_last_to_end_counts_and_the_device_worked_for_all() -> None:
    def call(begun_s: float, ended_s: float) -> Call:
        seconds = ended_s - begun_s
        timing = StageTiming(stage="tokenizer", compute_s=seconds, device_s=seconds)
        return Call(timing=timing, begun_s=begun_s, ended_s=ended_s)

    timeline = Timeline(arrived_s=10.0)
    timeline.add([call(11.0, 14.0), call(11.0, 12.0)])
    branch = timeline.fork()
    timeline.add([call(15.0, 16.0)])

    (total,) = timeline.timings()
    assert (total.compute_s, total.device_s) == (4.0, 5.0)
    assert timeline.overhead_s(18.0) == 1.0 + 1.0 + 2.0
    assert branch.overhead_s(18.0) == 1.0 + 4.0


async def test_what_pictures_have_in_common_counts_once_in_the_device_seconds_of_a_request(
    house: House,
) -> None:
    *_, done = events = await house.events(count=3)

    each = [sum(row.device_s for row in event.image.timings) for event in events[-4:-1]]
    assert each == pytest.approx([4 * 2e-6] * 3)
    assert dict(done.done.device_s) == pytest.approx(
        {"text_encoder": 2e-6, "base": 6e-6, "superres": 6e-6, "tokenizer": 6e-6}
    )


async def test_log_and_trace_say_what_the_response_says(
    traced: Any, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    made_busy(traced, 0.02)
    spans.clear()
    with caplog.at_level(logging.INFO, "services.orchestrator"):
        *_, image, done = await traced.events(caller=Caller(id="nightly"))
    picture = image.image

    (logged,) = [record.__dict__ for record in caplog.records if record.msg == "a picture is done"]
    (ended,) = [record.__dict__ for record in caplog.records if record.msg == "a request has ended"]
    assert logged["wall_s"] == picture.wall_s
    assert sum(logged[part] for part in (*PARTS, "overhead_s")) == pytest.approx(parts_s(picture))
    for row in picture.timings:
        expected = {part: getattr(row, part) for part in (*PARTS, "device_s")}
        assert logged["stages"][row.stage] == expected
    assert (ended["outcome"], ended["caller"]) == ("OK", "nightly")

    await until(lambda: len(roots(spans)) == 1)
    finished, (root,) = spans.get_finished_spans(), roots(spans)
    (event,) = root.events
    assert event.attributes is not None
    for part in (*PARTS, "overhead_s", "device_s", "wall_s"):
        assert event.attributes[muse(part)] == logged[part]
    calls = [each for each in finished if each.kind is SpanKind.CLIENT]
    assert [stage_of(each) for each in sorted(calls, key=started)] == list(STAGES)
    for span, call in zip(sorted(calls, key=started), picture.calls, strict=True):
        seconds = sum(getattr(call.timing, part) for part in PARTS)
        assert duration_s(span) == pytest.approx(seconds, rel=0.1, abs=0.005)
    assert done.done.total_s == pytest.approx(duration_s(root), rel=0.1, abs=0.01)


def started(span: ReadableSpan) -> int:
    return span.start_time or 0


def duration_s(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def stage_of(span: ReadableSpan) -> str:
    return span.name.split(".")[1]


def roots(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """The orchestrator's own spans of requests, which end after all others."""
    return [span for span in spans.get_finished_spans() if span.name == ROOT]


async def test_every_span_of_a_request_is_below_its_root_however_it_ends(
    traced: Any, spans: InMemorySpanExporter
) -> None:
    async def refuse(seed: int) -> None:
        raise failed_precondition("no")

    await traced.events(count=2)
    traced.stages["superres"].around = refuse
    await traced.refusal()
    await until(lambda: len(roots(spans)) == 2)

    finished = list(spans.get_finished_spans())
    for root in roots(spans):
        trace = [span for span in finished if span.context.trace_id == root.context.trace_id]
        known = {span.context.span_id for span in trace}
        assert all(span.parent.span_id in known for span in trace if span.parent is not None)
        assert [span for span in trace if span.parent is None] == [root]
    codes = [dict(root.attributes or {}).get(span_attributes.RPC_STATUS) for root in roots(spans)]
    assert codes == ["OK", "FAILED_PRECONDITION"]


async def test_requests_given_up_at_any_time_leave_no_span_open_in_any_process(
    traced: Any, spans: InMemorySpanExporter
) -> None:
    opened, tracer = Open(), tracing.tracer
    tracer.span_processor.add_span_processor(opened)  # type: ignore[attr-defined]
    made_busy(traced, 0.004)
    begun_s = time.monotonic()
    assert await traced.works()
    usual_s = time.monotonic() - begun_s
    chance, left = random.Random(8), iter(range(CANCELS))

    async def caller() -> None:
        for _ in left:
            call = traced.stub.Generate(traced.request(**random_request(chance)))
            with suppress(asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(chance.uniform(0.0, AT_A_TIME * usual_s)):
                    async for _ in call:
                        pass
            call.cancel()

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    await until(lambda: not opened.spans)

    assert opened.begun > 2 * CANCELS
    assert opened.spans == {}


async def test_the_name_of_a_refused_caller_is_cut_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "services.orchestrator.request_log"):
        refused = await house.refusal(caller=Caller(id="x" * 8 * 2**20))
        await until(lambda: caplog.records)
    assert refused.violations[0].field == "caller.id"
    (record,) = caplog.records
    assert vars(record)["caller"] == "x" * 64 + "..."
