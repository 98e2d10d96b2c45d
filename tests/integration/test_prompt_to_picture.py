"""The whole stack: six processes, tiny random checkpoints, the public API."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from muse.common.v1.caller_pb2 import Caller
from muse.common.v1.decoding_pb2 import Sampling
from muse_client import Accepted, InvalidRequest, MuseClient
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from PIL import Image

from services.presets import preset
from services.stages import STAGES
from tests.conftest import Collector
from tests.integration.every_edit import check_every_edit
from tests.integration.ports import GATEWAY_OFFSET, SERVICES, free_base_port, http_of, listening
from tests.waiting import wait_until

TINY = preset("tiny")
MUSE = [sys.executable, "-c", "from tools.cli.main import main; main()"]


@pytest.fixture(scope="module")
def address(checkpoints: Path, cache: Path, collector: Collector) -> Iterator[str]:
    """`muse up`, until SIGTERM."""
    port, log = free_base_port(), cache / "up.log"
    words = ["up", "--preset=tiny", f"--checkpoints={checkpoints}", f"--base-port={port}"]
    words += ["--replicas", "base=2", f"--gateway-port={port + GATEWAY_OFFSET}"]
    process = subprocess.Popen(
        [*MUSE, *words],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(cache),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"serving on 127.0.0.1:{port}\n", log.read_text()[-2000:]
    assert process.stdout.readline() == f"HTTP on {http_of(port)}\n"
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 0
    assert not any(listening(("127.0.0.1", each)) for each in range(port, port + SERVICES))


def test_status_says_who_serves_what(address: str) -> None:
    asked = [*MUSE, "status", "--json", "--server", address]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    stages = {row["stage"]: row for row in json.loads(ended.stdout)["stages"]}
    assert list(stages) == list(STAGES)
    assert all(row["serving"] and row["status"]["preset"] == "tiny" for row in stages.values())
    codebook = stages["tokenizer"]["status"]["fingerprints"]["codebook"]
    assert codebook == stages["superres"]["status"]["fingerprints"]["codebook"]


def test_http_gives_the_picture_that_grpc_gives(address: str) -> None:
    with MuseClient(address) as client:
        (expected,) = client.generate("a fox", seed=7)
    body = json.dumps({"prompt": "a fox", "seed": 7}).encode()
    asked = urllib.request.Request(
        f"{http_of(int(address.split(':')[1]))}/v1/images/generations",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        (picture,) = json.load(answer)["data"]
    assert base64.b64decode(picture["b64_json"]) == expected.png


def test_another_preset_than_the_checkpoints_is_refused(
    address: str, checkpoints: Path, cache: Path
) -> None:
    port = free_base_port()
    words = ["up", "--preset=demo", f"--checkpoints={checkpoints}", f"--base-port={port}"]
    words += ["--no-gateway"]
    ended = subprocess.run(
        [*MUSE, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("muse: preset: expected checkpoints of 'demo', got those of {")


def test_a_mesh_reaches_the_servers_which_say_what_is_wrong_with_it(checkpoints: Path) -> None:
    words = ["up", "--mesh=model=9", f"--checkpoints={checkpoints}"]
    ended = subprocess.run(
        [*MUSE, *words, f"--base-port={free_base_port()}", "--no-gateway"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "died with 1: cannot start: mesh: model=9 takes 9 devices" in last


def test_generate_starts_its_own_servers_writes_every_picture_and_leaves_nothing(
    checkpoints: Path, cache: Path, tmp_path: Path
) -> None:
    words = ["generate", "a fox", "--seed=3", "--count=2", "--out=new/fox.webp"]
    ended = subprocess.run(
        [*MUSE, *words, f"--checkpoints={checkpoints}"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    assert ended.returncode == 0, ended.stderr
    for name, side in (("fox-0", 32), ("fox-1", 32), ("fox-sheet", 76)):
        with Image.open(tmp_path / "new" / f"{name}.webp") as image:
            assert image.width == side
    for stage in (*STAGES, "whole request"):
        assert stage in ended.stdout
    addresses = [
        line["address"].rsplit(":", 1)
        for line in map(json.loads, (tmp_path / "out" / "muse.log").read_text().splitlines())
        if line["message"] == "serving"
    ]
    assert len(addresses) == SERVICES - 1  # no gateway
    assert not any(listening((host, int(port))) for host, port in addresses)


def test_a_seed_gives_the_same_bytes_alone_and_in_a_batch_of_four(address: str) -> None:
    with MuseClient(address) as client:
        alone = [client.generate("a fox", seed=7 + index)[0].png for index in range(4)]
        together = [picture.png for picture in client.generate("a fox", seed=7, count=4)]
    assert alone == together
    assert len(set(together)) == 4


def test_the_seed_of_a_later_picture_wraps_at_64_bits(address: str) -> None:
    with MuseClient(address) as client:
        pictures = client.generate("a fox", seed=2**64 - 1, count=2)
    assert [picture.seed for picture in pictures] == [2**64 - 1, 0]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": "x" * 5000}),
        ("prompt", {"prompt": "fox " * 400}),
        ("count", {"count": 0}),
        ("count", {"count": 1000}),
        ("base.guidance_scale", {"base": Sampling(guidance_scale=float("nan"))}),
        ("base.steps", {"base": Sampling(steps=0)}),
        ("superres.steps", {"superres": Sampling(steps=10_000)}),
        ("base.top_k", {"base": Sampling(top_k=100_000)}),
    ],
)
def test_bad_input_names_its_field_and_the_next_request_works(
    address: str, field: str, wrong: dict[str, Any]
) -> None:
    with MuseClient(address) as client:
        with pytest.raises(InvalidRequest) as refused:
            list(client.events(**{"prompt": "a fox", **wrong}))
        assert [violation.field for violation in refused.value.violations] == [field]
        assert client.generate("a fox", seed=1)[0].image.size == (32, 32)


def test_a_reader_who_leaves_does_not_disturb_the_next(address: str) -> None:
    with MuseClient(address) as client:
        events = client.events("a fox", seed=1, count=4)
        assert next(events) == Accepted(seed=1, count=4)
        events.close()
        assert len(client.generate("a fox", seed=1)) == 1


def test_every_edit_passes_the_whole_stack(address: str) -> None:
    with MuseClient(address) as client:
        for each in check_every_edit(client):
            assert {decode.stage for decode in each.decodes} == {"base", "superres"}


def test_the_file_says_how_it_was_made(address: str) -> None:
    with MuseClient(address) as client:
        image = client.generate("a fox", seed=9)[0].image
    image.load()
    assert (image.info["prompt"], image.info["seed"]) == ("a fox", "9")
    assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]


@pytest.mark.parametrize("stage", ["whole", *STAGES])
def test_bench_loads_the_whole_and_every_stage(address: str, stage: str, tmp_path: Path) -> None:
    words = [
        "bench",
        f"--stage={stage}",
        "--rate=8",
        "--seconds=0.6",
        "--kind=steps=2,negative=1",
        "--prompt=a fox",
    ]
    ended = subprocess.run(
        [*MUSE, *words, "--server", address, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    (run,) = json.loads((tmp_path / "bench.json").read_text())["runs"]
    assert run["codes"] == {"OK": run["requests"]}
    assert set(run["compute_s"]) == (set(STAGES) if stage == "whole" else {stage})
    assert (tmp_path / "bench.html").is_file()


def test_one_trace_holds_the_queue_and_compute_of_every_stage(
    address: str, collector: Collector
) -> None:
    trace_id, parent_id = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
    caller = SpanContext(trace_id, parent_id, is_remote=False, trace_flags=TraceFlags.SAMPLED)
    with MuseClient(address) as client, use_span(NonRecordingSpan(caller)):
        client.generate("a fox", seed=1, caller=Caller(id="nightly"))

    def found() -> dict[str, list[Span]]:
        spans: dict[str, list[Span]] = {}
        for service, span in collector.spans:
            if span.trace_id == trace_id.to_bytes(16, "big"):
                spans.setdefault(service, []).append(span)
        return spans

    def roots() -> list[str]:  # the last span to end, so perhaps in a later export than the others
        return [
            span.name
            for span in found().get("muse.orchestrator", [])
            if span.parent_span_id == parent_id.to_bytes(8, "big")
        ]

    def served() -> set[str]:
        return {
            service
            for service, spans in found().items()
            if any(span.kind == Span.SPAN_KIND_SERVER for span in spans)
        }

    services = {"muse.orchestrator", *(f"muse.{stage}" for stage in STAGES)}
    wait_until(lambda: served() == services, 20)  # what ends last in each
    spans = found()
    assert spans.keys() == services
    for stage in STAGES:
        assert {"queue", "compute"} <= {span.name for span in spans[f"muse.{stage}"]}
    assert roots() == ["muse.orchestrator.v1.OrchestratorService/Generate"]

    everything = [span for of_service in spans.values() for span in of_service]
    known = {span.span_id for span in everything} | {parent_id.to_bytes(8, "big")}
    assert {span.parent_span_id for span in everything} <= known
    names = {span.span_id: span.name for span in everything}
    for stage in STAGES:
        server = next(each for each in spans[f"muse.{stage}"] if each.kind == Span.SPAN_KIND_SERVER)
        assert names[server.parent_span_id] == server.name  # the orchestrator's side of the call
        said = {each.key: each.value.string_value for each in server.attributes}
        assert (said["muse.caller"], said["rpc.response.status_code"]) == ("nightly", "OK")
        parts = [each for each in spans[f"muse.{stage}"] if each.name == "dispatch"]
        assert {names[each.parent_span_id] for each in parts} == {"compute"}
        batches = {
            span.span_id: [link.span_id for link in span.links]
            for service, span in collector.spans
            if (service, span.name) == (f"muse.{stage}", "batch")
        }
        assert parts
        for part in parts:
            (link,) = part.links
            assert server.span_id in batches[link.span_id]
