"""The process: how it starts and ends, what it records, and what it refuses to start with."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider

from services.gateway.process import uvicorn_server
from services.gateway.settings import GatewaySettings
from tests.authority import Authority
from tests.conftest import Collector
from tests.gateway.conftest import Start
from tests.small_stages import House
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@asynccontextmanager
async def gateway_process(
    *flags: str, port: str = "0", **environment: str
) -> AsyncIterator[tuple[Process, list[dict[str, Any]]]]:
    """The process and its log until it says where it listens, or ends."""
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway", "--port", port, *flags),
        stderr=PIPE,
        env=os.environ | environment,
    )
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    try:
        async for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"] == "serving":
                break
        yield process, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_serves_records_and_ends(house: House, collector: Collector) -> None:
    async with gateway_process(
        *("--orchestrator", house.address),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_TRACES_SAMPLER="always_on",
    ) as (process, lines):
        async with httpx2.AsyncClient(base_url=lines[-1]["address"], timeout=30) as http:
            answer = await http.post(
                "/v1/images/generations",
                json={"prompt": "a fox"},
                headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
            )
            assert answer.status_code == 200
            assert (await http.get("/readyz")).text == "ok"
            metrics = (await http.get("/metrics")).text
        assert "http_server_request_duration_seconds_count" in metrics
        assert 'http_route="/v1/images/generations"' in metrics
        assert "healthz" not in metrics
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    await until(lambda: any(name == "muse.gateway" for name, _ in collector.spans))
    spans = [span for name, span in collector.spans if name == "muse.gateway"]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert [span.name for span in spans] == ["POST /v1/images/generations"]


def test_it_imports_no_jax() -> None:
    program = (
        "import sys, services.gateway.__main__\n"
        "assert not {'jax', 'flax', 'services.orchestrator'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


async def test_metrics_may_have_a_port_of_their_own(house: House) -> None:
    flags = ("--orchestrator", house.address, "--metrics-port", "0")
    async with gateway_process(*flags) as (_, lines), httpx2.AsyncClient(timeout=30) as http:
        (metrics,) = [each["address"] for each in lines if each["message"] == "metrics"]
        address = lines[-1]["address"]
        assert (await http.get(f"{address}/v1/models")).status_code == 200
        assert (await http.get(f"{address}/metrics")).status_code == 404
        assert 'http_route="/v1/models"' in (await http.get(metrics)).text


async def test_a_port_of_metrics_that_is_taken_is_named_in_the_log(house: House) -> None:
    port = house.address.split(":")[-1]
    async with gateway_process("--metrics-port", port) as (process, lines):
        assert await process.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port} for metrics" in lines[-1]["message"]


async def test_why_it_is_not_ready_is_logged_once(
    house: House, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    await house.lines["superres"].cut()
    async with start() as gateway:
        for _ in range(2):
            assert (await gateway.http.get("/readyz")).status_code == 503
    messages = [each.message for each in caplog.records if each.name == "services.gateway.app"]
    assert len(messages) == 1
    assert messages[0].startswith("not ready: not all stages serve: superres")


async def test_a_port_that_is_taken_is_named_in_the_log(house: House) -> None:
    port = house.address.split(":")[-1]
    async with gateway_process(port=port) as (process, lines):
        assert await process.wait() == 1
    assert port in " ".join(line["message"] for line in lines)


async def test_a_certificate_that_is_not_there_is_named_in_the_log() -> None:
    async with gateway_process("--tls-cert", "none.crt", "--tls-key", "none.key") as (
        process,
        lines,
    ):
        assert await process.wait() == 1
    assert "tls_cert: expected a file in PEM, got none.crt" in lines[-1]["message"]


async def test_it_speaks_tls(house: House, tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.issue("127.0.0.1").write(tmp_path)
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with gateway_process("--orchestrator", house.address, *flags) as (_, lines):
        address = lines[-1]["address"]
        assert address.startswith("https://")
        trusted = ssl.create_default_context(cafile=authority.write(tmp_path))
        async with httpx2.AsyncClient(base_url=address, verify=trusted) as http:
            assert (await http.get("/readyz")).text == "ok"


async def test_a_renewed_certificate_is_shown_to_new_connections(
    house: House, tmp_path: Path
) -> None:
    authority = Authority()
    cert, key = authority.issue("127.0.0.1").write(tmp_path)
    settings = GatewaySettings(
        port=0, orchestrator=house.address, grace_s=1, tls_cert=cert, tls_key=key
    )
    server = uvicorn_server(settings, MeterProvider(), None)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    port = server.servers[0].sockets[0].getsockname()[1]

    async def shown() -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

    try:
        assert await shown() == cert.read_text()
        renewed, _ = authority.issue("127.0.0.1").write(tmp_path)  # over the first
        await server.renew_certificate()
        assert await shown() == renewed.read_text()
        renewed.write_text("half of a")
        before = await shown()
        await server.renew_certificate()
        assert await shown() == before
    finally:
        server.should_exit = True
        await serving
    assert server.config.callback_notify == server.renew_certificate


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"host": "0.0.0.0"}, "tls_cert: expected a certificate to listen on 0.0.0.0"),
        ({"host": "a b"}, "host: "),
        ({"port": 70000}, "port: expected 0 to 65535, got 70000"),
        ({"tls_key": "key"}, "tls_cert: expected a file beside tls_key, got none"),
        ({"orchestrator_tls_cert": "c"}, "orchestrator_tls_key: expected a file beside"),
        (
            {"orchestrator_tls_cert": "c", "orchestrator_tls_key": "k"},
            "orchestrator_tls_ca: expected the authorities",
        ),
        ({"port": 7000, "metrics_port": 7000}, "metrics_port: expected another number than port"),
        ({"max_requests": 0}, "max_requests: expected at least 1, got 0"),
        ({"timeout_s": 0.0}, "timeout_s: expected more than 0, got 0.0"),
        ({"receive_timeout_s": float("nan")}, "receive_timeout_s: expected more than 0, got nan"),
        ({"grace_s": -1.0}, "grace_s: expected at least 0, got -1.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        GatewaySettings(**settings)
