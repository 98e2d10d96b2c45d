"""That the four stages are there and were trained together: asked once, then remembered."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageStatus

from services.orchestrator.calls import Deadline, Retries
from services.orchestrator.stage_clients import Heard, Resolution, StageClients
from services.runtime.wire.errors import RequestError, failed_precondition, unavailable
from services.stages import STAGES

logger = logging.getLogger(__name__)
REFRESH_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What all stages said when they agreed.

    Attributes:
        statuses: Of each stage, by name.
        defaults: Default knobs of each stage that decodes, by name.
        resolutions: Of the tokenizers, by the role of their codebook.
    """

    statuses: Mapping[str, StageStatus]
    defaults: Mapping[str, Sampling]
    resolutions: Mapping[str, Resolution]


class Agreement:
    """Remembers what the stages agreed on, so that a request need not ask each of them.

    They are asked again when there is reason to doubt: a call failed as it does when a stage is
    away or serves something else, a replica came or went (one that restarts may come back with
    another checkpoint), or the last answer is `refresh_s` old. Between two answers nothing wrong
    can pass unseen, since every stage checks the fingerprints of what it is handed.
    """

    def __init__(self, stages: StageClients, *, refresh_s: float = REFRESH_S) -> None:
        """Knows nothing yet; the first request, or `watch`, asks.

        Args:
            stages: Whom to ask.
            refresh_s: Age from which an answer is asked for again, once `watch` was called.
        """
        self._stages, self._refresh_s = stages, refresh_s
        self._agreed: Agreed | None = None
        self._asking: asyncio.Task[Agreed] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._problem = ""

    async def found(self, deadline: Deadline) -> Agreed:
        """Returns what the stages agree on; asks them only if that is in doubt.

        Requests that come at once ask together. A stage that is away is asked again, as with any
        call, while time is left.

        Args:
            deadline: Of the request.

        Raises:
            RequestError: UNAVAILABLE: a stage is away. FAILED_PRECONDITION: two stages serve
                checkpoints that were not trained together. DEADLINE_EXCEEDED.
        """
        if self._agreed is not None:
            return self._agreed
        retries = Retries("stages", deadline)
        while True:
            async with retries as left_s:
                return await self._asked(left_s)

    def doubt(self) -> None:
        """Forgets: the next request asks anew, even if somebody is asking already."""
        self._agreed = self._asking = None

    def watch(self) -> None:
        """Starts to look out for replicas that come or go, and to refresh in the background."""
        self._stages.when_lost(self.doubt)
        self._refreshing = asyncio.create_task(self._refresh_for_ever())

    async def close(self) -> None:
        """Ends what `watch` started."""
        tasks = [task for task in (self._refreshing, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _asked(self, left_s: float | None) -> Agreed:
        if self._asking is None:
            asking = self._asking = asyncio.create_task(self._ask())
            asking.add_done_callback(self._remember)
        try:
            async with asyncio.timeout(left_s):
                return await asyncio.shield(self._asking)
        except TimeoutError as error:
            raise RequestError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the time was over before all stages answered"
            ) from error

    def _remember(self, asking: asyncio.Task[Agreed]) -> None:
        failed = asking.cancelled() or asking.exception() is not None
        if self._asking is asking:  # else it began before the doubt
            self._asking, self._agreed = None, None if failed else asking.result()

    async def _ask(self) -> Agreed:
        try:
            agreed = agreed_of(await self._stages.ask())
        except RequestError as error:
            if error.message != self._problem:
                logger.warning("the stages do not agree", extra={"problem": error.message})
            self._problem = error.message
            raise
        if self._problem:
            logger.info("the stages agree")
        self._problem = ""
        return agreed

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            with contextlib.suppress(RequestError):  # told in the log, and to the next request
                await self._asked(None)


def agreed_of(heard: list[Heard]) -> Agreed:
    """Returns what the stages agree on.

    Args:
        heard: What each said of itself.

    Raises:
        RequestError: UNAVAILABLE: a stage is away. FAILED_PRECONDITION: two stages serve
            checkpoints that were not trained together.
    """
    for report in (each.report for each in heard):
        if report.unavailable_reason or not report.serving:
            raise unavailable(
                f"{report.stage} at {report.address} is not serving: "
                f"{report.unavailable_reason or 'its health says NOT_SERVING'}"
            )
    statuses = {each.report.stage: each.report.status for each in heard}
    check_fingerprints(statuses)
    resolutions = {role: size for each in heard for role, size in each.resolutions.items()}
    return Agreed(
        statuses=statuses,
        defaults={each.report.stage: each.defaults for each in heard},
        resolutions=resolutions,
    )


def check_fingerprints(found: Mapping[str, StageStatus]) -> None:
    """Checks that the stages' checkpoints were trained together.

    Raises:
        RequestError: FAILED_PRECONDITION, with both names.
    """
    for stage in STAGES.values():
        for role, giver in stage.needs.items():
            needed = found[stage.name].fingerprints.get(role, "")
            theirs = found[giver].fingerprints
            given = [theirs[each] for each in STAGES[giver].gives if each in theirs]
            if needed not in given:
                raise failed_precondition(
                    f"{stage.name} needs {role} {needed or 'of no name'}, but {giver} serves "
                    f"{' and '.join(given) or 'none'}; serve checkpoints that were trained together"
                )
