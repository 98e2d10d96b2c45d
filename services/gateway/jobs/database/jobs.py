"""Jobs in the database: every change of one is a statement that other gateways cannot come between.

A run of a job has an id of its own. What a run writes counts only while the job is still in that
run: not after its lease ended and another gateway took the job up, nor after its caller cancelled.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, delete, func, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.sql.elements import ColumnElement

from services.gateway.jobs.database.clock import database_now
from services.gateway.jobs.database.connections import lock
from services.gateway.jobs.database.tables import DeliveryRow, JobRow, State

OPEN = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to add; the fields are those of `JobRow`."""

    id: str
    caller: str
    idempotency_key: str | None
    digest: str
    operation: str
    request: dict[str, Any]
    files: list[str]
    credential: str | None
    trace: dict[str, str]
    webhook: str | None


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job ended; the fields are those of `JobRow`."""

    state: State
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class QueueFull(Exception):
    """As many jobs wait as may; the message says whose."""


class Jobs:
    """The jobs of a database."""

    def __init__(self, engine: AsyncEngine, event_of: Callable[[JobRow], str]) -> None:
        """Works with a database whose tables are there.

        Args:
            engine: Connections to it.
            event_of: Returns the body of the webhook of a job that ended.
        """
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._event_of = event_of

    async def add(self, job: NewJob, *, most: int, most_of_caller: int) -> JobRow:
        """Adds a job, unless its key is known already: then returns the job of that key.

        Args:
            job: To be added.
            most: Jobs that may wait.
            most_of_caller: Jobs of its caller that may wait.

        Raises:
            QueueFull: as many wait.
        """
        async with self._sessions.begin() as session:
            await session.run_sync(lambda each: lock(each.connection()))
            known = await self._of_key(session, job.caller, job.idempotency_key)
            if known is not None:
                return known
            await self._check_room(session, job.caller, most, most_of_caller)
            row = JobRow(
                **vars(job),
                state="queued",
                created_s=database_now(),
                not_before_s=database_now(),
                losses=0,
            )
            session.add(row)
            await session.flush()
            await session.refresh(row)
            return row

    async def of_key(self, caller: str, idempotency_key: str | None) -> JobRow | None:
        """Returns the job that a caller added with a key; None if there is none."""
        async with self._sessions.begin() as session:
            return await self._of_key(session, caller, idempotency_key)

    async def find(self, caller: str, job_id: str) -> JobRow | None:
        """Returns a job of a caller; None if there is none."""
        query = select(JobRow).where(JobRow.id == job_id, JobRow.caller == caller)
        async with self._sessions.begin() as session:
            return await session.scalar(query)

    async def place(self, job: JobRow) -> int:
        """Returns the place of a job in the queue: 1 for the first."""
        ahead = and_(JobRow.state == "queued", JobRow.number < job.number)
        async with self._sessions.begin() as session:
            return 1 + await self._count(session, ahead)

    async def claim(self, lease_s: float) -> JobRow | None:
        """Begins a run of the job that is next, or whose run was lost; None if there is none."""
        waiting = and_(JobRow.state == "queued", JobRow.not_before_s <= database_now())
        lost = and_(JobRow.state == "running", JobRow.lease_until_s < database_now())
        following = (
            select(JobRow.number)
            .where(or_(waiting, lost))
            .order_by(JobRow.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        begun = (
            update(JobRow)
            .where(JobRow.number == following.scalar_subquery())
            .values(
                state="running",
                run=uuid.uuid4().hex,
                started_s=database_now(),
                lease_until_s=database_now() + lease_s,
                losses=JobRow.losses + case((JobRow.state == "running", 1), else_=0),
            )
            .returning(JobRow)
            .execution_options(synchronize_session=False)
        )
        async with self._sessions.begin() as session:
            return await session.scalar(begun)

    async def keep(self, job: JobRow, progress: dict[str, Any] | None, lease_s: float) -> bool:
        """Prolongs the lease of a run; returns whether the job is still in it."""
        return await self._change(job, progress=progress, lease_until_s=database_now() + lease_s)

    async def put_back(self, job: JobRow, pause_s: float = 0.0) -> None:
        """Ends a run so that another may begin after a pause."""
        await self._change(
            job, state="queued", progress=None, not_before_s=database_now() + pause_s
        )

    async def finish(self, job: JobRow, end: End) -> JobRow | None:
        """Ends a job with its run and returns it; None if the job was no longer in that run."""
        return await self._end(_in_run(job), end)

    async def cancel(self, caller: str, job_id: str) -> JobRow | None:
        """Cancels a job of a caller and returns it; None if it is not there or has ended."""
        own = and_(JobRow.id == job_id, JobRow.caller == caller, JobRow.state.in_(OPEN))
        return await self._end(own, End(state="cancelled"))

    async def queued(self) -> int:
        """Returns how many jobs wait."""
        async with self._sessions.begin() as session:
            return await self._count(session, JobRow.state == "queued")

    async def expired(self, kept_s: float) -> JobRow | None:
        """Returns a job that ended long ago; None if there is none."""
        query = select(JobRow).where(JobRow.finished_s < database_now() - kept_s).limit(1)
        async with self._sessions.begin() as session:
            return await session.scalar(query)

    async def remove(self, job: JobRow) -> None:
        """Removes a job and the deliveries of its webhook."""
        async with self._sessions.begin() as session:
            await session.execute(delete(JobRow).where(JobRow.number == job.number))

    async def _end(self, condition: ColumnElement[bool], end: End) -> JobRow | None:
        ended = (
            update(JobRow)
            .where(condition)
            .values(**vars(end), credential=None, progress=None, finished_s=database_now())
            .returning(JobRow)
            .execution_options(synchronize_session=False)
        )
        async with self._sessions.begin() as session:
            row = await session.scalar(ended)
            if row is not None and row.webhook is not None:
                session.add(
                    DeliveryRow(
                        id=f"evt_{row.id}",  # a job ends once
                        job=row.number,
                        url=row.webhook,
                        body=self._event_of(row),
                        state="pending",
                        attempts=0,
                        due_s=database_now(),
                    )
                )
            return row

    async def _change(self, job: JobRow, **values: Any) -> bool:
        changed = update(JobRow).where(_in_run(job)).values(**values)
        async with self._sessions.begin() as session:
            done = await session.execute(changed.execution_options(synchronize_session=False))
            assert isinstance(done, CursorResult)
            return done.rowcount == 1

    async def _of_key(
        self, session: AsyncSession, caller: str, idempotency_key: str | None
    ) -> JobRow | None:
        if idempotency_key is None:
            return None
        return await session.scalar(
            select(JobRow).where(JobRow.caller == caller, JobRow.idempotency_key == idempotency_key)
        )

    async def _check_room(
        self, session: AsyncSession, caller: str, most: int, most_of_caller: int
    ) -> None:
        queued = JobRow.state == "queued"
        if await self._count(session, queued) >= most:
            raise QueueFull(f"all {most} jobs that may wait do")
        if await self._count(session, and_(queued, JobRow.caller == caller)) >= most_of_caller:
            raise QueueFull(f"all {most_of_caller} jobs of one caller that may wait do")

    async def _count(self, session: AsyncSession, condition: ColumnElement[bool]) -> int:
        return await session.scalar(select(func.count()).where(condition)) or 0


def _in_run(job: JobRow) -> ColumnElement[bool]:
    return and_(JobRow.number == job.number, JobRow.run == job.run, JobRow.state == "running")
