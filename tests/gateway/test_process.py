"""The process: how it starts and ends, what it records, and what it refuses to start with."""

import json
import os
import signal
import ssl
import sys
from asyncio import create_subprocess_exec, subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.gateway.settings import GatewaySettings
from tests.authority import Authority
from tests.conftest import Collector
from tests.small_stages import House
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@asynccontextmanager
async def gateway_process(
    *flags: str, port: str = "0", **environment: str
) -> AsyncIterator[tuple[subprocess.Process, list[dict[str, Any]]]]:
    """The process and its log until it says where it listens, or ends."""
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway", "--port", port, *flags),
        stderr=subprocess.PIPE,
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
        ({"max_requests": 0}, "max_requests: expected at least 1, got 0"),
        ({"timeout_s": 0.0}, "timeout_s: expected more than 0, got 0.0"),
        ({"receive_timeout_s": float("nan")}, "receive_timeout_s: expected more than 0, got nan"),
        ({"grace_s": -1.0}, "grace_s: expected at least 0, got -1.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        GatewaySettings(**settings)
