"""Compatibility of the stages: all serve, and their checkpoints were trained together."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from muse.common.v1.decoding_pb2 import Sampling
from muse.common.v1.stage_pb2 import StageStatus
from muse.tokenizer.v1.tokenizer_pb2 import Resolution

from services.orchestrator.calls import Deadline, Retries
from services.orchestrator.stage_clients import StageAnswer, StageClients
from services.runtime.wire.errors import RequestError, failed_precondition, unavailable
from services.stages import DECODING, STAGES, StageName

logger = logging.getLogger(__name__)
REFRESH_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Compatible:
    """Statuses of stages that serve and were trained together.

    Attributes:
        statuses: Status of each stage, by name.
        defaults: Default sampling parameters of each stage that decodes, by name.
        edit_defaults: Those of the base's checkpoint for mask-free edits.
        codebooks: Fingerprint of the codebook of each stage that decodes, by name.
        resolutions: Resolution of the tokenizer of that codebook, by name of the stage.
    """

    statuses: Mapping[str, StageStatus]
    defaults: Mapping[StageName, Sampling]
    edit_defaults: Sampling
    codebooks: Mapping[StageName, str]
    resolutions: Mapping[StageName, Resolution]

    @property
    def adapters(self) -> set[str]:
        """Names of the adapters that base or superres has."""
        return {name for stage in self.defaults for name in self.statuses[stage].adapters}


class StageCompatibility:
    """A cache of the stages' compatibility, so that a request need not query every stage.

    The stages are queried again after `invalidate` (a call failed as it does when a stage is away
    or serves another checkpoint), after a replica came or went (it may restart with another
    checkpoint), and every `REFRESH_S`. A mismatch between two queries is still detected, since
    each stage checks the fingerprints of its inputs.
    """

    def __init__(self, stages: StageClients) -> None:
        """Starts with an empty cache."""
        self._stages = stages
        self._cached: Compatible | None = None
        self._query: asyncio.Task[Compatible] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._problem = ""

    async def get(self, deadline: Deadline) -> Compatible:
        """Returns the cached statuses; queries the stages if the cache is empty.

        Concurrent requests share one query. A stage that is away is queried again while time is
        left, as in any other call.

        Raises:
            RequestError: UNAVAILABLE: a stage is away. FAILED_PRECONDITION: two stages serve
                checkpoints that were not trained together. DEADLINE_EXCEEDED.
        """
        if self._cached is not None:
            return self._cached
        retries = Retries("stages", deadline)
        while True:
            async with retries as left_s:
                return await self._shared_query(left_s)

    def invalidate(self) -> None:
        """Empties the cache; a query in progress does not fill it."""
        self._cached = self._query = None

    def watch(self) -> None:
        """Starts to invalidate when replicas come or go, and to refresh in the background."""
        self._stages.on_change(self.invalidate)
        self._refreshing = asyncio.create_task(self._refresh_forever())

    async def close(self) -> None:
        """Cancels the tasks of this object."""
        tasks = [task for task in (self._refreshing, self._query) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _shared_query(self, left_s: float | None) -> Compatible:
        if self._query is None:
            query = self._query = asyncio.create_task(self._query_stages())
            query.add_done_callback(self._store)
        try:
            async with asyncio.timeout(left_s):
                return await asyncio.shield(self._query)
        except TimeoutError as error:
            raise RequestError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the time was over before all stages answered"
            ) from error

    def _store(self, query: asyncio.Task[Compatible]) -> None:
        failed = query.cancelled() or query.exception() is not None
        if self._query is query:  # otherwise it began before `invalidate`
            self._query, self._cached = None, None if failed else query.result()

    async def _query_stages(self) -> Compatible:
        try:
            compatible = check_compatibility(await self._stages.query())
        except RequestError as error:
            if error.message != self._problem:
                logger.warning("the stages are not compatible", extra={"problem": error.message})
            self._problem = error.message
            raise
        if self._problem:
            logger.info("the stages are compatible")
        self._problem = ""
        return compatible

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            with contextlib.suppress(RequestError):  # logged; the next request fails with it
                await self._shared_query(None)


def check_compatibility(answers: Sequence[StageAnswer]) -> Compatible:
    """Returns the statuses of the stages after checking that they fit together.

    Raises:
        RequestError: UNAVAILABLE: a stage is away. FAILED_PRECONDITION: two stages serve
            checkpoints that were not trained together.
    """
    for report in (each.report for each in answers):
        if report.unavailable_reason or not report.serving:
            raise unavailable(
                f"{report.stage} at {report.address} is not serving: "
                f"{report.unavailable_reason or 'its health says NOT_SERVING'}"
            )
    statuses = {each.report.stage: each.report.status for each in answers}
    check_fingerprints(statuses)
    responses = {each.report.stage: each.response for each in answers}
    defaults = {stage: responses[stage].defaults for stage in DECODING if stage in responses}
    return Compatible(
        statuses=statuses,
        defaults=defaults,
        edit_defaults=responses["base"].mask_free_edit_defaults,
        codebooks={stage: statuses[stage].fingerprints["codebook"] for stage in defaults},
        resolutions={
            stage: resolution_of(responses[stage], responses["tokenizer"]) for stage in defaults
        },
    )


def resolution_of(decoding: Any, tokenizer: Any) -> Resolution:
    """Returns the resolution at which the tokenizer decodes the tokens of a stage.

    Args:
        decoding: GetStatusResponse of base or superres.
        tokenizer: GetStatusResponse of the tokenizer.

    Returns:
        0 pixels if the tokenizer has another codebook, or does not report their number.
    """
    codebook = decoding.status.fingerprints["codebook"]
    for role, resolution in tokenizer.resolutions.items():
        if tokenizer.status.fingerprints.get(role) == codebook:
            return cast(Resolution, resolution)
    return Resolution()


def check_fingerprints(statuses: Mapping[str, StageStatus]) -> None:
    """Checks that the stages' checkpoints were trained together.

    Raises:
        RequestError: FAILED_PRECONDITION; the message has both fingerprints.
    """
    for stage in (each for each in STAGES.values() if each.name in statuses):
        for role, provider in stage.needs.items():
            needed = statuses[stage.name].fingerprints.get(role, "")
            fingerprints = statuses[provider].fingerprints
            given = [fingerprints[each] for each in STAGES[provider].gives if each in fingerprints]
            if needed not in given:
                raise failed_precondition(
                    f"{stage.name} needs {role} {needed or 'of no name'}, but {provider} serves "
                    f"{' and '.join(given) or 'none'}; serve checkpoints that were trained together"
                )
