"""One run of a job: the gRPC call, its progress, its lease, and what it made."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import muse_client
from muse_client import AsyncMuseClient, Event, MuseError
from opentelemetry import context
from opentelemetry.propagate import extract
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from services.gateway.errors import FAILED, ApiError, api_error
from services.gateway.jobs.credentials import CredentialSeal
from services.gateway.jobs.database.jobs import End, Jobs
from services.gateway.jobs.database.tables import JobRow
from services.gateway.jobs.metrics import JobMetrics
from services.gateway.jobs.models import JobProgress, result_of
from services.gateway.jobs.pictures import PictureStore
from services.gateway.jobs.requests import OPERATIONS
from services.gateway.native.answers import step_of, whole
from services.gateway.native.requests import ImageRequest

logger = logging.getLogger(__name__)
BEAT_S = 1.0  # between two looks at whether a job is still to run, at most
MAX_LOSSES = 3  # runs of one job that may be lost before it is taken for the reason
WAIT_SHARE, LONGEST_WAIT_S = 0.1, 60.0  # of its age, that a job waits after it was refused


class Progress:
    """The last step of a run.

    Attributes:
        latest: It, as it is stored; None before the first.
    """

    def __init__(self) -> None:
        """Starts before the first step."""
        self.latest: dict[str, Any] | None = None
        self._finished = 0

    async def watched(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Yields the events of a request, and remembers how far it is."""
        async with aclosing(events):
            async for event in events:
                if isinstance(event, muse_client.GeneratedImage):
                    self._finished += 1
                elif isinstance(event, muse_client.Progress):
                    step = step_of(event).model_dump()
                    self.latest = JobProgress(**step, finished=self._finished).model_dump()
                yield event


class JobRunner:
    """Runs jobs that this gateway has claimed."""

    def __init__(
        self,
        client: AsyncMuseClient,
        jobs: Jobs,
        pictures: PictureStore,
        seal: CredentialSeal,
        metrics: JobMetrics,
        *,
        lease_s: float,
        retry_s: float,
    ) -> None:
        """Runs nothing yet; `JobSettings` documents the numbers."""
        self._client, self._jobs, self._pictures, self._seal = client, jobs, pictures, seal
        self._metrics = metrics
        self._lease_s, self._retry_s = lease_s, retry_s

    async def run(self, job: JobRow) -> None:
        """Runs a job to its end, or until it was cancelled, or taken up by another gateway.

        If this is cancelled itself, the job waits for another run.
        """
        context.attach(extract(job.trace))  # of this task
        with self._metrics.run(job):
            await self._run(job)

    async def _run(self, job: JobRow) -> None:
        progress = Progress()
        making = asyncio.create_task(self._make(job, progress))
        keeping = asyncio.create_task(self._keep(job, progress))
        try:
            await asyncio.wait((making, keeping), return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                making.result()
            else:
                keeping.result()
                logger.info("job cancelled or taken up elsewhere", extra={"job": job.id})
        except asyncio.CancelledError:
            await _ended(making)
            await self._put_back(job)
            raise
        finally:
            await _ended(making, keeping)

    async def _make(self, job: JobRow, progress: Progress) -> None:
        """Has the pictures made, and records how that ended."""
        try:
            end = await self._end(job, progress)
        except MuseError as error:
            refusal = api_error(error)
            wait_s = self._wait_s(job, refusal)
            if wait_s is not None:
                logger.info("job put off", extra={"job": job.id, "problem": refusal.message})
                await self._put_back(job, wait_s)
                return
            end = _failed(refusal)
        if ended := await self._jobs.finish(job, end):
            self._metrics.ended(ended)
            problem = {} if end.error is None else {"problem": end.error["message"]}
            logger.info("job %s", end.state, extra={"job": job.id, **problem})

    async def _put_back(self, job: JobRow, pause_s: float = 0.0) -> None:
        await self._jobs.put_back(job, pause_s)
        self._metrics.put_back()

    async def _end(self, job: JobRow, progress: Progress) -> End:
        """Returns the end of a job, whose pictures are written.

        Raises:
            MuseError: the request was refused, or failed.
        """
        if job.losses > MAX_LOSSES:
            return _failed(_broken(f"the gateways that ran it were lost {job.losses} times"))
        try:
            request = OPERATIONS[job.operation].fields.model_validate(job.request)
        except (KeyError, ValidationError):  # whose text has the prompt
            return _failed(_broken("its request is one of another version of the gateway"))
        try:
            images = await whole(progress.watched(await self._events(job, request)), request)
            for number, each in enumerate(images.images):
                name = f"{job.id}/{job.run}/{number}"
                await self._pictures.write(name, base64.b64decode(each.image))
        except MuseError:
            raise
        except Exception:
            logger.exception("job failed", extra={"job": job.id})
            return _failed(_broken("the gateway failed; its log says why"))
        result = result_of(images, job.id).model_dump(mode="json", exclude_none=True)
        return End(state="succeeded", result=result)

    async def _events(self, job: JobRow, request: ImageRequest) -> AsyncGenerator[Event, None]:
        """Returns the events of the request of a job."""
        files = {name: await self._pictures.read(f"{job.id}/{name}") for name in job.files}
        options = request.options()
        options.update(request.edit(files))
        client = self._client.presenting(self._seal.opened(job.credential))
        return client.events(request.prompt, **options)

    def _wait_s(self, job: JobRow, refusal: ApiError) -> float | None:
        """Returns the pause before the next run of a job that was refused; None for no more."""
        assert job.started_s is not None
        age_s = job.started_s - job.created_s
        if "Retry-After" not in refusal.headers or age_s > self._retry_s:
            return None
        return max(float(refusal.headers["Retry-After"]), min(age_s * WAIT_SHARE, LONGEST_WAIT_S))

    async def _keep(self, job: JobRow, progress: Progress) -> None:
        """Prolongs the lease of a run; returns when the job is no longer in it."""
        kept_s = time.monotonic()
        while time.monotonic() - kept_s < self._lease_s:
            await asyncio.sleep(min(BEAT_S, self._lease_s / 3))
            try:
                if not await self._jobs.keep(job, progress.latest, self._lease_s):
                    return
                kept_s = time.monotonic()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("the lease of a job was not prolonged: %s", error)


def _failed(error: ApiError) -> End:
    return End(state="failed", error=error.body["error"])


def _broken(message: str) -> ApiError:
    return ApiError(500, message, FAILED, "internal")


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
