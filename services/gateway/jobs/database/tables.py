"""Tables of jobs. A change of them needs a migration: see `migrations/`."""

from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up an INTEGER alone
Delivery = Literal["pending", "delivered", "failed"]


class Table(DeclarativeBase):
    """What all tables have in common."""


class JobRow(Table):
    """A job.

    Times are seconds since 1970 by the database's clock, which all gateways share.

    Attributes:
        number: Orders the jobs as they came.
        id: By which its caller asks for it.
        caller: Who it belongs to.
        idempotency_key: Of the request; None if it had none.
        digest: Of what was asked for, to compare with another request of the same key.
        operation: Such as "generate".
        request: Its fields, with the seed.
        files: Names of its files, which lie among the pictures.
        credential: Of the caller, encrypted, as long as the job may run.
        trace: Trace context of the request.
        state: Where it stands.
        created_s: When it came.
        not_before_s: When it may begin.
        started_s: When it last began; None before.
        finished_s: When it ended; None before.
        run: Id of its last run; names the folder of its pictures, too.
        lease_until_s: When its run counts as lost.
        losses: Runs that were lost.
        progress: Step it is at.
        result: What it made; None before.
        error: Why it failed; None if it did not.
        webhook: URL that is called at its end; None for none.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("caller", "idempotency_key", name="jobs_by_key"),
        Index("jobs_by_state", "state", "number"),
    )

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    caller: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64))
    operation: Mapped[str] = mapped_column(String(32))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    files: Mapped[list[str]] = mapped_column(JSON)
    credential: Mapped[str | None] = mapped_column(Text)
    trace: Mapped[dict[str, str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))
    created_s: Mapped[float] = mapped_column(Double)
    not_before_s: Mapped[float] = mapped_column(Double)
    started_s: Mapped[float | None] = mapped_column(Double)
    finished_s: Mapped[float | None] = mapped_column(Double)
    run: Mapped[str | None] = mapped_column(String(32))
    lease_until_s: Mapped[float | None] = mapped_column(Double)
    losses: Mapped[int] = mapped_column(Integer)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    webhook: Mapped[str | None] = mapped_column(Text)


class DeliveryRow(Table):
    """A webhook's event that is to be delivered, or was.

    Attributes:
        id: Of the event; the receiver knows by it what it has had.
        job: Number of its job.
        url: Where it goes.
        body: What is sent.
        state: Whether it was delivered.
        attempts: That were begun.
        due_s: When it is tried next. An attempt moves it on, so that no other gateway tries
            meanwhile.
        attempted_s: When it was last tried; None before.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index("webhook_deliveries_by_state", "state", "due_s"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job: Mapped[int] = mapped_column(Number, ForeignKey("jobs.number", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    due_s: Mapped[float] = mapped_column(Double)
    attempted_s: Mapped[float | None] = mapped_column(Double)
