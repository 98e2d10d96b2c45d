"""Hedged calls: a slow call is sent to a second replica too, and the first response counts.

Every replica of a stage gives the same response to a request, so a second copy costs compute only.
A call is hedged once it has waited longer than 99% of recent calls like it, within a budget, and
only on a replica with an empty queue.

Source: Dean and Barroso 2013, "The tail at scale", section "Hedged requests".
"""

import asyncio
import logging
import time
from bisect import bisect_left, insort_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

import grpc

from services.orchestrator.calls import cancelled
from services.orchestrator.replicas.replica import Method, Replica
from services.orchestrator.replicas.work import is_preempted, latency_key, work_before_response
from services.runtime.observability import span_attributes
from services.runtime.observability.call_spans import client_span_attributes
from services.runtime.observability.instruments import COPIES, HEDGES, Copy
from services.stages import STAGES, StageName

logger = logging.getLogger(__name__)
HEDGE_PERCENTILE = 0.99  # share of calls that answer before a call like them is hedged
WINDOW = 500  # newest calls of each key
MIN_SAMPLES = 100  # calls of a key before any is hedged
MAX_SAVED = 3.0  # hedged calls that a quiet time can save up
QUERY_TIMEOUT_S = 0.5  # a replica that takes longer to report its queue gets no copy


class LatencyWindow:
    """Latencies of the newest calls of one key until their first response, per unit of work."""

    def __init__(self) -> None:
        """Starts empty."""
        self._newest: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, latency_s: float) -> None:
        """Adds a latency, and drops the oldest of a full window."""
        if len(self._newest) == WINDOW:
            del self._ordered[bisect_left(self._ordered, self._newest.popleft())]
        self._newest.append(latency_s)
        insort_right(self._ordered, latency_s)

    def latency_percentile_s(self) -> float | None:
        """Returns the latency at HEDGE_PERCENTILE; None before MIN_SAMPLES calls."""
        if len(self._ordered) < MIN_SAMPLES:
            return None
        return self._ordered[ceil(HEDGE_PERCENTILE * len(self._ordered)) - 1]


class Budget:
    """Budget of hedged calls: a share of all calls."""

    def __init__(self, share: float) -> None:
        """Starts empty; each call adds `share`, 0 to 1, of a hedged call."""
        self._share, self._saved = share, 0.0

    def earn(self) -> None:
        """Adds the share of one call."""
        self._saved = min(MAX_SAVED, self._saved + self._share)

    def spend(self) -> bool:
        """Takes one hedged call from the budget; returns False if the budget is too small."""
        if self._saved < 1 - 1e-9:  # the sum of many small shares is rounded
            return False
        self._saved -= 1
        return True

    def restore(self) -> None:
        """Returns one hedged call that was not sent to the budget."""
        self._saved = min(MAX_SAVED, self._saved + 1)


@dataclass(frozen=True)
class Hedging:
    """Hedging policy of one stage.

    Attributes:
        stage: Name of the stage.
        budget: Budget of hedged calls.
        windows: Latencies by method and `latency_key`.
    """

    stage: StageName
    budget: Budget
    windows: dict[Hashable, LatencyWindow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for outcome in COPIES:  # so that rates start at an explicit 0
            HEDGES.add(0, target=self.stage, answer=outcome)

    def window(self, method: Method, request: Any) -> LatencyWindow:
        """Returns the latencies of calls like this one."""
        return self.windows.setdefault((method.name, latency_key(request)), LatencyWindow())

    async def is_idle(self, replica: Replica) -> bool:
        """Returns whether a replica answers, and that its queue is empty."""
        stage = STAGES[self.stage]
        try:
            answer = await stage.stub(replica.channel).GetStatus(
                stage.status_request(), timeout=QUERY_TIMEOUT_S
            )
            return bool(answer.status.queued == 0)
        except grpc.aio.AioRpcError:
            return False
        except asyncio.CancelledError:
            if cancelled():
                raise
            return False

    def record(self, outcome: Copy, first: Replica, second: Replica) -> None:
        """Counts and logs a hedged call by the copy that answered first."""
        HEDGES.add(1, target=self.stage, answer=outcome)
        extra = {"stage": self.stage, "answer": outcome}
        logger.info("hedged", extra={**extra, "first": first.address, "second": second.address})


class _Copy:
    """One copy of a hedged call, sent to one replica."""

    def __init__(
        self, replica: Replica, method: Method, request: Any, timeout: float | None
    ) -> None:
        self.replica, self.attributes = replica, span_attributes.Attributes()
        with client_span_attributes(self.attributes):
            self.call = replica.call(method, request, timeout)
        self._streams = method.kind == "unary_stream"

    async def read(self) -> Any:
        """Returns the response; of a stream, the next response or `grpc.aio.EOF`."""
        return await (self.call.read() if self._streams else self.call)


_Reading: TypeAlias = asyncio.Task[tuple[_Copy, Any] | None]


class HedgedCall:
    """A call that may be hedged; awaited, iterated and cancelled as the calls of gRPC's stubs."""

    def __init__(
        self,
        hedging: Hedging,
        method: Method,
        request: Any,
        timeout: float | None,
        first: Replica,
        choose_second: Callable[[], Replica | None],
    ) -> None:
        """Sends the first copy; `choose_second` returns the replica of a second one, or None."""
        self._hedging, self._method, self._request = hedging, method, request
        self._timeout, self._choose_second = timeout, choose_second
        self._begun_s = time.monotonic()
        self._first = _Copy(first, method, request, timeout)
        self._second: _Copy | None = None
        hedging.budget.earn()

    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the response of a call with one response."""
        return self._answer().__await__()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        """Yields the responses of a streaming call."""
        return self._answers()

    def cancel(self) -> bool:
        """Cancels the call; returns False if it had ended before."""
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
        """Returns the copy that answered first and its response; cancels the other copy.

        Raises:
            grpc.aio.AioRpcError: both copies failed; this is the error that came first.
        """
        window = self._hedging.window(self._method, self._request)
        work, latency_s = work_before_response(self._request), window.latency_percentile_s()
        if latency_s is None:
            answered = await self._read(self._first)
        else:
            answered = await self._hedged(work * latency_s)
        if not is_preempted(answered[1]):
            window.add((time.monotonic() - self._begun_s) / work)
        return answered

    async def _read(self, copy: _Copy) -> tuple[_Copy, Any]:
        return copy, await copy.read()

    async def _hedged(self, hedge_delay_s: float) -> tuple[_Copy, Any]:
        racing: list[_Reading] = [asyncio.create_task(self._read(self._first))]
        outcome: Copy = "neither"
        try:
            await asyncio.wait(racing, timeout=self._begun_s + hedge_delay_s - time.monotonic())
            if not racing[0].done():
                racing.append(asyncio.create_task(self._read_second()))
            ended = await _first_good(racing)
            answered = ended.result()
            assert answered is not None  # `_first_good` returns no such task
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
                self._hedging.record(outcome, self._first.replica, self._second.replica)

    async def _read_second(self) -> tuple[_Copy, Any] | None:
        """Sends a second copy and returns its response; None if no copy is sent."""
        hedging = self._hedging
        if not hedging.budget.spend():
            return None
        try:
            replica = self._choose_second()
            if replica is None or not await hedging.is_idle(replica):
                return None
            left_s = self._timeout
            if left_s is not None:
                left_s = max(0.0, self._begun_s + left_s - time.monotonic())
            self._second = _Copy(replica, self._method, self._request, left_s)
        finally:
            if self._second is None:
                hedging.budget.restore()
        self._first.attributes.update(span_attributes.hedged("first"))
        self._second.attributes.update(span_attributes.hedged("second"))
        return await self._read(self._second)


def _is_good(ended: _Reading) -> bool:
    if ended.cancelled() or ended.exception() is not None:
        return False
    answered = ended.result()
    return answered is not None and not is_preempted(answered[1])


async def _first_good(racing: Sequence[_Reading]) -> _Reading:
    """Returns the first task with a good response, or else the first that failed."""
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
