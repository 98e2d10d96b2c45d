"""The text encoder as a server, over gRPC, and as a process."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from muse.text_encoder.v1 import text_encoder_pb2, text_encoder_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.presets import preset
from services.runtime.observability.logs import JsonFormatter
from services.runtime.server.process import running_server
from services.runtime.wire.errors import RequestError, read_error
from services.runtime.wire.tensors import unpack_embedding
from services.text_encoder import __main__ as text_encoder_server
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.loading import load_text_encoder
from tests.waiting import until

TINY = preset("tiny").text_encoder

Stub = text_encoder_pb2_grpc.TextEncoderServiceStub


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> TextEncoderEngine:
    return TextEncoderEngine(load_text_encoder(checkpoint), max_batch_size=4)


@pytest.fixture
async def stub(checkpoint: Path) -> AsyncIterator[Stub]:
    settings = text_encoder_server.Settings(encoder=str(checkpoint), port=0, max_batch_size=4)
    async with (
        running_server(await text_encoder_server.build(settings), settings) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield text_encoder_pb2_grpc.TextEncoderServiceStub(channel)


async def refusal(stub: Stub, texts: list[str]) -> RequestError:
    """What the server says to texts that it must refuse."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Encode(text_encoder_pb2.EncodeRequest(texts=texts))
    return read_error(caught.value)


async def test_texts_come_back_as_the_engine_embeds_them(
    stub: Stub, engine: TextEncoderEngine
) -> None:
    texts = ["a fox", "", "two keys and a sun"]

    response = await stub.Encode(text_encoder_pb2.EncodeRequest(texts=texts))

    for text, embedding in zip(texts, response.embeddings, strict=True):
        values = unpack_embedding(
            embedding,
            field="text",
            encoder=engine.loaded.fingerprint,
            hidden=TINY.hidden,
            lengths=range(1, TINY.maximum_length + 1),
        )
        expected = engine.embed([engine.tokenize(text)])[0]
        np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert response.timing.stage == "text_encoder"
    assert response.timing.compute_s > 0


async def test_words_that_no_caption_had_are_named_with_what_the_encoder_knows(stub: Stub) -> None:
    texts = ["A Fox and two zebras", "a guitar, zebras"]
    response = await stub.Encode(text_encoder_pb2.EncodeRequest(texts=texts))
    known = await stub.Encode(text_encoder_pb2.EncodeRequest(texts=["a red sun"]))

    (warning,) = response.warnings
    assert warning.reason == "UNKNOWN_WORDS"
    assert list(warning.words) == ["zebras", "guitar"]
    assert '"zebras", "guitar"' in warning.message
    assert "things: fox, key, sun" in warning.message
    assert not known.warnings


async def test_requests_at_once_get_each_its_own_answer(stub: Stub) -> None:
    texts = [f"{count} {thing}" for count in ("a", "two") for thing in ("fox", "key", "sun")]
    requests = [text_encoder_pb2.EncodeRequest(texts=[text]) for text in texts]

    together = await asyncio.gather(*(stub.Encode(request) for request in requests))
    one_by_one = [await stub.Encode(request) for request in requests]

    for answer, alone in zip(together, one_by_one, strict=True):
        assert answer.embeddings == alone.embeddings


async def test_a_prompt_that_is_too_long_is_refused_and_the_next_one_works(stub: Stub) -> None:
    error = await refusal(stub, ["a fox", "fox " * 40])

    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0].field == "texts[1]"
    assert "at most 32 tokens" in error.message
    assert "41 tokens" in error.message
    response = await stub.Encode(text_encoder_pb2.EncodeRequest(texts=["a fox"]))
    assert len(response.embeddings) == 1


async def test_a_prompt_is_in_no_log_or_span(
    spans: InMemorySpanExporter, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "services")
    await stub.Encode(text_encoder_pb2.EncodeRequest(texts=["a fox and a xylophone"]))
    refused = await refusal(stub, ["xylophone " * 40])
    await until(lambda: len(server_spans(spans)) == 2)

    formatter = JsonFormatter("muse.text_encoder")
    written = "".join(formatter.format(record) for record in caplog.records)
    recorded = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "xylophone" not in f"{written}{recorded}{refused.message}{refused.violations}"


def server_spans(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]


@pytest.mark.parametrize("count", [0, 17])
async def test_no_text_and_too_many_texts_are_refused(stub: Stub, count: int) -> None:
    error = await refusal(stub, ["a fox"] * count)

    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0].field == "texts"
    assert f"{count} texts" in error.message


async def test_the_status_names_preset_fingerprint_and_digest(
    stub: Stub, engine: TextEncoderEngine
) -> None:
    status = (await stub.GetStatus(text_encoder_pb2.GetStatusRequest())).status

    assert (status.stage, status.preset) == ("text_encoder", "tiny")
    assert dict(status.fingerprints) == {"encoder": engine.loaded.fingerprint}
    assert dict(status.checkpoints) == {"text_encoder": engine.loaded.digest}
    assert status.device.startswith(("cpu x", "gpu x", "tpu x"))
    assert status.precision == "float32"


def server_process(checkpoints: Path) -> "subprocess.Popen[str]":
    """Starts the server on a free port."""
    return subprocess.Popen(
        [sys.executable, "-m", "services.text_encoder", "--port", "0"],
        env={**os.environ, "MUSE_CHECKPOINTS": str(checkpoints)},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_process_serves_and_ends_well_on_sigterm(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text_encoder").symlink_to(checkpoint)
    process = server_process(tmp_path)
    assert process.stderr is not None
    try:
        lines = []
        while not lines or '"serving"' not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], f"the server ended before it served: {lines}"
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 0, rest


def test_a_missing_checkpoint_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    process = server_process(tmp_path / "nothing")
    errors = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert "expected a folder or a hub id" in errors
    assert "Traceback" not in errors
