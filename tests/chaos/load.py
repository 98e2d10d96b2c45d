"""Steady load: requests at a rate, each sent again as docs/clients.md says, and random cancels."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from muse_client import AsyncMuseClient, MuseError

from tests.chaos.checks import differing, may_be_retried
from tests.chaos.pictures import Quiet, Request
from tests.chaos.records import OK, Answer, Attempt

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0  # a growing pause, as docs/clients.md asks for
GIVE_UP_S = 180.0  # after which a caller tries no more


class Load:
    """Callers of one client, whose requests and cancels come at steady rates.

    Attributes:
        odd: Answers that took more than one attempt, or have other pictures than in quiet.
        answered: Requests that ended as OK.
        cancelled: Requests that were cancelled before their end.
    """

    def __init__(
        self,
        client: AsyncMuseClient,
        requests: Sequence[Request],
        quiet: Mapping[str, Quiet],
        *,
        seed: int,
        begun_s: float,
    ) -> None:
        """Creates idle callers; `begun_s` is the start of the run on the monotonic clock."""
        self.odd: list[Answer] = []
        self.answered = self.cancelled = 0
        self._client, self._requests, self._quiet = client, requests, quiet
        self._chance, self._begun_s, self._number = random.Random(seed), begun_s, 0

    def now_s(self) -> float:
        """Returns the seconds since the start of the run."""
        return time.monotonic() - self._begun_s

    async def send_steadily(self, a_second: float, ending: asyncio.Event) -> None:
        """Sends requests until `ending`, whether or not earlier ones have ended; awaits them."""
        await self._steadily(a_second, ending, self._send)

    async def cancel_steadily(self, a_second: float, ending: asyncio.Event) -> None:
        """Sends requests until `ending`, and cancels each at a random time of its life."""
        await self._steadily(a_second, ending, self._cancel)

    async def _steadily(
        self,
        a_second: float,
        ending: asyncio.Event,
        work: Callable[[Request], Coroutine[Any, Any, None]],
    ) -> None:
        if a_second <= 0:
            return
        next_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not ending.is_set():
                group.create_task(work(self._chance.choice(self._requests)))
                next_s += 1 / a_second
                pause_s = max(0.0, next_s - time.monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(ending.wait(), pause_s)

    async def _send(self, request: Request) -> None:
        number, attempts = self._next_number(), list[Attempt]()
        pause_s, give_up_s = FIRST_PAUSE_S, self.now_s() + GIVE_UP_S
        while True:
            attempt, digests = await self._attempt(request)
            attempts.append(attempt)
            if not may_be_retried(attempt) or self.now_s() > give_up_s:
                break
            await asyncio.sleep(attempt.retry_after_s or pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._keep(number, request, attempts, digests)

    async def _cancel(self, request: Request) -> None:
        after_s = self._chance.uniform(0, 1.2 * self._quiet[request.name].took_s)
        calling = asyncio.create_task(self._attempt(request))
        await asyncio.wait({calling}, timeout=after_s)
        if calling.done():  # before it could be cancelled
            attempt, digests = calling.result()
            if not may_be_retried(attempt):  # who cancels does not try again
                self._keep(self._next_number(), request, [attempt], digests)
            return
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        self.cancelled += 1

    async def _attempt(self, request: Request) -> tuple[Attempt, dict[str, str]]:
        begin_s, digests = self.now_s(), dict[str, str]()
        code, message, retry_after_s = OK, "", None
        task = asyncio.current_task()
        try:
            digests = await request.send(self._client)
        except MuseError as error:
            code, message, retry_after_s = error.code.name, error.message, error.retry_after_s
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            code, message = "CancelledError", "the client raised it, but the caller did not cancel"
        except Exception as error:  # a client must raise nothing else: recorded, and a violation
            code, message = type(error).__name__, str(error)
        attempt = Attempt(
            begin_s=begin_s,
            end_s=self.now_s(),
            code=code,
            message=message,
            retry_after_s=retry_after_s,
        )
        return attempt, digests

    def _keep(
        self,
        number: int,
        request: Request,
        attempts: Sequence[Attempt],
        digests: Mapping[str, str],
    ) -> None:
        """Counts an answer, and keeps it if a check has to look at it."""
        good = attempts[-1].code == OK
        self.answered += good
        wrong = good and differing(self._quiet[request.name].digests, digests)
        if wrong or not good or len(attempts) > 1:
            answer = Answer(
                number=number, request=request.name, attempts=tuple(attempts), digests=digests
            )
            self.odd.append(answer)

    def _next_number(self) -> int:
        self._number += 1
        return self._number
