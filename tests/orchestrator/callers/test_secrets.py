"""Neither prompts nor credentials are in logs, spans or errors, whatever becomes of a request."""

import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from muse.common.v1.caller_pb2 import Caller
from muse.orchestrator.v1.orchestrator_pb2 import MaskFreeEdit, Vary
from muse_client import MuseClient
from muse_client.edits import file_bytes, inpainting, outpainting
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image

from services.orchestrator.callers.api_keys import new_key
from services.runtime.observability.logs import JsonFormatter
from services.runtime.wire.errors import failed_precondition, read_error
from tests.orchestrator.callers.conftest import KeyFile, bearer
from tests.orchestrator.callers.issuing import AUDIENCE, ISSUER, forged, jwks, served, token
from tests.small_stages import House, open_house
from tests.waiting import until

WORD = "xylophone"
PICTURE = Image.new("RGB", (32, 32))
KINDS: list[dict[str, Any]] = [
    {},
    {"negative_prompt": WORD, "progress": True, "preview_every": 1},
    {"inpaint": inpainting(PICTURE, Image.new("L", (32, 32), 255))},
    {"outpaint": outpainting(PICTURE, right_px=8)},
    {"mask_free_edit": MaskFreeEdit(image=file_bytes(PICTURE), iterations=2)},
    {"vary": Vary(image=file_bytes(PICTURE))},
    {"best_of": 3},  # refused: there is no scorer
    {"prompt": f"{WORD} " * 33},  # too many tokens
    {"prompt": f"{WORD} " * 1000},  # too many characters
    {"prompt": f"{WORD} zebra"},  # a warning
    {"count": 17},
    {"caller": Caller(id="x" * 65)},
    {"inpaint": inpainting(PICTURE, Image.new("L", (16, 16), 255))},
]


class Written:
    """What the logs of the servers have, as they are written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonFormatter("muse.orchestrator"))

    def lines(self, name: str | None = None) -> list[dict[str, Any]]:
        every = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [each for each in every if name in (None, each["logger"])]


@pytest.fixture
def written() -> Any:
    """Every log line from here on."""
    kept, root = Written(), logging.getLogger()
    level = root.level
    root.addHandler(kept.handler)
    root.setLevel(logging.DEBUG)
    yield kept
    root.removeHandler(kept.handler)
    root.setLevel(level)


def recorded(spans: InMemorySpanExporter) -> str:
    """Everything that the spans say."""
    return "\n".join(span.to_json() for span in spans.get_finished_spans())


async def said(house: House, **request: Any) -> str:
    """The error of a request, with its details; nothing, if it is served."""
    try:
        await house.events(**request)
    except grpc.aio.AioRpcError as error:
        refused = read_error(error)
        return f"{error!r} {refused.message} {refused.violations} {error.trailing_metadata()}"
    return ""


async def test_a_prompt_is_in_no_log_span_or_error_of_any_kind_of_request(
    spans: InMemorySpanExporter, written: Written
) -> None:
    async with open_house() as house:
        errors = [await said(house, **{"prompt": WORD, **kind}) for kind in KINDS]
        for stage in house.stages.values():
            for failure in (failed_precondition("no"), ValueError("broken")):

                async def fail(seed: int, failure: Exception = failure) -> None:
                    raise failure

                stage.around = fail
                errors.append(await said(house, prompt=WORD))
            stage.around = None
        assert sum(bool(error) for error in errors) == 6 + 2 * 4
        await until(lambda: len(written.lines("muse.audit")) == len(errors), 60)
        await until(lambda: len(spans.get_finished_spans()) > 100, 60)
    assert "a call failed" in written.stream.getvalue()
    for text in (*errors, written.stream.getvalue(), recorded(spans)):
        assert WORD not in text.lower()


async def test_the_audit_log_has_prompts_where_they_are_asked_for_and_nothing_else_has(
    spans: InMemorySpanExporter, written: Written
) -> None:
    async with open_house(audit_prompts=True) as house:
        await house.events(prompt=WORD, negative_prompt="rain")
        await until(lambda: written.lines("muse.audit"), 60)
    (line,) = written.lines("muse.audit")
    assert (line["prompt"], line["negative_prompt"]) == (WORD, "rain")
    assert len(line["trace_id"]) == 32
    others = [each for each in written.lines() if each["logger"] != "muse.audit"]
    assert others
    assert WORD not in json.dumps(others)
    assert WORD not in recorded(spans)


async def test_nothing_of_a_credential_is_in_any_log_span_or_error(
    key_file: Callable[..., KeyFile], spans: InMemorySpanExporter, written: Written
) -> None:
    keys = key_file("acme")
    with served(jwks()) as endpoint:
        settings = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": endpoint.url}
        async with open_house(api_keys_file=keys.path, **settings) as house:
            good = [keys.keys["acme"], token()]
            bad = [
                *(new_key(), token(exp=1), token(aud="billing"), token(key="stranger")),
                forged({"alg": "none", "kid": "RS256 own"}),
            ]
            errors = []
            for credential in (*good, *bad):
                called = replace(house, metadata=bearer(credential))
                errors.append(await said(called))
                errors.append(await said(called, prompt=""))
            errors.append(await said(replace(house, metadata=bearer(good[0]) * 2)))
            await until(lambda: len(written.lines("muse.audit")) == len(errors), 60)
    assert sum(bool(error) for error in errors) == len(good) + 2 * len(bad) + 1
    for credential in (*good, *bad):
        for part in credential.removeprefix("muse_").split("."):
            if part:
                for text in (*errors, written.stream.getvalue(), recorded(spans)):
                    assert part not in text


def test_a_key_that_no_header_may_have_is_refused_without_repeating_it() -> None:
    for key in ("muse_secret\n", "muse secret", "muse_sécret"):
        with pytest.raises(ValueError, match="expected printable ASCII without spaces") as caught:
            MuseClient(api_key=key)
        assert "cret" not in str(caught.value)
