"""A short share of the fuzzing: every kept case, and changes of each that a seed draws.

`make fuzz` runs for hours and is guided by the lines that a case reaches.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from muse.common.v1.decoding_pb2 import Sampling
from muse.orchestrator.v1.orchestrator_pb2 import GenerateRequest, GetStatusRequest
from muse.tokenizer.v1 import tokenizer_pb2_grpc

from services.runtime.wire.errors import RequestError
from tests.fuzz import registry
from tests.fuzz.calls import Ending, InProcess, check_ending
from tests.fuzz.cases import CHANGED, NO_TIME_S, Case, case_of, read_case
from tests.fuzz.choices import Choices

# Changed cases of each target: as many as take a few seconds.
CHANGES = {
    "callers": 5000,
    "pictures": 2000,
    "checkpoints": 1500,
    "orchestrator": 400,
    "stages": 200,
    "http2": 200,
}


def changed(content: bytes, draw: random.Random) -> bytes:
    """Returns a case with one to four of its parts replaced, removed, repeated or added."""
    result = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(result))
        end = min(len(result), start + draw.choice((0, 1, 1, 2, 4, 16)))
        part = draw.choice((b"", draw.randbytes(max(1, end - start)), bytes(result[start:end]) * 2))
        result[start:end] = part
    return bytes(result)


@pytest.fixture(params=registry.NAMES, scope="module")
def fuzzed(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[bytes], None]]]:
    """Yields name and check of each target."""
    with registry.load(request.param).opened() as check:
        yield request.param, check


def test_every_kept_case_is_answered_as_documented(
    fuzzed: tuple[str, Callable[[bytes], None]],
) -> None:
    name, check = fuzzed
    for _, content in registry.load(name).seeds():
        check(content)
    for file in sorted(registry.kept(name).glob("*")):
        check(file.read_bytes())


@pytest.mark.parametrize("fuzzed", CHANGES, indirect=True)
def test_changed_cases_are_answered_as_documented(
    fuzzed: tuple[str, Callable[[bytes], None]],
) -> None:
    name, check = fuzzed
    target, draw = registry.load(name), random.Random(0)
    cases = [content for _, content in target.seeds()]
    cases += [file.read_bytes() for file in sorted(registry.kept(name).glob("*"))]
    for _ in range(CHANGES[name]):
        check(changed(draw.choice(cases), draw)[: target.MAX_BYTES])


class Faulty(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Fails as no servicer may."""

    async def Decode(self, request: Any, context: Any) -> Any:
        raise KeyError("a fault")

    async def Encode(self, request: Any, context: Any) -> Any:
        raise RequestError(grpc.StatusCode.UNAVAILABLE, "of one's own making")


@pytest.mark.parametrize(
    ("method", "problem"),
    [("Decode", "KeyError"), ("Encode", "UNAVAILABLE")],
)
async def test_a_fault_and_an_undocumented_status_are_noticed(method: str, problem: str) -> None:
    server = InProcess(
        lambda server: tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(Faulty(), server)
    )
    ending = await server.call(Case(f"/muse.tokenizer.v1.TokenizerService/{method}", b""))

    with pytest.raises(AssertionError, match=problem):
        check_ending(ending)


@pytest.mark.parametrize("message", ["", "first line\nsecond line", "x" * 10_000])
def test_a_message_that_is_no_line_of_text_is_noticed(message: str) -> None:
    with pytest.raises(AssertionError):
        check_ending(Ending(grpc.StatusCode.INVALID_ARGUMENT, message))


def test_only_a_call_without_time_may_be_too_late() -> None:
    late = Ending(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
    check_ending(late, NO_TIME_S)

    with pytest.raises(AssertionError, match="DEADLINE_EXCEEDED"):
        check_ending(late)


def test_changed_requests_are_valid_messages_with_values_of_every_field() -> None:
    good = {
        "/a/Generate": [GenerateRequest(prompt="a fox", base=Sampling(steps=2))],
        "/a/GetStatus": [GetStatusRequest()],
    }
    draw, found = random.Random(0), GenerateRequest()
    for _ in range(2000):
        rest = bytes([0]) + draw.randbytes(24)
        case = read_case(case_of("/a/Generate", good, CHANGED, rest), good)
        found.MergeFrom(GenerateRequest.FromString(case.request))

    assert {field.name for field, _ in found.ListFields()} >= {
        field.name
        for field in GenerateRequest.DESCRIPTOR.fields
        if field.containing_oneof is None or field.containing_oneof.name != "edit"
    }


def test_where_the_bytes_end_every_decision_is_the_first() -> None:
    choices = Choices(b"\2")

    assert [choices.pick("abc"), choices.pick("abc"), choices.below(1000)] == ["c", "a", 0]
    assert choices.rest() == b""
