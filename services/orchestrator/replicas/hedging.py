"""A second copy of a call that takes unusually long, to another replica: the first answer counts.

A stage gives the same answer to the same request wherever it is asked, so a second copy costs its
compute and nothing else. It is sent where the first one has waited longer than 99 of 100 calls like
it do, within a budget, and only to a replica where nobody waits.

Source: Dean and Barroso 2013, "The tail at scale", section "Hedged requests".
"""

import asyncio
import logging
import time
from bisect import bisect_left, insort_right
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

import grpc

from services.orchestrator.replicas.replica import Method, Replica
from services.orchestrator.replicas.work import gives_up, kind_of, work_before_answer
from services.runtime.observability import span_attributes
from services.runtime.observability.call_spans import client_span_attributes
from services.runtime.observability.instruments import HEDGES, Copy

logger = logging.getLogger(__name__)
USUAL = 0.99  # share of calls that wait less than one that gets a second copy
REMEMBERED = 500  # calls of a kind, the newest
ENOUGH = 100  # of them, before any is called unusual
MOST_SAVED = 3.0  # second copies that a quiet time can save up
ASKING_S = 0.5  # a replica that takes longer to say who waits there gets no copy


class UsualWaits:
    """How long calls of a kind waited lately for their first answer, for each unit of work."""

    def __init__(self) -> None:
        """Knows of none."""
        self._newest: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, wait_s: float) -> None:
        """Takes note of one; forgets the oldest of too many."""
        if len(self._newest) == REMEMBERED:
            del self._ordered[bisect_left(self._ordered, self._newest.popleft())]
        self._newest.append(wait_s)
        insort_right(self._ordered, wait_s)

    def longest_s(self) -> float | None:
        """Returns what `USUAL` of them did not exceed; None before there are `ENOUGH`."""
        if len(self._ordered) < ENOUGH:
            return None
        return self._ordered[ceil(USUAL * len(self._ordered)) - 1]


class Budget:
    """How many calls may have a second copy: a share of all."""

    def __init__(self, share: float) -> None:
        """Has nothing saved.

        Args:
            share: Of the calls.
        """
        self._share, self._saved = share, 0.0

    def earn(self) -> None:
        """Takes note of a call."""
        self._saved = min(MOST_SAVED, self._saved + self._share)

    def spend(self) -> bool:
        """Returns whether there is enough for a copy, which is then spent."""
        if self._saved < 1 - 1e-9:  # a share is added up in many small parts
            return False
        self._saved -= 1
        return True

    def restore(self) -> None:
        """Takes back what was spent on a copy that was not sent."""
        self._saved = min(MOST_SAVED, self._saved + 1)


@dataclass(frozen=True)
class Hedging:
    """What the calls of a stage have in common that may have a second copy.

    Attributes:
        stage: Whom they call.
        budget: How many may.
        waiting: Asks a replica how many requests wait there.
        usual: How long each kind of call waits.
    """

    stage: str
    budget: Budget
    waiting: Callable[[Replica, float], Awaitable[int]]
    usual: dict[Hashable, UsualWaits] = field(default_factory=dict)

    def waits_of(self, method: Method, request: Any) -> UsualWaits:
        """Returns how long calls like this one wait."""
        return self.usual.setdefault((method.name, kind_of(request)), UsualWaits())

    async def free(self, replica: Replica) -> bool:
        """Asks a replica whether nobody waits there; one that does not say is not free."""
        try:
            return await self.waiting(replica, ASKING_S) == 0
        except grpc.aio.AioRpcError:
            return False
        except asyncio.CancelledError:
            # gRPC may raise this also when the other side cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False

    def tell(self, outcome: Copy, first: Replica, second: Replica) -> None:
        """Counts a call that had a second copy."""
        HEDGES.add(1, target=self.stage, answer=outcome)
        extra = {"stage": self.stage, "answer": outcome}
        logger.info("hedged", extra={**extra, "first": first.address, "second": second.address})


class _Copy:
    """A call that was sent to one replica."""

    def __init__(
        self, replica: Replica, method: Method, request: Any, timeout: float | None
    ) -> None:
        self.replica, self.notes = replica, span_attributes.Attributes()
        with client_span_attributes(self.notes):
            self.call = replica.call(method, request, timeout)
        self._streams = method.kind == "unary_stream"

    async def read(self) -> Any:
        """Returns the answer; of a stream the next one, or `grpc.aio.EOF`."""
        return await (self.call.read() if self._streams else self.call)


_Reading: TypeAlias = asyncio.Task[tuple[_Copy, Any] | None]


class HedgedCall:
    """A call, as gRPC's own stubs return it: to be awaited, or iterated over, and cancelled."""

    def __init__(
        self,
        hedging: Hedging,
        method: Method,
        request: Any,
        timeout: float | None,
        first: Replica,
        another: Callable[[], Replica | None],
    ) -> None:
        """Begins the call.

        Args:
            hedging: What it has in common with others.
            method: Which.
            request: What it is given.
            timeout: Seconds it may take.
            first: Whom to ask.
            another: Says whom to ask as well, if that takes long.
        """
        self._hedging, self._method, self._request = hedging, method, request
        self._timeout, self._another = timeout, another
        self._begun_s = time.monotonic()
        self._first = _Copy(first, method, request, timeout)
        self._second: _Copy | None = None
        hedging.budget.earn()

    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the answer of a call that has one."""
        return self._answer().__await__()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        """Reads the answers of a call that has several."""
        return self._answers()

    def cancel(self) -> bool:
        """Ends the call; returns whether that was still to be done."""
        ended: bool = self._first.call.cancel()
        if self._second is not None:
            ended = self._second.call.cancel() or ended
        return ended

    async def _answer(self) -> Any:
        try:
            return (await self._first_answer())[1]
        finally:
            self.cancel()

    async def _answers(self) -> AsyncGenerator[Any, None]:
        try:
            copy, answer = await self._first_answer()
            while answer is not grpc.aio.EOF:
                yield answer
                answer = await copy.read()
        finally:
            self.cancel()

    async def _first_answer(self) -> tuple[_Copy, Any]:
        """Returns the copy that answered first and what it said; the other one is cancelled.

        Raises:
            grpc.aio.AioRpcError: no copy was answered; of two errors the one that came first.
        """
        waits = self._hedging.waits_of(self._method, self._request)
        work, usual_s = work_before_answer(self._request), waits.longest_s()
        if usual_s is None:
            answered = await self._read(self._first)
        else:
            answered = await self._raced(work * usual_s)
        if not gives_up(answered[1]):
            waits.add((time.monotonic() - self._begun_s) / work)
        return answered

    async def _read(self, copy: _Copy) -> tuple[_Copy, Any]:
        return copy, await copy.read()

    async def _raced(self, patience_s: float) -> tuple[_Copy, Any]:
        racing: list[_Reading] = [asyncio.create_task(self._read(self._first))]
        outcome: Copy = "neither"
        try:
            await asyncio.wait(racing, timeout=self._begun_s + patience_s - time.monotonic())
            if not racing[0].done():
                racing.append(asyncio.create_task(self._read_second()))
            ended = await _first_good(racing)
            answered = ended.result()
            assert answered is not None  # as `_first_good` says
            if _is_good(ended):
                outcome = "first" if answered[0] is self._first else "second"
            return answered
        finally:
            for reading in racing:
                reading.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
            if self._second is not None:
                for copy, name in ((self._first, "first"), (self._second, "second")):
                    if outcome not in (name, "neither"):
                        copy.call.cancel()
                self._hedging.tell(outcome, self._first.replica, self._second.replica)

    async def _read_second(self) -> tuple[_Copy, Any] | None:
        """Sends a second copy and reads its answer; None if none is to be sent."""
        hedging = self._hedging
        if not hedging.budget.spend():
            return None
        try:
            replica = self._another()
            if replica is None or not await hedging.free(replica):
                return None
            left_s = self._timeout
            if left_s is not None:
                left_s = max(0.0, self._begun_s + left_s - time.monotonic())
            self._second = _Copy(replica, self._method, self._request, left_s)
        finally:
            if self._second is None:
                hedging.budget.restore()
        self._first.notes.update(span_attributes.hedged("first"))
        self._second.notes.update(span_attributes.hedged("second"))
        return await self._read(self._second)


def _is_good(ended: _Reading) -> bool:
    if ended.cancelled() or ended.exception() is not None:
        return False
    answered = ended.result()
    return answered is not None and not gives_up(answered[1])


async def _first_good(racing: Sequence[_Reading]) -> _Reading:
    """Returns who reads a good answer first, or if nobody does, who first ended without one."""
    pending, failed = set(racing), None
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for reading in (each for each in racing if each in done):
            if _is_good(reading):
                return reading
            sent = reading.cancelled() or reading.exception() or reading.result() is not None
            failed = failed or (reading if sent else None)
    assert failed is not None  # the first copy was sent
    return failed
