"""A fake device for scheduler tests without a model, and a server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from muse.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from services.runtime.server.process import Service, running_server
from services.runtime.server.settings import ServerSettings
from services.runtime.wire.errors import invalid_field


@dataclass(frozen=True)
class Countdown:
    """A request with a number of steps; its state is its name and the steps taken.

    Attributes:
        name: Identifies the request.
        steps_left: Steps to take.
        poison: Call that raises: "admit" or "advance"; "" for none.
        rows: Rows that one step computes.
    """

    name: str
    steps_left: int
    poison: str = ""
    rows: int = 1


class FakeDevice:
    """Slots of countdowns that check how they are used; `advance` waits while the gate is shut."""

    def __init__(self, slots: int) -> None:
        self.slots, self.rows_at_once, self.device_to_host_s = slots, 1, 0.0
        self.rows: dict[int, tuple[Countdown, int]] = {}
        self.dispatches: list[tuple[int, frozenset[str]]] = []  # steps, names of the requests
        self.broken = False
        self.resets = 0
        self.refuse_resets = 0
        self.threads: set[str] = set()
        self.started, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def admit(self, slot: int, request: Countdown, state: tuple[str, int] | None = None) -> None:
        self._check()
        assert 0 <= slot < self.slots
        assert slot not in self.rows or self._left(slot) == 0, "the slot is taken"
        if request.poison == "admit":
            raise ValueError(f"{request.name} is poisoned")
        assert state is None or state[0] == request.name
        self.rows[slot] = (request, 0 if state is None else state[1])

    def advance(
        self, steps: int, wanted: Collection[int], resting: Collection[int] = ()
    ) -> dict[int, tuple[str, int]]:
        self._check()
        self.started.set()
        assert self.gate.wait(10), "the gate was never opened"
        moving = [slot for slot in self.rows if self._left(slot) > 0 and slot not in resting]
        self.dispatches.append((steps, frozenset(self.rows[slot][0].name for slot in moving)))
        for slot in moving:
            request, taken = self.rows[slot]
            if request.poison == "advance":
                self.broken = True
                raise ValueError(f"{request.name} is poisoned")
            self.rows[slot] = (request, min(request.steps_left, taken + steps))
        return {slot: (self.rows[slot][0].name, self.rows[slot][1]) for slot in wanted}

    def release(self, slot: int) -> None:
        self._check()
        assert self._left(slot) > 0, "it ended by itself"
        del self.rows[slot]

    def reset(self) -> None:
        if self.refuse_resets:
            self.refuse_resets -= 1
            raise OSError("no device")
        self.rows.clear()
        self.broken = False
        self.resets += 1

    def _left(self, slot: int) -> int:
        request, taken = self.rows[slot]
        return request.steps_left - taken

    def _check(self) -> None:
        self.threads.add(threading.current_thread().name)
        if self.broken:
            raise RuntimeError("used after a failure without a reset")


@pytest.fixture
def fake_device() -> type[FakeDevice]:
    """The class of the device."""
    return FakeDevice


@pytest.fixture
def countdown() -> type[Countdown]:
    """The class of its requests."""
    return Countdown


class Tokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Answers Decode, refuses Encode, and never ends GetStatus."""

    async def Decode(self, request: Any, context: Any) -> tokenizer_pb2.DecodeResponse:
        return tokenizer_pb2.DecodeResponse()

    async def Encode(self, request: Any, context: Any) -> tokenizer_pb2.EncodeResponse:
        raise invalid_field("pixels", expected="a picture", got="none")

    async def GetStatus(self, request: Any, context: Any) -> tokenizer_pb2.GetStatusResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def nothing() -> None:
    """Warms up and closes nothing."""


SERVICE = Service(
    name="tokenizer",
    servicer=Tokenizer(),
    warm_up=nothing,
    close=nothing,
)


@pytest.fixture
def calling() -> Callable[[], AbstractAsyncContextManager[tuple[Any, grpc.aio.Channel]]]:
    """Returns a context manager that runs a tokenizer; yields its stub and its channel."""

    @asynccontextmanager
    async def calls() -> AsyncIterator[tuple[Any, grpc.aio.Channel]]:
        async with (
            running_server(SERVICE, ServerSettings()) as running,
            grpc.aio.insecure_channel(running.address) as channel,
        ):
            yield tokenizer_pb2_grpc.TokenizerServiceStub(channel), channel

    return calls
