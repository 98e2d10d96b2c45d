"""Jobs of a gateway: adds and describes them, runs them, delivers their webhooks, removes them."""

import asyncio
import re
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from muse_client import AsyncMuseClient
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagate import inject
from sqlalchemy.exc import SQLAlchemyError

from services.gateway.errors import FAILED, REFUSED, ApiError
from services.gateway.jobs.callers import JobCaller
from services.gateway.jobs.credentials import CredentialSeal
from services.gateway.jobs.database.connections import connect
from services.gateway.jobs.database.deliveries import Deliveries
from services.gateway.jobs.database.jobs import Jobs, NewJob, QueueFull
from services.gateway.jobs.database.tables import JobRow
from services.gateway.jobs.dispatch import Dispatcher
from services.gateway.jobs.metrics import JobMetrics
from services.gateway.jobs.models import event_of
from services.gateway.jobs.pictures import PictureStore
from services.gateway.jobs.requests import JobRequest
from services.gateway.jobs.runner import JobRunner
from services.gateway.jobs.settings import JobSettings
from services.gateway.jobs.webhooks.addresses import AllowedHosts, check_url
from services.gateway.jobs.webhooks.delivery import WebhookSender
from services.gateway.jobs.webhooks.signatures import read_secrets
from services.gateway.openai.requests import LARGEST_DRAWN

POLL_S = 1.0  # between two looks for jobs of other gateways, and for webhooks that are due
REMOVAL_POLL_S = 30.0
COUNT_S = 5.0  # between two counts of the jobs that wait
WEBHOOKS_AT_ONCE, QUEUE_RETRY_S = 8, 10
ID = re.compile("[0-9a-f]{32}")


class JobService:
    """Jobs of a gateway."""

    def __init__(
        self, client: AsyncMuseClient, settings: JobSettings, meters: MeterProvider
    ) -> None:
        """Does nothing yet; `running` does.

        Args:
            client: Calls the orchestrator, with the credential of each job.
            settings: Of jobs, with a database that has the tables of this version.
            meters: Provider of the meters that measure the jobs.

        Raises:
            ValueError: a setting names what cannot be used.
        """
        self._settings = settings
        self._allowed = AllowedHosts(settings.webhook_allowed)
        secret_file = settings.webhook_secret_file
        self._secrets = () if secret_file is None else read_secrets(secret_file)
        self._pictures = PictureStore(settings.pictures_url)
        self._seal = CredentialSeal(settings.key_file, create=settings.jobs_key_file is None)
        self._engine = connect(settings.database_url)
        self._jobs = Jobs(self._engine, event_of)
        self._metrics = JobMetrics(meters)
        runner = JobRunner(
            client,
            self._jobs,
            self._pictures,
            self._seal,
            self._metrics,
            lease_s=settings.jobs_lease_s,
            retry_s=settings.jobs_retry_s,
        )
        sender = WebhookSender(
            Deliveries(self._engine),
            self._secrets,
            self._allowed,
            self._metrics,
            retry_s=settings.webhook_retry_s,
            attempts=settings.webhook_attempts,
        )
        poll_s = min(POLL_S, settings.jobs_lease_s / 3)
        self._runs = Dispatcher(
            lambda: self._jobs.claim(settings.jobs_lease_s),
            runner.run,
            at_once=settings.jobs_running,
            poll_s=poll_s,
        )
        self._webhooks = Dispatcher(
            sender.claim,
            sender.send,
            at_once=WEBHOOKS_AT_ONCE,
            poll_s=min(poll_s, settings.webhook_retry_s),
        )
        self._removals = Dispatcher(
            lambda: self._jobs.expired(settings.jobs_kept_s),
            self._remove,
            at_once=1,
            poll_s=min(REMOVAL_POLL_S, settings.jobs_kept_s / 3),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs jobs for the block; those in progress at its end wait for another gateway."""
        loops = [self._runs.run(), self._removals.run(), self._count()]
        if self._secrets:
            loops.append(self._webhooks.run())
        tasks = [asyncio.create_task(each) for each in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._engine.dispose()

    async def add(self, caller: JobCaller, request: JobRequest, key: str | None) -> JobRow:
        """Returns the job of a request: a new one, unless it came before.

        Args:
            caller: Whose job it is.
            request: What is asked for.
            key: By which the caller recognises the request; None for a request of its own.

        Raises:
            ApiError: the request is refused; as many jobs wait as may.
            MuseError: a value does not fit its field.
        """
        known = await self._jobs.of_key(caller.id, key)
        if known is None:
            request.check()
            await self._check_webhook(request.body.webhook)
            known = await self._new(caller, request, key)
        if known.digest != request.digest:
            raise ApiError(
                422,
                f"Idempotency-Key: expected the request that came with {key!r} before, got "
                "another one: give it a key of its own",
                code="idempotency_key_reused",
                param="Idempotency-Key",
            )
        return known

    async def find(self, caller: JobCaller, job_id: str) -> tuple[JobRow, int | None]:
        """Returns a job of a caller, and its place in the queue if it waits.

        Raises:
            ApiError: the caller has no such job.
        """
        # PostgreSQL takes not every text for one.
        job = await self._jobs.find(caller.id, job_id) if ID.fullmatch(job_id) else None
        if job is None:
            raise ApiError(404, "no such job of this caller", code="not_found", param="id")
        return job, await self._jobs.place(job) if job.state == "queued" else None

    async def cancel(self, caller: JobCaller, job_id: str) -> JobRow:
        """Cancels a job that has not ended, and returns it.

        Raises:
            ApiError: the caller has no such job.
        """
        job, _ = await self.find(caller, job_id)
        if cancelled := await self._jobs.cancel(caller.id, job.id):
            self._metrics.ended(cancelled)
        self._webhooks.wake()
        job, _ = await self.find(caller, job_id)
        return job

    async def picture(self, caller: JobCaller, job_id: str, number: int) -> tuple[bytes, str]:
        """Returns a picture of a job, and the format of its file.

        Raises:
            ApiError: the caller has no such job, or it no such picture.
        """
        job, _ = await self.find(caller, job_id)
        if job.result is None or number >= len(job.result["images"]):
            raise ApiError(404, "the job has no such picture", code="not_found", param="number")
        try:
            content = await self._pictures.read(f"{job.id}/{job.run}/{number}")
        except FileNotFoundError:  # the job has just expired
            raise ApiError(404, "the picture is gone", code="not_found", param="number") from None
        return content, job.request.get("output_format", "png")

    async def _check_webhook(self, url: str | None) -> None:
        if url is None:
            return
        if not self._secrets:
            raise ApiError(
                501,
                "webhook: expected none: this gateway has no --webhook-secret-file to sign it by",
                FAILED,
                "not_served",
                "webhook",
            )
        await check_url(url, self._allowed)

    async def _new(self, caller: JobCaller, request: JobRequest, key: str | None) -> JobRow:
        body, job_id, trace = request.body, uuid.uuid4().hex, dict[str, Any]()
        fields = body.model_dump(
            mode="json", exclude={"operation", "webhook"}, exclude_defaults=True
        )
        fields.setdefault("seed", secrets.randbelow(LARGEST_DRAWN))  # the same in every run
        inject(trace)
        job = NewJob(
            id=job_id,
            caller=caller.id,
            idempotency_key=key,
            digest=request.digest,
            operation=body.operation,
            request=fields,
            files=list(request.files),
            credential=self._seal.sealed(caller.credential),
            trace=trace,
            webhook=body.webhook,
        )
        added: JobRow | None = None
        try:
            for name, content in request.files.items():
                await self._pictures.write(f"{job_id}/{name}", content)
            added = await self._jobs.add(
                job,
                most=self._settings.jobs_queued,
                most_of_caller=self._settings.jobs_queued_per_caller,
            )
        except QueueFull as full:
            retry = {"Retry-After": str(QUEUE_RETRY_S)}
            raise ApiError(429, str(full), REFUSED, "queue_full", headers=retry) from None
        finally:
            if request.files and (added is None or added.id != job_id):
                await self._pictures.remove(job_id)
        self._runs.wake()
        return added

    async def _count(self) -> None:
        """Counts the jobs that wait, again and again, for the gauge."""
        while True:
            try:
                self._metrics.queued = await self._jobs.queued()
            except (SQLAlchemyError, OSError):  # said where jobs are claimed
                self._metrics.queued = None
            await asyncio.sleep(COUNT_S)

    async def _remove(self, job: JobRow) -> None:
        await self._pictures.remove(job.id)
        await self._jobs.remove(job)
