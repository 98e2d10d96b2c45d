"""Metrics as they leave a process: scraped, sent, counted, and no more of them than are named."""

import asyncio
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from muse.base.v1 import base_pb2
from muse.common.v1.tensor_pb2 import TokenGrid
from muse.orchestrator.v1 import orchestrator_pb2
from muse.superres.v1 import superres_pb2
from muse.text_encoder.v1 import text_encoder_pb2
from muse.tokenizer.v1 import tokenizer_pb2

from services.runtime.observability.exporter_selection import selected_exporter
from services.runtime.observability.instruments import (
    INSTRUMENTS,
    OUTCOMES,
    observe,
)
from services.runtime.observability.metrics import configure_metrics
from services.runtime.scheduling.device_thread import DeviceThread
from services.runtime.scheduling.inflight import InflightBatcher
from services.runtime.server.metrics_interceptor import kind_of
from services.runtime.server.settings import ServerSettings
from services.runtime.wire.caller import Caller
from services.runtime.wire.errors import RequestError
from tests.runtime.conftest import Countdown, FakeDevice

ROOT = Path(__file__).parents[3]
METRICS = ROOT / "docs" / "metrics.md"
FILES = (base_pb2, orchestrator_pb2, superres_pb2, text_encoder_pb2, tokenizer_pb2)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    """Returns the samples of our own series."""
    found: Series = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(muse_\w+)\{(.*)\} (\S+)", line):
            labels = re.findall(r'(\w+)="([^"]*)"', match[2])
            found[match[1], frozenset(labels)] = float(match[3])
    return found


@pytest.fixture
def scrape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Series]]:
    """An endpoint of this process, as the tokenizer's."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRICS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    port, end = configure_metrics("tokenizer", port=0)

    def get() -> Series:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return parsed(answer.read().decode())

    yield get
    end()


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset({"stage": "tokenizer", **labels}.items())), 0.0)


async def eventually(scrape: Callable[[], Series], name: str, least: float, **labels: str) -> None:
    """Waits until a series has come so far: a server learns of an end after its caller."""
    deadline_s = time.monotonic() + 10
    while value(series := await asyncio.to_thread(scrape), name, **labels) < least:
        assert time.monotonic() < deadline_s, series
        await asyncio.sleep(0.02)


async def test_calls_are_counted_by_kind_and_outcome(
    scrape: Callable[[], Series], calling: Any
) -> None:
    count = "muse_request_duration_seconds_count"
    async with calling() as (stub, _):
        request = tokenizer_pb2.DecodeRequest(tokens=TokenGrid(codebook="c" * 1000))
        await stub.Decode(request)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Encode(tokenizer_pb2.EncodeRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetStatus(tokenizer_pb2.GetStatusRequest(), timeout=0.1)
        gone = stub.GetStatus(tokenizer_pb2.GetStatusRequest())
        await asyncio.sleep(0.2)
        gone.cancel()

        await eventually(scrape, count, 1, kind="decode", outcome="OK")
        await eventually(scrape, count, 1, kind="encode", outcome="INVALID_ARGUMENT")
        await eventually(scrape, count, 1, kind="get_status", outcome="DEADLINE_EXCEEDED")
        await eventually(scrape, count, 1, kind="get_status", outcome="CANCELLED")
    assert value(scrape(), "muse_io_bytes_total", direction="receive") == request.ByteSize()


async def test_no_series_comes_with_callers_prompts_or_methods(
    scrape: Callable[[], Series],
    calling: Any,
    fake_device: type[FakeDevice],
    countdown: type[Countdown],
) -> None:
    async def flood(stub: Any, channel: grpc.aio.Channel, first: int) -> None:
        for number in range(first, first + 100):
            metadata = (("caller", f"caller-{number}"), ("user-agent", f"agent-{number}"))
            decode = tokenizer_pb2.DecodeRequest(tokens=TokenGrid(codebook=f"prompt {number}"))
            await stub.Decode(decode, metadata=metadata)
            for method in (f"/muse.tokenizer.v1.TokenizerService/M{number}", f"/muse.x{number}/A"):
                unknown: Any = channel.unary_unary(method)
                with pytest.raises(grpc.aio.AioRpcError):
                    await unknown(b"", metadata=metadata)
            request = countdown(f"prompt {number}", 1 + number % 7)
            caller = Caller(id=f"caller-{number}")
            async with aclosing(batcher.events(request, stream=False, caller=caller)) as events:
                async for _ in events:
                    pass

    thread = DeviceThread()
    batcher: InflightBatcher[Any, Any] = InflightBatcher(fake_device(slots=2), thread, max_queued=8)
    async with calling() as (stub, channel):
        await flood(stub, channel, 0)
        few = set(await asyncio.to_thread(scrape))
        await flood(stub, channel, 1000)
        many = await asyncio.to_thread(scrape)
    await batcher.drain()
    thread.close()

    assert set(many) == few
    assert value(many, "muse_request_duration_seconds_count", kind="decode", outcome="OK") == 200
    allowed = {
        each: {**instrument.labels, "stage": ("tokenizer",), "kind": ("decode",)}
        for instrument in INSTRUMENTS
        for each in instrument.prometheus_names
    }
    for name, labels in many:
        for label, held in labels - {each for each in labels if each[0] == "le"}:
            assert held in allowed[name][label], (name, label, held)


async def test_load_refusals_and_work_of_a_stage(
    scrape: Callable[[], Series], fake_device: type[FakeDevice], countdown: type[Countdown]
) -> None:
    device, thread = fake_device(slots=1), DeviceThread()
    batcher: InflightBatcher[Any, Any] = InflightBatcher(device, thread, max_queued=2)
    stop_observing = observe(batcher.load)

    async def decode(request: Any) -> None:
        async with aclosing(batcher.events(request, stream=False)) as events:
            async for _ in events:
                pass

    device.gate.clear()
    first = asyncio.create_task(decode(countdown("first", 3)))
    await asyncio.to_thread(device.started.wait, 10)
    second = asyncio.create_task(decode(countdown("second", 5, rows=2)))
    await asyncio.sleep(0.05)
    with pytest.raises(RequestError):
        await decode(countdown("third", 1))  # a caller may hold half of the places
    full = await asyncio.to_thread(scrape)
    device.gate.set()
    await asyncio.gather(first, second)
    batcher.preempt()
    with pytest.raises(RequestError):
        await decode(countdown("late", 1))
    done = await asyncio.to_thread(scrape)
    stop_observing()
    await batcher.drain()
    thread.close()

    names = ("slots_active", "slots_limit", "queue_requests", "queue_steps", "queue_limit")
    assert [value(full, f"muse_{name}") for name in names] == [1, 1, 1, 10, 2]
    assert [value(done, f"muse_{name}") for name in names] == [0, 1, 0, 0, 2]
    assert value(done, "muse_admission_refusals_total", reason="queue_full") == 1
    assert value(done, "muse_admission_refusals_total", reason="stopping") == 1
    assert value(done, "muse_device_steps_total") == 3 + 10
    assert value(done, "muse_device_duration_seconds_total") > 0
    assert value(done, "muse_queue_duration_seconds_count") == 2
    assert "muse_slots_active" not in {name for name, _ in scrape()}


PROGRAMS = """
import sys, urllib.request
from pathlib import Path
from services.runtime.server.jax_setup import prepare_jax
from services.runtime.observability.metrics import configure_metrics
port, end = configure_metrics("base", port=0)
prepare_jax(Path(sys.argv[1]))
prepare_jax(Path(sys.argv[1]))  # counts nothing twice
import jax
jax.jit(lambda x: x * 3 + 1).lower(jax.ShapeDtypeStruct((3,), "float32")).compile()
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
end()
"""


def test_programs_are_counted_by_where_they_come_from(tmp_path: Path) -> None:
    def programs() -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAMS, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        return {
            dict(labels)["source"]: count
            for (name, labels), count in parsed(done.stdout).items()
            if name == "muse_programs_total"
        }

    assert programs() == {"compiler": 1, "cache": 0}
    assert programs() == {"compiler": 0, "cache": 1}


def test_every_method_and_edit_of_the_protos_is_a_kind() -> None:
    found = set()
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                message = getattr(file, method.input_type.name)()
                found.add(kind_of(f"/{service.full_name}/{method.name}", message))
    edit = orchestrator_pb2.GenerateRequest.DESCRIPTOR.oneofs_by_name["edit"]
    for field in edit.fields:
        request = orchestrator_pb2.GenerateRequest()
        getattr(request, field.name).SetInParent()
        found.add(kind_of("/muse.orchestrator.v1.OrchestratorService/Generate", request))
    base_edit = base_pb2.GenerateRequest()
    base_edit.mask_free_edit.SetInParent()
    found.add(kind_of("/muse.base.v1.BaseService/Generate", base_edit))

    assert found > {field.name for field in edit.fields} | {"generate", "get_status"}
    (documented,) = re.findall(r"^- `kind`: ([^`]*?)\.\s", METRICS.read_text(), re.MULTILINE)
    assert found == set(re.findall(r"\w+", documented)) - {
        "of",
        "and",
        "the",
        "orchestrator",
        "base",
    }
    assert len(OUTCOMES) == 17


def test_the_document_lists_what_is_exported() -> None:
    listed = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        if cells[0].startswith("muse."):
            listed[cells[0]] = (cells[1], cells[2])

    assert listed == {
        each.name: (each.prometheus_names[-1].removesuffix("_count"), each.unit)
        for each in INSTRUMENTS
    }


@pytest.mark.parametrize(
    ("flags", "host"),
    [
        ((), "127.0.0.1"),
        (("--host=0.0.0.0", "--insecure", "--metrics-host=127.0.0.1"), "127.0.0.1"),
    ],
)
def test_a_metrics_port_in_use_is_one_line(flags: tuple[str, ...], host: str) -> None:
    command = [sys.executable, "-m", "services.orchestrator", "--port=0", *flags]
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*command, f"--metrics-port={port}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=120,
        )

    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]  # before it, a warning of plain text
    assert f"cannot listen on {host}:{port} for metrics" in line
    assert "Name another --metrics-port" in line
    assert "Traceback" not in done.stderr


def test_invalid_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="metrics_port: expected 0 to 65535, got -1"):
        ServerSettings(metrics_port=-1)
    with pytest.raises(ValueError, match="metrics_port: expected another number than port"):
        ServerSettings(port=9464, metrics_port=9464)
    with pytest.raises(ValueError, match="OTEL_METRICS_EXPORTER: expected one of otlp"):
        selected_exporter("METRICS", {"OTEL_METRICS_EXPORTER": "prometheus"})
    assert selected_exporter("METRICS", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}) == "otlp"
    assert selected_exporter("METRICS", {}) == "none"
